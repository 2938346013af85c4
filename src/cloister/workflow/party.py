"""One signer on this machine and, where it acts in a job, its evidence log.

An older copy of a log is sound in itself, so opening one asks those who have seen it since. Rules kept here:

1. A log that is smaller than, or differs from, any checkpoint held of it is refused: those that lie in the
   folder of checkpoints held off this machine, and those in the books of the parties that live on it.
2. Where nobody off this machine holds a checkpoint of it, a log that has entries is opened only if the
   manifests of the job say so in writing; what they said holds until the next job.
3. A log that was used and is gone is never begun anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.core.errors import InputError
from cloister.core.files import read_bounded, sync_directory, write_atomic, write_new
from cloister.core.keys import Signer
from cloister.evidence import EvidenceLog, Role, log_origin
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import LogError
from cloister.evidence.witness.book import CheckpointBook, read_notes
from cloister.evidence.witness.rollback import require_newest
from cloister.evidence.witness.rules import rolled_back
from cloister.policy import UnwitnessedLog

_HELD = "held"


@dataclass(frozen=True)
class LogPlaces:
    """Where a party's log is kept, and where checkpoints of it may be found.

    Attributes:
        database: URL of the PostgreSQL database that holds the log; None keeps it in a file of the party.
        outside: A folder with checkpoints held off this machine, as ``*.note``; None where there is none.
        neighbours: The folder ``<role>/<name>`` of the parties on this machine, whose books are looked into.
    """

    database: str | None = None
    outside: Path | None = None
    neighbours: Path | None = None


@dataclass(frozen=True)
class Party:
    """One signer and, where it acts in a job, its log."""

    name: str
    role: str
    signer: Signer
    folder: Path
    places: LogPlaces = LogPlaces()

    @property
    def book(self) -> CheckpointBook:
        """The checkpoints of other parties' logs that this party holds."""
        return CheckpointBook(self.folder / _HELD)

    @property
    def origin(self) -> str:
        """The name of the party's log."""
        return log_origin(Role(self.role), self.name)

    def agree_on_log(self, rule: UnwitnessedLog) -> None:
        """Keep what the manifests of a job say about opening this party's log; it holds until the next job.

        Args:
            rule: The strictest of them.
        """
        if self._rule() is not rule:
            write_atomic(self.folder / "log.rule", rule.value.encode())

    def open_log(self) -> EvidenceLog:
        """Open the party's evidence log, beginning it with the party's first use.

        Raises:
            LogError: The log is gone although the party has used it, it doesn't hold together, it is older
                than somebody has seen it, or nobody off this machine has and that isn't allowed.
            EvidenceError: A checkpoint held of it isn't one, or isn't signed by this party.
        """
        outside = self._held_outside()
        held = [*outside, *self._held_by_neighbours()]
        log = self._open(max((one.size for one in held), default=0))
        try:
            head = log.checkpoint()
            require_newest(head, log.consistency_proof, held, log.public_key)
            if head.size and not outside:
                self._require_allowed(head)
        except BaseException:
            log.close()
            raise
        return log

    def held_checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of this party's log that others hold, off this machine and on it."""
        return [*self._held_outside(), *self._held_by_neighbours()]

    def _open(self, held: int) -> EvidenceLog:
        path, begun = self.folder / "log.sqlite", self.folder / "log.begun"
        place = self.places.database or path
        if not path.exists() and not begun.exists():
            if held:
                raise rolled_back(self.origin, 0, held)
            self._begin_log(path)
        log = EvidenceLog.open(place, origin=self.origin, signer=self.signer)
        if not begun.exists():
            write_new(begun, b"")
        return log

    def _begin_log(self, path: Path) -> None:
        """Make an empty log that appears whole: a disk that fills up meanwhile leaves none behind."""
        if self.places.database is not None:
            self._begin_in_database(self.places.database)
            return
        draft = path.with_name(".log.unfinished")
        for leftover in path.parent.glob(f"{draft.name}*"):
            leftover.unlink()
        try:
            EvidenceLog.create(draft, origin=self.origin, signer=self.signer).close()
            draft.rename(path)
        finally:
            for leftover in path.parent.glob(f"{draft.name}*"):
                leftover.unlink()
        sync_directory(path.parent)

    def _begin_in_database(self, url: str) -> None:
        """Make an empty log, or find the one that an interrupted first use made; it is empty then."""
        try:
            EvidenceLog.create(url, origin=self.origin, signer=self.signer).close()
        except LogError as error:
            if error.code != "evidence.log_exists":
                raise

    def _held_outside(self) -> list[Checkpoint]:
        if self.places.outside is None:
            return []
        return [one for one in read_notes(self.places.outside) if one.origin == self.origin]

    def _held_by_neighbours(self) -> Iterator[Checkpoint]:
        if self.places.neighbours is None:
            return
        for folder in sorted(self.places.neighbours.glob(f"*/*/{_HELD}")):
            found = CheckpointBook(folder).newest(self.origin)
            if found is not None:
                yield found

    def _rule(self) -> UnwitnessedLog | None:
        try:
            return UnwitnessedLog(read_bounded(self.folder / "log.rule", 100).decode("ascii"))
        except InputError as error:
            if error.code == "input.missing_file":
                return None
            raise
        except ValueError:
            return UnwitnessedLog.REFUSE

    def _require_allowed(self, head: Checkpoint) -> None:
        if self._rule() is UnwitnessedLog.ALLOW:
            return
        raise LogError(
            "evidence.log_unwitnessed",
            f"{head.origin} has {head.size} entries, and nobody off this machine holds a checkpoint of it: "
            "it may be an older copy.",
            "Name the folder in which a witness or another party publishes what it holds as held_checkpoints "
            "in cloister.toml; or let the manifest say evidence_log: {without_outside_checkpoint: allow}.",
        )
