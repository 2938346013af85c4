"""The evidence log: an append-only Merkle log of envelopes with a signed head, on SQLite or PostgreSQL.

Rules kept here:

1. `append` answers only after the entry, the tree and the newly signed head are on disk, in one transaction.
   Writers that come together share a transaction and a signature; each gets its own answer. Where a commit
   gets no answer, the log looks whether the entries are there before it says anything.
2. Stored entries and complete subtrees are never updated or deleted.
3. A log whose tree doesn't match its head is refused and takes no entry; it is never repaired.
4. A statement lies under the stream and position that it states.
5. Within a stream (one job) positions are taken once: two writers can't both be a party's n-th statement.
6. An entry fits the entry bundles of C2SP tlog-tiles: 65,535 bytes at most.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from cloister.core.errors import StorageError
from cloister.core.keys import PublicKey, Signer
from cloister.evidence.checkpoint import Checkpoint, sign_checkpoint
from cloister.evidence.envelope import Envelope
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.log.group import GroupCommit, LogEntry, PendingEntry, Ticket
from cloister.evidence.log.places import lies_where_stated
from cloister.evidence.log.reading import LogReader
from cloister.evidence.log.store import EntryRow, Store, node_number, read_place
from cloister.evidence.merkle import EMPTY_ROOT, CompactRange, leaf_hash

MAX_ENTRY_BYTES: Final = 65_535
_STREAM: Final = re.compile(r"[\x21-\x7e]{1,64}")
_MAX_POSITION: Final = 2**62
_UNCERTAIN: Final = "storage.uncertain"


@dataclass(frozen=True, slots=True)
class LogItem:
    """Something to log.

    Attributes:
        envelope: what to log.
        stream: what it belongs to: the job's id.
        position: its place among the stream's entries, from 0.
    """

    envelope: Envelope
    stream: str
    position: int


class EvidenceLog(LogReader):
    """One party's log. Make it with `create` once, and with `open` ever after.

    It may be used from several threads; several processes may have it open.
    """

    def __init__(self, store: Store, origin: str, signer: Signer, accepted: Sequence[PublicKey] = ()) -> None:
        super().__init__(store, origin, (signer.public_key, *accepted))
        self._signer = signer
        self._committing = threading.Lock()
        self._edge_at: tuple[str, CompactRange] | None = None
        self._signed: Checkpoint | None = None
        self._group = GroupCommit(self.commit_tickets)

    @classmethod
    def create(cls, place: Path | str, *, origin: str, signer: Signer) -> EvidenceLog:
        """Begin a new, empty log.

        Args:
            place: the SQLite file, which must not hold anything yet; or the URL of a PostgreSQL database, in
                which the log gets a schema of its own.
            origin: the log's name, see :func:`cloister.evidence.extract.log_origin`.
            signer: the key of the party that keeps the log; signs the head.

        Returns:
            The log.

        Raises:
            LogError: ``evidence.log_exists``.
            StorageError: if it can't be written.
        """
        head = sign_checkpoint(origin, 0, EMPTY_ROOT, signer)
        return cls(Store.create(place, origin, head.encode()), origin, signer)

    @classmethod
    def open(
        cls, place: Path | str, *, origin: str, signer: Signer, accepted_keys: Sequence[PublicKey] = ()
    ) -> EvidenceLog:
        """Open a log that is there, and check its tree against its signed head.

        Args:
            place: the SQLite file, or the URL of a PostgreSQL database.
            origin: the name the log must have.
            signer: the key that signs its heads from now on.
            accepted_keys: the party's former keys, one of which may have signed the head that is there.

        Returns:
            The log.

        Raises:
            LogError: ``evidence.log_missing`` or ``evidence.log_mismatch``.
            StorageError: if it can't be read as a database.
        """
        log = cls(Store.open(place, origin), origin, signer, accepted_keys)
        log._check_or_close()
        return log

    @property
    def public_key(self) -> PublicKey:
        """The key that signs the log's head."""
        return self._signer.public_key

    def append(self, envelope: Envelope, *, stream: str, position: int) -> LogEntry:
        """Add an envelope; it is durable when this returns.

        Args:
            envelope: what to log.
            stream: what the entry belongs to: the job's id.
            position: its place among the stream's entries, from 0; each is taken once.

        Returns:
            Where it is.

        Raises:
            LogError: ``evidence.log_mismatch`` if the position is taken or the stored tree is broken;
                ``evidence.entry_too_large``.
            StorageError: if it can't be written; then nothing was. ``storage.uncertain`` if the database went
                away while it committed and didn't come back: then it may be logged.
        """
        self._store.require_own_process()
        return self._group.submit(Ticket((pending(LogItem(envelope, stream, position)),)))[0]

    def append_many(self, items: Iterable[LogItem]) -> tuple[LogEntry, ...]:
        """Add several envelopes, all or none; they are durable when this returns.

        Args:
            items: what to log, in this order.

        Returns:
            Where they are, one after the other.

        Raises:
            LogError: as `append`; if one is refused, none is logged.
            StorageError: as `append`; all or none are logged.
        """
        self._store.require_own_process()
        entries = tuple(pending(one) for one in items)
        return self._group.submit(Ticket(entries)) if entries else ()

    def commit_tickets(self, tickets: Sequence[Ticket]) -> None:
        """Commit tickets in one transaction and settle each; for the log's own group commits.

        Args:
            tickets: what to log; one that is refused fails alone.
        """
        self._store.require_own_process()
        with self._committing:
            try:
                try:
                    self._commit(tickets)
                except StorageError as error:
                    if error.code != _UNCERTAIN:
                        raise
                    self._commit_again(tickets)
            except (StorageError, LogError) as error:
                for ticket in tickets:
                    if not ticket.settled:
                        ticket.settle(
                            type(error)(error.code, error.message, error.hint, details=error.details)
                        )

    def _commit_again(self, tickets: Sequence[Ticket]) -> None:
        """After a commit without an answer: look what of it is there, and log the rest.

        The first transaction holds the writers' lock until it is over, so what is found now is how it ended.
        """
        rest = [one for one in tickets if not one.settled]
        for ticket in rest:
            ticket.uncertain = True
        try:
            self._commit(rest)
        except StorageError as error:
            raise StorageError(
                _UNCERTAIN,
                f"{self._store.name} didn't say how a commit ended, and can't be asked: {error.message}",
                "The entry may be logged. Open the log anew and look before you append it again.",
            ) from error

    def _commit(self, tickets: Sequence[Ticket]) -> None:
        if not any(ticket.uncertain for ticket in tickets):
            try:
                return self._transact(tickets, lambda _, all_of_them: all_of_them)
            except IntegrityError:
                pass  # Somebody's position is taken; whose, the second attempt finds out.
        try:
            return self._transact(tickets, self._sift)
        except IntegrityError:
            raise self._mismatch("it has entries or nodes beyond its head") from None

    def _transact(
        self,
        tickets: Sequence[Ticket],
        sift: Callable[[Connection, Sequence[Ticket]], Sequence[Ticket]],
    ) -> None:
        kept, self._edge_at, self._signed = self._edge_at, None, None
        with self._store.transaction() as connection:
            fit = sift(connection, tickets)
            results = None if kept is None else self._add(connection, *kept, fit)
            if results is None:
                results = self._add(connection, *self._stored_edge(connection), fit)
            if results is None:
                raise self._mismatch("its head is not the one that was just read")
        self._advance_to_signed()
        for ticket, result in zip(fit, results, strict=True):
            ticket.settle(result)

    def _advance_to_signed(self) -> None:
        """What was signed is durable: from now on nothing older is taken for this log."""
        if self._signed is not None:
            self._heads.advance(self._signed)

    def _sift(self, connection: Connection, tickets: Sequence[Ticket]) -> Sequence[Ticket]:
        """Settle the tickets that hold a taken position; the rest can be added."""
        fit: list[Ticket] = []
        promised: set[tuple[str, int]] = set()
        for ticket in tickets:
            places = [(one.stream, one.position) for one in ticket.entries]
            found = [read_place(connection, *place) for place in places]
            logged = tuple(
                LogEntry(there.index, one.leaf)
                for there, one in zip(found, ticket.entries, strict=True)
                if there is not None and there.data == one.data
            )
            if ticket.uncertain and len(logged) == len(places):
                ticket.settle(logged)
            elif any(found) or len(set(places)) < len(places) or not promised.isdisjoint(places):
                stream, position = places[0]
                reason = f"entry {position} of {stream} is taken; another writer is at work"
                ticket.settle(self._mismatch(reason))
            else:
                promised.update(places)
                fit.append(ticket)
        return fit

    def _add(
        self, connection: Connection, head: str, tree: CompactRange, tickets: Sequence[Ticket]
    ) -> list[tuple[LogEntry, ...]] | None:
        """Add the tickets' entries behind a head and its edge; None if that head is not the log's."""
        rows: list[EntryRow] = []
        nodes: list[tuple[int, bytes]] = []
        results: list[tuple[LogEntry, ...]] = []
        for ticket in tickets:
            placed = []
            for one in ticket.entries:
                index = tree.size
                rows.append((index, one.stream, one.position, one.data))
                nodes.extend((node_number(level, at), value) for level, at, value in tree.append(one.leaf))
                placed.append(LogEntry(index, one.leaf))
            results.append(tuple(placed))
        if rows:
            signed = sign_checkpoint(self._origin, tree.size, tree.root(), self._signer)
            note = signed.encode()
            if not self._store.add(connection, rows, nodes, (head, note)):
                return None
            self._edge_at, self._signed = (note, tree), signed
        return results

    def _stored_edge(self, connection: Connection) -> tuple[str, CompactRange]:
        """The head that is stored and the tree's edge, which has to lead to it."""
        head = self._head(connection)
        return head.encode(), self._tree(connection).edge_at(head)


def pending(item: LogItem) -> PendingEntry:
    """Make something ready to be logged.

    Raises:
        LogError: ``evidence.entry_too_large``.
        EvidenceError: ``evidence.statement_refused`` if its place can't be one in a log, or is another than
            its statement states.
    """
    if not _STREAM.fullmatch(item.stream) or not 0 <= item.position < _MAX_POSITION:
        raise EvidenceError(
            "evidence.statement_refused", "A stream has up to 64 plain characters, and positions from 0."
        )
    if not lies_where_stated(item.envelope, item.stream, item.position):
        raise EvidenceError(
            "evidence.statement_refused", "A statement is logged under the job and sequence that it states."
        )
    data = item.envelope.encode()
    if len(data) > MAX_ENTRY_BYTES:
        raise LogError(
            "evidence.entry_too_large",
            f"An entry has {len(data)} bytes; a log takes {MAX_ENTRY_BYTES} at most.",
            "State the hash of what is large, not the thing itself.",
        )
    return PendingEntry(data, leaf_hash(data), item.stream, item.position)
