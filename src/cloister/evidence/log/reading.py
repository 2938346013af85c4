"""Reading a log: entries, proofs and heads, each verified before it is handed out.

Rules kept here:

1. The head must be signed by one of the log's keys, and opening checks that the stored tree leads to it.
2. A head must continue every head that this object has signed or seen: a database that is set back under a
   process that has it open is refused, and takes no entry.
3. An entry or a proof is handed out only after it was verified to lead to the signed head.
4. No hash covers the stream and position under which an entry lies, so they must be those that its statement
   states: whenever entries are proven, in `verify`, and in `check_places` for the whole log.
5. What a proof needs is fetched in one query; nothing reads more than the tree's height, a stream's entries
   or one block at a time, however long the log is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Connection

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from cloister.evidence.envelope import Envelope
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.extract import LogExtract, ProvenEntry
from cloister.evidence.log.places import lies_where_stated
from cloister.evidence.log.store import (
    FORMAT,
    Store,
    StoredEntry,
    log_mismatch,
    read_ends,
    read_entry,
    read_head,
    read_last,
    read_nodes,
    read_place,
    read_range,
    read_stream,
)
from cloister.evidence.merkle import (
    CompactRange,
    NodeReader,
    compact_range_nodes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    subtree_root,
    verify_consistency,
    verify_inclusion,
)
from cloister.evidence.witness.rules import rolled_back

BLOCK: Final = 512
_NOTHING: Final = bytes(32)
T = TypeVar("T")


class LogReader:
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
        self._verified: tuple[str, Checkpoint] | None = None
        self._newest: Checkpoint | None = None
        self._advancing = threading.Lock()
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
            return self._proven_root(connection, size, head)

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
            places = compact_range_nodes(start << level)
            before = self._planned(connection, lambda get: [get(*place) for place in places])
            found = self._planned(connection, lambda get: [get(level, at) for at in range(start, end)])
            # Complete subtrees are to the tree above them what leaves are to the whole.
            tree = CompactRange(start, before)
            for one in found:
                tree.append(one)
            if tree.root() != self._proven_root(connection, end << level, head):
                raise self._mismatch("its stored tree doesn't lead to its signed head")
            return tuple(found)

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
            tree = self._edge(connection, start)
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

        def build(get: NodeReader) -> tuple[bytes, tuple[bytes, ...]]:
            proof = inclusion_proof(index, size, get)
            return get(0, index), proof

        with self._store.snapshot() as connection:
            head = self._head_of(connection, size)
            leaf, proof = self._planned(connection, build)
            root = self._proven_root(connection, size, head)
            with self._sound("its stored tree doesn't lead to its signed head"):
                verify_inclusion(leaf, index, size, proof, root)
        return proof

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Proof that the log at ``new_size`` begins with the log at ``old_size`` (RFC 9162 section 2.1.4).

        Raises:
            EvidenceError: ``evidence.out_of_range`` or ``evidence.log_mismatch``.
        """
        with self._store.snapshot() as connection:
            head = self._head_of(connection, new_size)
            new_root = self._proven_root(connection, new_size, head)
            return self._consistent(connection, old_size, new_size, new_root)[0]

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_or_close(self) -> None:
        """What opening checks: the head's signature, the tree's edge, the last entry."""
        try:
            with self._store.snapshot() as connection:
                head = self._head(connection)
                self._check_end(connection, head)
                self._edge(connection, head.size, head)
                if head.size:
                    self._proven(connection, head, head.size - 1)
        except BaseException:
            self.close()
            raise

    def _check_end(self, connection: Connection, head: Checkpoint) -> None:
        if read_ends(connection) != ((0, head.size - 1) if head.size else (None, None)):
            raise self._mismatch("it has more or fewer entries than its head says")

    def _head(self, connection: Connection) -> Checkpoint:
        # Taken before the database is asked: what it shows then can't be older, whatever others append.
        newest = self._newest
        row = read_head(connection)
        if row is None or row[0] != FORMAT:
            raise self._mismatch("it has no head of a known format")
        known = self._verified
        if known is not None and known[0] == row[1]:
            head = known[1]
        else:
            with self._sound("its head is not this log's, or not signed by its key"):
                head = parse_checkpoint(row[1])
                self._verify_head(head)
            self._verified = row[1], head
        if newest is None or (head.size, head.root) != (newest.size, newest.root):
            if newest is not None:
                self._require_continuation(connection, newest, head)
            self._advance(head)
        return head

    def _require_continuation(self, connection: Connection, newest: Checkpoint, head: Checkpoint) -> None:
        """Refuse a head that doesn't continue one that this object has signed or seen."""
        if head.size < newest.size:
            raise rolled_back(self._origin, head.size, newest.size)
        if self._proven_root(connection, newest.size, head) != newest.root:
            raise LogError(
                "evidence.log_rolled_back",
                f"The first {newest.size} entries of {self._origin} are not those that this process has "
                "signed or seen.",
                "The database was replaced while it was open. Stop what writes to it, and restore the newest "
                "copy.",
            )

    def _advance(self, head: Checkpoint) -> None:
        """Remember a head as the newest, unless a newer one is known by now."""
        with self._advancing:
            if self._newest is None or head.size > self._newest.size:
                self._newest = head

    def _verify_head(self, head: Checkpoint) -> None:
        for key in self._keys[:-1]:
            try:
                return verify_checkpoint(head, self._origin, key)
            except CloisterError:
                continue
        return verify_checkpoint(head, self._origin, self._keys[-1])

    def _head_of(self, connection: Connection, size: int) -> Checkpoint:
        head = self._head(connection)
        if not 0 <= size <= head.size:
            raise EvidenceError("evidence.out_of_range", f"The log has fewer than {size} entries.")
        return head

    def _edge(self, connection: Connection, size: int, head: Checkpoint | None = None) -> CompactRange:
        """The right edge of the tree at a size, from stored nodes; against a head of that size, if given."""
        places = compact_range_nodes(size)
        tree = CompactRange(size, self._planned(connection, lambda get: [get(*place) for place in places]))
        if head is not None and tree.root() != head.root:
            raise self._mismatch("its stored tree doesn't lead to its signed head")
        return tree

    def _proven_root(self, connection: Connection, size: int, head: Checkpoint) -> bytes:
        if size == head.size:
            return head.root
        if size == 0:
            return CompactRange().root()
        return self._consistent(connection, size, head.size, head.root)[1]

    def _consistent(
        self, connection: Connection, old_size: int, new_size: int, new_root: bytes
    ) -> tuple[tuple[bytes, ...], bytes]:
        """A verified consistency proof, and the older root."""

        def build(get: NodeReader) -> tuple[tuple[bytes, ...], bytes]:
            proof = consistency_proof(old_size, new_size, get)
            return proof, subtree_root(0, old_size, get)

        proof, old_root = self._planned(connection, build)
        with self._sound("its stored tree doesn't lead to its signed head"):
            verify_consistency(old_size, new_size, proof, old_root, new_root)
        return proof, old_root

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

        def build(get: NodeReader) -> list[tuple[bytes, ...]]:
            return [inclusion_proof(one.index, head.size, get) for one in found]

        proven = []
        for one, proof in zip(found, self._planned(connection, build), strict=True):
            with self._sound(f"its entry {one.index} was altered"):
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
                if tree.root() != self._proven_root(connection, stop, head):
                    raise self._mismatch(f"an entry from {found[0].index} to {stop - 1} was altered")
            yield from found

    def _decoded(self, stored: StoredEntry) -> Envelope:
        with self._sound(f"its entry {stored.index} was altered"):
            return stored.envelope

    def _require_place(self, stored: StoredEntry, envelope: Envelope) -> None:
        if not lies_where_stated(envelope, stored.stream, stored.position):
            raise self._mismatch(f"its entry {stored.index} lies elsewhere than its statement says")

    def _require_nodes(self, wanted: dict[tuple[int, int], bytes]) -> None:
        with self._store.snapshot() as connection:
            if read_nodes(connection, wanted) != wanted:
                raise self._mismatch("a part of its tree was altered or is gone")

    def _planned(self, connection: Connection, build: Callable[[NodeReader], T]) -> T:
        """Run ``build`` twice: to learn which nodes it reads, then, with all of them fetched, for good."""
        wanted: dict[tuple[int, int], None] = {}

        def note_down(level: int, index: int) -> bytes:
            wanted[level, index] = None
            return _NOTHING

        build(note_down)
        found = read_nodes(connection, wanted)
        if len(found) != len(wanted) or any(len(one) != len(_NOTHING) for one in found.values()):
            raise self._mismatch("a part of its tree is gone")
        return build(lambda level, index: found[level, index])

    @contextmanager
    def _sound(self, reason: str) -> Iterator[None]:
        """What fails within is this log's fault."""
        try:
            yield
        except CloisterError as error:
            raise self._mismatch(reason) from error

    def _mismatch(self, reason: str) -> LogError:
        return log_mismatch(self._store.name, reason)
