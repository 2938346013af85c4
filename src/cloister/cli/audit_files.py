"""The files that audits leave: an export, or a folder with a report and the export it rests on.

Nothing is overwritten, and what is refused beforehand leaves nothing behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cloister.evidence.regulation import Assessment

EXPORT_FILE: Final = "export.json"
REPORT_JSON: Final = "report.json"
REPORT_HTML: Final = "report.html"


def require_new(path: Path) -> None:
    """Refuse a name that is taken, before anything is done.

    Raises:
        StorageError: ``storage.exists``.
    """
    from cloister.core.errors import StorageError

    if path.exists():
        raise StorageError(
            "storage.exists", f"{path} is already there.", "Move it away or choose another name."
        )


class ReportFolder:
    """The folder that a report goes to.

    Args:
        path: made when the first file is written, if it isn't there.

    Raises:
        StorageError: ``storage.exists`` where one of the report's files is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        for name in (EXPORT_FILE, REPORT_JSON, REPORT_HTML):
            require_new(path / name)

    def make_export(self, export: Callable[[Callable[[bytes], None]], bytes]) -> bytes:
        """Keep an export that is made for the report.

        Args:
            export: makes it, has it written by the function that it is given, and returns it.

        Returns:
            The export.

        Raises:
            StorageError: it can't be written; a folder that was made for it is gone again.
        """
        from cloister.core.files import StagedFile

        made = not self._path.exists()
        self._make()
        try:
            with StagedFile(self._path / EXPORT_FILE) as staged:
                bundle = export(staged.write)
                staged.appear()
        except BaseException:
            if made:
                self._path.rmdir()
            raise
        return bundle

    @contextmanager
    def set_aside_unless_written(self, bundle: bytes) -> Iterator[None]:
        """Let nothing stand in the way of another try, if no report can be made.

        An export that was made for it is kept under another name: the logs state it, and it is a link of the
        chain of exports.

        Args:
            bundle: the export.

        Yields:
            Once; the report is to be made and written within.
        """
        from cloister.core.errors import CloisterError
        from cloister.core.hashes import sha256_hex

        made = (self._path / EXPORT_FILE).exists()
        try:
            yield
        except BaseException as error:
            for name in (REPORT_JSON, REPORT_HTML):
                (self._path / name).unlink(missing_ok=True)
            if not made:
                (self._path / EXPORT_FILE).unlink(missing_ok=True)
                raise
            aside = self._path / f"export-without-report-{sha256_hex(bundle)[:16]}.json"
            (self._path / EXPORT_FILE).rename(aside)
            if not isinstance(error, CloisterError):
                raise
            told = f"the export, which the logs state, is kept as {aside}"
            raise type(error)(
                error.code, error.message, error.hint, details=[*error.details, told]
            ) from error

    def write(self, assessment: Assessment, bundle: bytes) -> None:
        """Write the report, as HTML and as JSON, beside the export it rests on.

        Args:
            assessment: the report.
            bundle: the export, which is written too where it isn't there.

        Raises:
            StorageError: it can't be written.
        """
        from cloister.core.files import write_new
        from cloister.evidence.regulation.render import render_report

        if not (self._path / EXPORT_FILE).exists():
            self._make()
            write_new(self._path / EXPORT_FILE, bundle)
        written = json.dumps(assessment.as_json(), indent=2, sort_keys=True).encode() + b"\n"
        write_new(self._path / REPORT_JSON, written)
        write_new(self._path / REPORT_HTML, render_report(assessment).encode())

    def _make(self) -> None:
        from cloister.core.files import storage_error

        try:
            self._path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise storage_error(error, self._path) from None
