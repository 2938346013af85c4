"""What was done to end a worker and what was looked at afterwards; it claims no more than that.

Nobody can prove that no copy is left in memory that a process gave back. So the record says: what the worker
says it overwrote, held against what it was handed; that the process ended and was reaped; whether a process
was found in its namespaces; that no core file was written; and whether pages could have reached a disk. The
kernel clears freed pages before another process gets them, or at once with ``init_on_free=1``, which is not
looked at here. Rules kept here:

1. What couldn't be looked at is not run, with the reason. It never counts as passed.
2. What is said to have been done follows from what was seen, word for word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from cloister.core.canonical import JSON
from cloister.enclave.sealed.claims import SWAP_OFF, SealClaims
from cloister.enclave.sealed.control import WorkerEnded
from cloister.evidence.predicates import Destruction
from cloister.evidence.predicates.custody import REAPED, WIPED, WORKER_LOOKS, WORKER_MEMORY
from cloister.evidence.statement import Subject

if TYPE_CHECKING:
    from cloister.evidence.writer import StatementSink

CheckOutcome = Literal["passed", "failed", "not_run"]
_SPACES, _CORE, _DISK = WORKER_LOOKS[2:]
_UNSEEN: Final = "the fork server did not report the end"
_NO_CORE: Final = ("no-core-file", "not-dumpable")


@dataclass(frozen=True, slots=True)
class DestructionCheck:
    """One look, as in `cloister.evidence.predicates.Destruction`."""

    name: str
    outcome: CheckOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class Wiped:
    """What the worker says it overwrote before it ended."""

    buffers: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a worker held of records or of a model, as far as the node that handed it over knows.

    Attributes:
        artifacts: SHA-256 of each thing that went in, and of the public key that the worker made.
        bytes: how many bytes it has to overwrite at least; 0 where nothing went in.
        locked: whether the worker says that its buffers are locked in memory.
    """

    artifacts: tuple[str, ...] = ()
    bytes: int = 0
    locked: bool = False


@dataclass(frozen=True, slots=True)
class DestructionRecord:
    """The end of one worker.

    Attributes:
        worker: its number at its host.
        artifacts: SHA-256 of its public key, of the table it opened and of the reply that its key came in, as
            far as it got.
        method: what was done.
        checks: what was looked at.
    """

    worker: int
    artifacts: tuple[str, ...]
    method: str
    checks: tuple[DestructionCheck, ...]

    @property
    def complete(self) -> bool:
        """Whether every look was made, and passed."""
        return all(one.outcome == "passed" for one in self.checks)

    def statement_fields(self) -> dict[str, JSON]:
        """The fields of a `Destruction` statement, but for whether it is simulated: the caller's word."""
        return {
            "what": WORKER_MEMORY,
            "method": self.method,
            "artifacts": list(self.artifacts),
            "checks": [
                {"name": one.name, "outcome": one.outcome, "detail": one.detail} for one in self.checks
            ],
        }


def record_of(
    worker: int, held: Held, claims: SealClaims, ended: WorkerEnded | None, wiped: Wiped | None
) -> DestructionRecord:
    """Judge what was seen of a worker's end.

    Args:
        worker: its number.
        held: what it held.
        claims: what held it.
        ended: what the server saw; None where it did not say so.
        wiped: what the worker says it overwrote; None where it was killed before.
    """
    checks = (
        _wiped(wiped, held),
        _reaped(ended),
        _spaces(claims, ended),
        _core(claims, ended),
        _disk(claims, held),
    )
    return DestructionRecord(worker, held.artifacts, _method(checks, ended), checks)


def state_destruction(log: StatementSink, record: DestructionRecord, subject: Subject) -> None:
    """State a worker's end.

    Args:
        log: of whoever ran the worker.
        record: what was done and seen.
        subject: what the worker was for.

    Raises:
        EvidenceError: it can't be stated.
    """
    log.write(Destruction, [subject], **record.statement_fields(), simulated=False)


def _method(checks: tuple[DestructionCheck, ...], ended: WorkerEnded | None) -> str:
    outcomes: Mapping[str, CheckOutcome] = {one.name: one.outcome for one in checks}
    done = ["wiped"] if outcomes[WIPED] == "passed" else []
    if ended is not None:
        done += ["ended by itself" if ended.cause == "exited" else "killed", "reaped"]
    return ", ".join(done) or "not known to have ended"


def _wiped(wiped: Wiped | None, held: Held) -> DestructionCheck:
    if wiped is None:
        why = "the worker ended before it said that it had wiped anything"
        return DestructionCheck(WIPED, "not_run", why)
    # Its own numbers are not repeated: a statement is no place for what a worker chooses.
    if not held.bytes:
        why = "the worker says it overwrote its buffers; the node knows of nothing that it was handed"
        return DestructionCheck(WIPED, "not_run", why)
    handed = f"the {held.bytes} bytes that it was handed"
    if wiped.bytes < held.bytes or wiped.buffers < 1:
        return DestructionCheck(WIPED, "failed", f"the worker says it overwrote less than {handed}")
    return DestructionCheck(
        WIPED,
        "passed",
        f"the worker says it overwrote at least {handed}; copies that libraries made are not covered",
    )


def _reaped(ended: WorkerEnded | None) -> DestructionCheck:
    if ended is None:
        return DestructionCheck(REAPED, "failed", _UNSEEN)
    return DestructionCheck(REAPED, "passed", f"waited for by its fork server; cause: {ended.cause}")


def _spaces(claims: SealClaims, ended: WorkerEnded | None) -> DestructionCheck:
    if not claims.level.isolated:
        return DestructionCheck(_SPACES, "not_run", "the worker had no namespaces of its own")
    if ended is None or ended.processes_seen is None:
        return DestructionCheck(_SPACES, "not_run", _UNSEEN if ended is None else "not looked at")
    if ended.left_in_spaces:
        return DestructionCheck(_SPACES, "failed", f"{ended.left_in_spaces} processes are in one of them")
    if not ended.sees_all or ended.processes_hidden:
        why = f"its fork server may look into {ended.processes_seen} processes, and not into all"
        return DestructionCheck(_SPACES, "not_run", why)
    return DestructionCheck(_SPACES, "passed", f"none of all {ended.processes_seen} processes is in one")


def _core(claims: SealClaims, ended: WorkerEnded | None) -> DestructionCheck:
    if ended is None:
        return DestructionCheck(_CORE, "not_run", _UNSEEN)
    if ended.core:
        return DestructionCheck(_CORE, "failed", "the kernel wrote one")
    if claims.lacking(_NO_CORE):
        return DestructionCheck(_CORE, "not_run", "the kernel reports none; it was not forbidden")
    return DestructionCheck(_CORE, "passed", "the kernel reports none; limit 0, not dumpable")


def _disk(claims: SealClaims, held: Held) -> DestructionCheck:
    if not claims.lacking((SWAP_OFF,)):
        return DestructionCheck(_DISK, "passed", "no swap device when it was sealed; it had no writable file")
    if not held.bytes:
        return DestructionCheck(
            _DISK, "not_run", "swap is in use; the node knows of nothing that it handed over"
        )
    if held.locked:
        why = "swap is in use; the worker says that its record buffers were locked, other pages were not"
        return DestructionCheck(_DISK, "passed", why)
    return DestructionCheck(_DISK, "failed", "swap is in use, and record buffers were not locked")
