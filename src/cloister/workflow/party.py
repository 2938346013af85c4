"""One signer on this machine and, where it acts in a job, its evidence log.

An older copy of a log is sound in itself, so opening one asks those who have seen it since. Rules kept here:

1. A log that is smaller than, or differs from, any checkpoint held of it is refused: those that lie in the
   folder of checkpoints held off this machine, and those in the books of the parties that live on it.
2. Held off this machine counts only what a pinned witness cosigned: a note that the log alone signed may be
   its owner's own. Where there is none, a log that has entries takes part in a job only if the manifests of
   the job say so in writing; what they said holds until the next job. To show what is in it, which is how a
   witness comes to see it, it is opened all the same.
3. That folder has to be there where one is named, and never offers less than it did before.
4. A log that was used and is gone, or is empty again, is never begun anew.
5. A party's former keys stay known: what they signed remains its log's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloister.core.errors import InputError
from cloister.core.files import read_bounded, sync_directory, write_atomic, write_new
from cloister.core.keys import PublicKey, Signer
from cloister.evidence import EvidenceLog, Role, log_origin
from cloister.evidence.checkpoint import Checkpoint, verify_cosignature
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.witness.book import CheckpointBook, read_note, read_notes
from cloister.evidence.witness.rollback import require_newest
from cloister.evidence.witness.rules import rolled_back
from cloister.policy import UnwitnessedLog
from cloister.workflow.party_keys import former_keys

_HELD: Final = "held"
_SEEN: Final = "log.outside"


@dataclass(frozen=True)
class LogPlaces:
    """Where a party's log is kept, and where checkpoints of it may be found.

    Attributes:
        database: URL of the PostgreSQL database that holds the log; None keeps it in a file of the party.
        outside: A folder with checkpoints held off this machine, as ``*.note``; None where there is none.
        neighbours: The folder ``<role>/<name>`` of the parties on this machine, whose books are looked into.
        witnesses: The pinned keys of those whose cosignature says that a checkpoint was seen elsewhere.
        jobs: The folder of finished jobs, each with the keys of who took part.
    """

    database: str | None = None
    outside: Path | None = None
    neighbours: Path | None = None
    witnesses: Mapping[str, PublicKey] = field(default_factory=dict, hash=False)
    jobs: Path | None = None


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

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The key the party signs with, then those it signed with before.

        Raises:
            KeyStoreError: ``key.malformed``, naming the file that is no public key.
            InputError: A file can't be read.
        """
        present = self.signer.public_key
        return (present, *(key for key in former_keys(self.folder) if key != present))

    def open_log(self) -> EvidenceLog:
        """Open the party's evidence log to take part in a job, beginning it with the party's first use.

        Raises:
            LogError: The log is gone although the party has used it, it doesn't hold together, it is older
                than somebody has seen it, or nobody off this machine has and that isn't allowed.
            EvidenceError: A checkpoint held of it isn't one, or isn't signed by this party.
            InputError: The folder of checkpoints held off this machine is named and isn't there.
        """
        return self._opened(for_job=True)

    def open_log_to_show(self) -> EvidenceLog:
        """Open the party's evidence log to show what is in it.

        That may be an older copy, as far as nobody off this machine tells. So nothing of a job is to be
        appended; who was shown what is.

        Raises:
            LogError: As `open_log`, but for what the manifests allow.
            EvidenceError: As `open_log`.
            InputError: As `open_log`.
        """
        return self._opened(for_job=False)

    def held_checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of this party's log that others hold, off this machine and on it."""
        return [*self._held_outside(), *self._seen_outside(), *self._held_by_neighbours()]

    def _opened(self, *, for_job: bool) -> EvidenceLog:
        outside = self._held_outside()
        seen = self._seen_outside()
        held = [*outside, *seen, *self._held_by_neighbours()]
        log = self._open(max((one.size for one in held), default=0))
        try:
            head = log.checkpoint()
            require_newest(head, log.consistency_proof, held, *log.keys)
            self._require_no_trace_of_use(head)
            counted = [one for one in outside if self._is_witnessed(one)]
            if for_job and head.size:
                self._require_witnessed(head, counted, seen)
            self._remember(counted, seen)
        except BaseException:
            log.close()
            raise
        return log

    def _open(self, held: int) -> EvidenceLog:
        path, begun = self.folder / "log.sqlite", self.folder / "log.begun"
        place = self.places.database or path
        if not path.exists() and not begun.exists():
            if held:
                raise rolled_back(self.origin, 0, held)
            self._require_no_trace_of_use(None)
            self._begin_log(path)
        log = EvidenceLog.open(place, origin=self.origin, signer=self.signer, accepted_keys=self.keys[1:])
        if not begun.exists():
            write_new(begun, b"")
        return log

    def _require_no_trace_of_use(self, head: Checkpoint | None) -> None:
        """An empty log is a new one only where nothing else shows that the party has stated something."""
        if head is not None and head.size:
            return
        traces = [*(self.folder / "budget").glob("[!.]*"), *(self.folder / _HELD).glob("[!.]*.note")]
        if self.places.jobs is not None:
            traces += self.places.jobs.glob(f"[!.]*/trust/{self.role}/{self.name}.pem")
        if traces:
            raise LogError(
                "evidence.log_missing",
                f"{self.origin} has no entries, although {min(traces)} shows that this party has used it.",
                "Restore the newest copy of the log; a party's evidence is not begun anew.",
            )

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
        folder = self.places.outside
        if folder is None:
            return []
        if not folder.is_dir():
            raise InputError(
                "input.missing_file",
                f"{folder}, in which checkpoints held off this machine are to lie, is not there.",
                "Bring it back, or change held_checkpoints in cloister.toml; an empty folder is one in which "
                "nobody has published anything yet.",
            )
        return [one for one in read_notes(folder) if one.origin == self.origin]

    def _seen_outside(self) -> list[Checkpoint]:
        """The newest witnessed checkpoint that the folder of those held off this machine has offered."""
        path = self.folder / _SEEN
        return [read_note(path)] if path.exists() else []

    def _is_witnessed(self, held: Checkpoint) -> bool:
        return held.size > 0 and any(_cosigned(held, *witness) for witness in self.places.witnesses.items())

    def _remember(self, counted: Sequence[Checkpoint], seen: Sequence[Checkpoint]) -> None:
        newest = max(counted, key=_size, default=None)
        if newest is not None and newest.size > max(map(_size, seen), default=0):
            write_atomic(self.folder / _SEEN, newest.encode().encode("utf-8"))

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

    def _require_witnessed(
        self, head: Checkpoint, counted: Sequence[Checkpoint], seen: Sequence[Checkpoint]
    ) -> None:
        offered, before = (max(map(_size, some), default=0) for some in (counted, seen))
        if self.places.outside is not None and offered < before:
            raise LogError(
                "evidence.log_unwitnessed",
                f"{self.places.outside} once had a witnessed checkpoint of {head.origin} with {before} "
                f"entries, and now has {f'one with {offered}' if offered else 'none'}.",
                "Let the witness publish its newest checkpoint again; `cloister log proof` works for that.",
            )
        if counted or self._rule() is UnwitnessedLog.ALLOW:
            return
        raise LogError(
            "evidence.log_unwitnessed",
            f"{head.origin} has {head.size} entries, and no checkpoint of it that a pinned witness cosigned "
            "lies in the folder of those held off this machine: it may be an older copy.",
            "Give a witness what `cloister log proof` makes; in cloister.toml name the folder in which it "
            "publishes what it cosigned as held_checkpoints, and a trust directory with its key as "
            "pinned_witnesses. Or let the manifest say evidence_log: {without_outside_checkpoint: allow}.",
        )


def _cosigned(held: Checkpoint, name: str, key: PublicKey) -> bool:
    try:
        verify_cosignature(held, name, key)
    except EvidenceError as error:
        if error.code != "evidence.cosignature_missing":
            raise
        return False
    return True


def _size(checkpoint: Checkpoint) -> int:
    return checkpoint.size
