"""Reading a log: entries, proofs and heads, each verified before it is handed out.

Rules kept here:

1. The head must be signed by one of the log's keys and continue every head that this object has signed or
   seen (:mod:`~cloister.evidence.log.heads`); opening checks that the stored tree leads to it.
2. An entry or a proof is handed out only after it was verified to lead to the signed head
   (:mod:`~cloister.evidence.log.stored_tree`).
3. No hash covers the stream and position under which an entry lies, so they must be those that its statement
   states: whenever entries are proven, in `verify`, and in `check_places` for the whole log.
4. Nothing reads more than the tree's height, a stream's entries or one block at a time, however long the log
   is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from cloister.core.closing import Closing
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.envelope import Envelope
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.extract import LogExtract, ProvenEntry
from cloister.evidence.log.heads import KnownHeads
from cloister.evidence.log.places import lies_where_stated
from cloister.evidence.log.store import (
    Store,
    StoredEntry,
    log_mismatch,
    read_ends,
    read_entry,
    read_last,
    read_place,
    read_range,
    read_stream,
)
from cloister.evidence.log.stored_tree import StoredTree, blamed_on
from cloister.evidence.merkle import CompactRange, leaf_hash, verify_inclusion

BLOCK: Final = 512


class LogReader(Closing):
    """A log that is only read. Open it with `open_for_reading`.

    Args:
        store: its tables.
        origin: its name.
        keys: the keys that may have signed its head.
    """

    def __init__(self, store: Store, origin: str, keys: Sequence[PublicKey]) -> None:
        self._store = store
        self._origin = origin
        self._keys = tuple(keys)
        self._heads = KnownHeads(store.name, origin, self._keys)
        self._placed = 0

    @classmethod
    def open_for_reading(cls, place: Path | str, *, origin: str, keys: Sequence[PublicKey]) -> LogReader:
        """Open a log without its private key, and check its tree against its signed head.

        Args:
            place: the SQLite file, or the URL of a PostgreSQL database.
            origin: the name the log must have.
            keys: the public keys that may have signed its head.

        Returns:
            The log, to be read.

        Raises:
            LogError: ``evidence.log_missing`` or ``evidence.log_mismatch``.
            StorageError: if it can't be read as a database.
        """
        reader = LogReader(Store.open(place, origin), origin, keys)
        reader._check_or_close()
        return reader

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._origin

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The keys that may have signed a head of this log: the present one first."""
        return self._keys

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self.checkpoint().size

    def checkpoint(self) -> Checkpoint:
        """The log's signed head.

        Raises:
            LogError: ``evidence.log_mismatch`` if it isn't signed by this log's key.
        """
        with self._store.snapshot() as connection:
            return self._head(connection)

    def root_at(self, size: int) -> bytes:
        """The root of the log as it was at this size, proven to be how the log began.

        Raises:
            EvidenceError: ``evidence.out_of_range`` or ``evidence.log_mismatch``.
        """
        with self._store.snapshot() as connection:
            head = self._head_of(connection, size)
            return self._tree(connection).root_at(size, head)

    def subtrees(self, level: int, start: int, end: int) -> tuple[bytes, ...]:
        """The roots of complete subtrees side by side, proven to be the log's.

        Args:
            level: their height; of 0, they are leaf hashes.
            start: the first one's position among those of its height.
            end: one past the last.

        Returns:
            Their hashes.

        Raises:
            EvidenceError: ``evidence.out_of_range`` or ``evidence.log_mismatch``.
        """
        with self._store.snapshot() as connection:
            head = self._head_of(connection, end << level)
            return self._tree(connection).subtrees(level, start, end, head)

    def entry(self, index: int) -> Envelope:
        """The envelope at a position, verified against the signed head.

        Raises:
            EvidenceError: ``evidence.out_of_range`` or ``evidence.log_mismatch``.
        """
        with self._store.snapshot() as connection:
            return self._proven(connection, self._head(connection), index).envelope

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[StoredEntry]:
        """Entries in the order of the log, block by block, each block verified before it is handed out.

        Args:
            start: the first index.
            end: one past the last; without it, the log's size now.

        Returns:
            An iterator that holds one block at a time; entries appended meanwhile are not in it.

        Raises:
            EvidenceError: ``evidence.out_of_range``; ``evidence.log_mismatch`` at the first entry that was
                altered or removed.
        """
        with self._store.snapshot() as connection:
            head = self._head(connection)
            end = head.size if end is None else end
            if not 0 <= start <= end <= head.size:
                raise EvidenceError("evidence.out_of_range", f"The log has no entries {start} to {end}.")
            tree = self._tree(connection).edge(start)
        return self._blocks(head, tree, end)

    def envelopes(self) -> tuple[Envelope, ...]:
        """Every envelope in order, verified as a whole against the signed head.

        Raises:
            LogError: ``evidence.log_mismatch`` if any entry was altered, removed or added.
        """
        with self._store.snapshot() as connection:
            self._check_end(connection, self._head(connection))
        return tuple(self._decoded(one) for one in self.entries())

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Proof that entry ``index`` is in the log as it was at ``size`` entries (RFC 9162 section 2.1.3).

        Raises:
            EvidenceError: ``evidence.out_of_range`` or ``evidence.log_mismatch``.
        """
        with self._store.snapshot() as connection:
            head = self._head_of(connection, size)
            return self._tree(connection).inclusion(index, size, head)

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Proof that the log at ``new_size`` begins with the log at ``old_size`` (RFC 9162 section 2.1.4).

        Raises:
            EvidenceError: ``evidence.out_of_range`` or ``evidence.log_mismatch``.
        """
        with self._store.snapshot() as connection:
            head = self._head_of(connection, new_size)
            return self._tree(connection).consistency(old_size, new_size, head)

    def extract(self, stream: str) -> LogExtract:
        """All entries of a stream with proofs against the present head, each verified.

        Args:
            stream: the job's id.

        Returns:
            The entries in order; none if the log knows no such stream.

        Raises:
            LogError: ``evidence.log_mismatch`` if the log is broken.
        """
        with self._store.snapshot() as connection:
            head = self._head(connection)
            found = read_stream(connection, stream)
            return LogExtract(self._origin, head, self._prove(connection, head, found))

    def proven(self, head: Checkpoint, start: int, end: int) -> tuple[ProvenEntry, ...]:
        """The entries from ``start`` up to but without ``end``, each proven against a head of this log.

        Args:
            head: the log's head, now or earlier.
            start: the first index.
            end: one past the last, at most the head's size.

        Raises:
            EvidenceError: ``evidence.out_of_range``; ``evidence.log_mismatch`` if they don't lead to it.
        """
        found = list(self.entries(start, end))
        with self._store.snapshot() as connection:
            return self._prove(connection, head, found)

    def last(self, stream: str) -> ProvenEntry | None:
        """A stream's newest entry, proven against the present head; None if the log knows no such stream.

        Raises:
            LogError: ``evidence.log_mismatch`` if the log is broken.
        """
        with self._store.snapshot() as connection:
            head = self._head(connection)
            found = read_last(connection, stream)
            return None if found is None else self._prove(connection, head, [found])[0]

    def at(self, stream: str, position: int) -> ProvenEntry | None:
        """The entry that holds a position of a stream, proven against the present head; None if none does.

        Raises:
            LogError: ``evidence.log_mismatch`` if the log is broken.
        """
        with self._store.snapshot() as connection:
            head = self._head(connection)
            found = read_place(connection, stream, position)
            return None if found is None else self._prove(connection, head, [found])[0]

    def length(self, stream: str) -> int:
        """How many positions of a stream are taken: one past its highest."""
        with self._store.snapshot() as connection:
            found = read_last(connection, stream)
            return 0 if found is None else found.position + 1

    def check_places(self) -> None:
        """Require every entry to lie under the stream and position that its statement states.

        What this object has compared once it doesn't read again.

        Raises:
            LogError: ``evidence.log_mismatch``.
        """
        size = self.checkpoint().size
        for stored in self.entries(self._placed, size):
            self._require_place(stored, self._decoded(stored))
        self._placed = max(self._placed, size)

    def verify(self) -> Checkpoint:
        """Read the whole log: every entry, its place, and every stored hash has to lead to the signed head.

        Returns:
            The head that everything leads to.

        Raises:
            LogError: ``evidence.log_mismatch``.
        """
        with self._store.snapshot() as connection:
            head = self._head(connection)
            self._check_end(connection, head)
        tree = CompactRange()
        wanted: dict[tuple[int, int], bytes] = {}
        for stored in self.entries(0, head.size):
            self._require_place(stored, self._decoded(stored))
            wanted.update(((level, at), one) for level, at, one in tree.append(leaf_hash(stored.data)))
            if len(wanted) >= BLOCK:
                self._require_nodes(wanted)
                wanted.clear()
        self._require_nodes(wanted)
        return head

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    def _check_or_close(self) -> None:
        """What opening checks: the head's signature, the tree's edge, the last entry."""
        try:
            with self._store.snapshot() as connection:
                head = self._head(connection)
                self._check_end(connection, head)
                self._tree(connection).edge_at(head)
                if head.size:
                    self._proven(connection, head, head.size - 1)
        except BaseException:
            self.close()
            raise

    def _check_end(self, connection: Connection, head: Checkpoint) -> None:
        if read_ends(connection) != ((0, head.size - 1) if head.size else (None, None)):
            raise self._mismatch("it has more or fewer entries than its head says")

    def _head(self, connection: Connection) -> Checkpoint:
        return self._heads.read(connection)

    def _tree(self, connection: Connection) -> StoredTree:
        return StoredTree(connection, self._store.name)

    def _head_of(self, connection: Connection, size: int) -> Checkpoint:
        head = self._head(connection)
        if not 0 <= size <= head.size:
            raise EvidenceError("evidence.out_of_range", f"The log has fewer than {size} entries.")
        return head

    def _proven(self, connection: Connection, head: Checkpoint, index: int) -> ProvenEntry:
        if not 0 <= index < head.size:
            raise EvidenceError("evidence.out_of_range", f"The log has no entry {index}.")
        found = read_entry(connection, index)
        if found is None:
            raise self._mismatch(f"its entry {index} is gone")
        return self._prove(connection, head, [found])[0]

    def _prove(
        self, connection: Connection, head: Checkpoint, found: Sequence[StoredEntry]
    ) -> tuple[ProvenEntry, ...]:
        if any(not 0 <= one.index < head.size for one in found):
            raise self._mismatch("it has entries beyond its head")
        proofs = self._tree(connection).paths([one.index for one in found], head.size)
        proven = []
        for one, proof in zip(found, proofs, strict=True):
            with self._blamed(f"its entry {one.index} was altered"):
                verify_inclusion(leaf_hash(one.data), one.index, head.size, proof, head.root)
                envelope = one.envelope
            self._require_place(one, envelope)
            proven.append(ProvenEntry(one.index, envelope, proof))
        return tuple(proven)

    def _blocks(self, head: Checkpoint, tree: CompactRange, end: int) -> Iterator[StoredEntry]:
        while tree.size < end:
            stop = min(tree.size + BLOCK, end)
            with self._store.snapshot() as connection:
                found = read_range(connection, tree.size, stop)
                for one in found:
                    if one.index != tree.size:
                        break
                    tree.append(leaf_hash(one.data))
                if tree.size != stop:
                    raise self._mismatch(f"its entry {tree.size} is gone")
                if tree.root() != self._tree(connection).root_at(stop, head):
                    raise self._mismatch(f"an entry from {found[0].index} to {stop - 1} was altered")
            yield from found

    def _decoded(self, stored: StoredEntry) -> Envelope:
        with self._blamed(f"its entry {stored.index} was altered"):
            return stored.envelope

    def _require_place(self, stored: StoredEntry, envelope: Envelope) -> None:
        if not lies_where_stated(envelope, stored.stream, stored.position):
            raise self._mismatch(f"its entry {stored.index} lies elsewhere than its statement says")

    def _require_nodes(self, wanted: dict[tuple[int, int], bytes]) -> None:
        with self._store.snapshot() as connection:
            self._tree(connection).require(wanted)

    def _blamed(self, reason: str) -> AbstractContextManager[None]:
        return blamed_on(self._store.name, reason)

    def _mismatch(self, reason: str) -> LogError:
        return log_mismatch(self._store.name, reason)
