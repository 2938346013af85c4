"""Access to a log is evidence: who read, exported or reported on it, stated in the log's own stream.

Rules kept here:

1. The statement is durable before anything is handed over; where it can't be logged, nothing is.
2. An export is stated twice: who asks for it and why (Access), before it is made and so that it holds the
   statement; and which bundle it became, for whom (Export), before it is handed over.
3. Looking back for the export before reads the log's own stream from its end, and no further than needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cloister.core.clock import Clock
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import Signer
from cloister.evidence.custody.bundle import asked_subject, decode_bundle
from cloister.evidence.errors import AuditError, LogError
from cloister.evidence.extract import ProvenEntry, log_owner, log_stream
from cloister.evidence.predicates import Access, Export
from cloister.evidence.statement import Subject, open_statement
from cloister.evidence.writer import StatementWriter

if TYPE_CHECKING:
    from cloister.evidence.log import EvidenceLog

Action = Literal["read", "export", "verify", "report"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for something, and why.

    Attributes:
        name: as the operating system knows them, and what they call themselves.
        role: in what role, in their own words.
        purpose: why, in their own words.
    """

    name: str
    role: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Accessed:
    """One statement about access to a log, and where it stands.

    Attributes:
        origin: the log.
        index: the statement's place in it.
        statement: who did what (Access), or which bundle was exported (Export).
    """

    origin: str
    index: int
    statement: Access | Export


class AccessRecord:
    """States access to one party's log, in the log's own stream.

    Args:
        log: the party's log.
        signer: the party's key.
        clock: gives the time.
    """

    def __init__(self, log: EvidenceLog, signer: Signer, clock: Clock) -> None:
        self._log = log
        _, party = log_owner(log.origin)
        self._writer = StatementWriter(log, signer, party, log_stream(log.origin), clock)

    def state_access(self, actor: Actor, action: Action, what: str, export_id: str | None = None) -> None:
        """State that somebody reads, exports, verifies or reports on what the party keeps.

        Args:
            actor: who, and why.
            action: what they do.
            what: what they look at, such as ``job <id>``.
            export_id: the export that is to be made of it, which then holds this statement.

        Raises:
            EvidenceError: a text is too long or not printable, or the log doesn't hold together.
            StorageError: it can't be logged; then nothing may be handed over.
        """
        subjects = [Subject(f"log {self._log.origin}", sha256_hex(self._log.origin.encode()))]
        if export_id is not None:
            subjects.append(asked_subject(export_id))
        self._writer.write(
            Access,
            subjects,
            actor=actor.name,
            role=actor.role,
            action=action,
            what=what,
            purpose=actor.purpose,
        )

    def state_export(self, bundle: bytes) -> None:
        """State that a bundle made from this log is about to be handed over.

        Args:
            bundle: the export as it will be handed over.

        Raises:
            AuditError: ``evidence.export_refused`` if another export was made from the log meanwhile.
            EvidenceError: it isn't an export of this log, or the log doesn't hold together.
            StorageError: it can't be logged; then it may not be handed over.
        """
        body, sha256 = decode_bundle(bundle).body, sha256_hex(bundle)
        before = last_export(self._log)
        previous = None if before is None else Sha256(before.bundle_sha256)
        if self._log.origin not in body.logs or body.logs[self._log.origin].previous != previous:
            raise AuditError(
                "evidence.export_refused",
                f"Another export was made from {self._log.origin} meanwhile.",
                "Ask for it again: it has to name the one before it.",
            )
        self._writer.write(
            Export,
            [Subject(f"audit export {body.export_id}", sha256)],
            bundle_sha256=sha256,
            selection=body.selection,
            recipient=body.recipient,
            previous_export_sha256=previous,
        )


def own_backwards(log: EvidenceLog) -> Iterator[ProvenEntry]:
    """The entries of a log's own stream, newest first, each proven to be in it.

    Raises:
        EvidenceError: if the log doesn't hold together.
    """
    stream = log_stream(log.origin)
    for position in range(log.length(stream) - 1, -1, -1):
        entry = log.at(stream, position)
        if entry is None:
            raise LogError(
                "evidence.log_mismatch", f"Statement {position} of the own stream of {log.origin} is gone."
            )
        yield entry


def exports_backwards(log: EvidenceLog) -> Iterator[Export]:
    """The exports that a log states, newest first.

    Raises:
        EvidenceError: if the log doesn't hold together.
    """
    for entry in own_backwards(log):
        predicate = open_statement(entry.envelope).predicate
        if isinstance(predicate, Export):
            yield predicate


def last_export(log: EvidenceLog) -> Export | None:
    """The export that a log states last; None if there was none.

    Raises:
        EvidenceError: if the log doesn't hold together.
    """
    return next(exports_backwards(log), None)


def accesses(log: EvidenceLog) -> tuple[Accessed, ...]:
    """Every stated access to a log, oldest first, each proven to be in it.

    Raises:
        EvidenceError: if the log doesn't hold together.
    """
    found: list[Accessed] = []
    for entry in log.extract(log_stream(log.origin)).entries:
        predicate = open_statement(entry.envelope).predicate
        if isinstance(predicate, Access | Export):
            found.append(Accessed(log.origin, entry.index, predicate))
    return tuple(found)
