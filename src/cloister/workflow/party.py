"""One signer on this machine and, where it acts in a job, its evidence log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.core.files import sync_directory, write_new
from cloister.core.keys import Signer
from cloister.evidence import EvidenceLog, Role, log_origin
from cloister.evidence.witness.book import CheckpointBook


@dataclass(frozen=True)
class Party:
    """One signer and, where it acts in a job, its log."""

    name: str
    role: str
    signer: Signer
    folder: Path

    def open_log(self) -> EvidenceLog:
        """Open the party's evidence log, beginning it with the party's first use.

        Raises:
            EvidenceError: The log is gone although the party has used it, or it doesn't hold together.
        """
        path, begun = self.folder / "log.sqlite", self.folder / "log.begun"
        origin = log_origin(Role(self.role), self.name)
        if not path.exists() and not begun.exists():
            self._begin_log(path, origin)
        log = EvidenceLog.open(path, origin=origin, signer=self.signer)
        if not begun.exists():
            write_new(begun, b"")
        return log

    @property
    def book(self) -> CheckpointBook:
        """The checkpoints of other parties' logs that this party holds."""
        return CheckpointBook(self.folder / "held")

    def _begin_log(self, path: Path, origin: str) -> None:
        """Make an empty log that appears whole: a disk that fills up meanwhile leaves none behind."""
        draft = path.with_name(".log.unfinished")
        for leftover in path.parent.glob(f"{draft.name}*"):
            leftover.unlink()
        try:
            EvidenceLog.create(draft, origin=origin, signer=self.signer).close()
            draft.rename(path)
        finally:
            for leftover in path.parent.glob(f"{draft.name}*"):
                leftover.unlink()
        sync_directory(path.parent)
