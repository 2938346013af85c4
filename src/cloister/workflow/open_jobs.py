"""Jobs whose parties have begun to state something and haven't all closed their chains.

A process that is killed closes nothing. Therefore each job leaves a mark in the workspace before its first
statement and takes it away after the last; who opens the workspace next and finds a mark states the
incident and closes the chains that were left open, as failed. Then every chain in a log has an end that
tells what became of the job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cloister.core.clock import Clock, format_time
from cloister.core.files import storage_error, write_atomic
from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceError, StatementWriter, Subject
from cloister.evidence.predicates import Incident
from cloister.workflow.party import Party

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

    def close_all(self, party: Callable[[str, str], Party], clock: Clock) -> None:
        """Close every chain of every marked job that is still open, as failed.

        Args:
            party: Gives the party of a role and a name.
            clock: The time of the closing statements.

        Raises:
            EvidenceError: A party's log is gone or doesn't hold together.
            StorageError: A log can't be written.
        """
        for draft in self._folder.glob(".*"):
            draft.unlink()
        for mark in sorted(self._folder.glob("*")):
            for line in mark.read_text().splitlines():
                role, _, name = line.partition(" ")
                _close(party(role, name), mark.name, clock)
            self.end(mark.name)


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
