"""Jobs whose parties have begun to state something and haven't all closed their chains.

A process that is killed closes nothing. Therefore each job leaves a mark in the workspace before its first
statement and takes it away after the last; who opens the workspace next and finds a mark states the
incident and closes the chains that were left open, as failed. Then every chain in a log has an end that
tells what became of the job. Where one can't be closed, since its log can't be opened to take part in a job,
the mark stays, and everything that doesn't need that log goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cloister.core.clock import Clock, format_time
from cloister.core.errors import CloisterError, InputError
from cloister.core.files import read_bounded, storage_error, write_atomic
from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceError, StatementWriter, Subject
from cloister.evidence.checks import escaped
from cloister.evidence.predicates import Incident
from cloister.evidence.predicates.base import PARTY_PATTERN, UUID_PATTERN
from cloister.workflow.party import Party

_MAX_MARK: Final = 1024 * 1024
_LINE: Final = re.compile(rf"(hub|site) ({PARTY_PATTERN.strip('^$')})")
_INTERRUPTED: Final = {
    "incident_class": "run-interrupted",
    "severity": "medium",
    "detail": "The run ended before this party had closed its chain.",
    "response": "Whoever opened the workspace next closed the chain as failed.",
}


class OpenJobs:
    """The marks of one workspace.

    Args:
        folder: Holds one file per open job, named by its id, with a line ``<role> <name>`` for each party.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, job_id: str, parties: Sequence[Party]) -> None:
        """Mark a job as open; the mark is durable when this returns.

        Args:
            job_id: The job.
            parties: All who will state something about it.

        Raises:
            StorageError: It can't be written.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self._folder) from None
        lines = "".join(f"{party.role} {party.name}\n" for party in parties)
        write_atomic(self._folder / job_id, lines.encode())

    def end(self, job_id: str) -> None:
        """Take a job's mark away: all its chains are closed."""
        (self._folder / job_id).unlink(missing_ok=True)

    def close_all(self, party: Callable[[str, str], Party], clock: Clock) -> tuple[str, ...]:
        """Close every chain of every marked job that is still open, as failed.

        A mark stays as long as one of its chains can't be closed; a file that is no mark stays too.

        Args:
            party: Gives the party of a role and a name.
            clock: The time of the closing statements.

        Returns:
            A line for each chain that can't be closed now, and for each file that is no mark.
        """
        left: list[str] = []
        for draft in self._folder.glob(".*.tmp"):
            if draft.is_file():
                draft.unlink()
        for mark in sorted(self._folder.glob("[!.]*")):
            try:
                marked = _read_mark(mark)
            except CloisterError as error:
                left.append(f"{escaped(str(mark))} is left as it is: {escaped(error.message)}")
                continue
            problems: list[str] = []
            for role, name in marked:
                try:
                    _close(party(role, name), mark.name, clock)
                except CloisterError as error:
                    problems.append(
                        f"job {mark.name}, which was interrupted, is still open for {role}/{name}: "
                        f"[{error.code}] {error.message}"
                    )
            if not problems:
                self.end(mark.name)
            left += problems
        return tuple(left)


def _read_mark(path: Path) -> tuple[tuple[str, str], ...]:
    """Who has stated something about a job.

    Raises:
        InputError: It is no mark.
    """
    refusal = InputError("input.syntax", "it is no mark of an open job.")
    if not re.fullmatch(UUID_PATTERN, path.name):
        raise refusal
    try:
        text = read_bounded(path, _MAX_MARK).decode("ascii")
    except UnicodeDecodeError:
        raise refusal from None
    found = [_LINE.fullmatch(line) for line in text.splitlines()]
    parties = tuple((one[1], one[2]) for one in found if one is not None)
    if not parties or len(parties) != len(found):
        raise refusal
    return parties


def _close(party: Party, job_id: str, clock: Clock) -> None:
    with party.open_log() as log:
        if not log.extract(job_id).entries:
            return
        writer = StatementWriter(log, party.signer, party.name, job_id, clock)
        subject = Subject(f"job {job_id}", sha256_hex(job_id.encode("ascii")))
        try:
            writer.write(Incident, [subject], **_INTERRUPTED, detected_at=format_time(clock()))
            writer.close("failed")
        except EvidenceError as error:
            if error.code != "evidence.job_closed":
                raise
