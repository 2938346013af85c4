"""The evidence log: an append-only Merkle log of envelopes on SQLite, with a signed head.

Rules kept here:

1. `append` answers only after the entry, the tree and the newly signed head are on disk, in one transaction.
2. Stored entries and complete subtrees are never updated or deleted.
3. Opening checks that the head is signed by this log's key and that the stored tree leads to it. A log that
   doesn't match is refused, never repaired.
4. An entry is handed out only after its proof has been verified against the signed head.
5. Within a stream (one job) positions are taken once: two writers can't both be a party's n-th statement.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from cloister.core.database import open_database, snapshot, transaction
from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey, Signer
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint, verify_checkpoint
from cloister.evidence.envelope import Envelope, decode_envelope
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.extract import LogExtract, ProvenEntry, verify_entry
from cloister.evidence.merkle import (
    EMPTY_ROOT,
    CompactRange,
    NodeReader,
    compact_range_nodes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
)

FORMAT: Final = 1

_METADATA = MetaData()
_ENTRIES = Table(
    "evidence_entries",
    _METADATA,
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("stream", String(64), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    UniqueConstraint("stream", "position"),
)
_NODES = Table(
    "evidence_nodes",
    _METADATA,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)
_HEAD = Table(
    "evidence_head",
    _METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("checkpoint", String, nullable=False),
)

# Built once: building a statement costs SQLAlchemy more than SQLite takes to run it.
_READ_HEAD = select(_HEAD.c.format, _HEAD.c.checkpoint)
_WRITE_HEAD = update(_HEAD).where(_HEAD.c.id == 1).values(checkpoint=bindparam("note"))
_ADD_ENTRY = insert(_ENTRIES)
_ADD_NODES = insert(_NODES)
_READ_NODE = select(_NODES.c.hash).where(
    _NODES.c.level == bindparam("at_level"), _NODES.c.idx == bindparam("at_idx")
)
_READ_ENTRY = select(_ENTRIES.c.envelope).where(_ENTRIES.c.idx == bindparam("at_idx"))
_READ_ALL = select(_ENTRIES.c.envelope).order_by(_ENTRIES.c.idx)
_READ_STREAM = (
    select(_ENTRIES.c.idx).where(_ENTRIES.c.stream == bindparam("of")).order_by(_ENTRIES.c.position)
)
_COUNT = select(func.count(), func.max(_ENTRIES.c.idx)).select_from(_ENTRIES)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """Where an envelope was logged.

    Attributes:
        index: its position in the log, from 0.
        leaf_hash: its 32-byte leaf hash.
    """

    index: int
    leaf_hash: bytes


class EvidenceLog:
    """One party's log. Make it with `create` once, and with `open` ever after."""

    def __init__(self, engine: Engine, path: Path, origin: str, signer: Signer) -> None:
        self._engine = engine
        self._path = path
        self._origin = origin
        self._signer = signer
        self._lock = threading.Lock()
        self._edge_at: tuple[str, CompactRange] | None = None

    @classmethod
    def create(cls, path: Path, *, origin: str, signer: Signer) -> EvidenceLog:
        """Begin a new, empty log.

        Args:
            path: the SQLite file; must not hold anything yet.
            origin: the log's name, see :func:`cloister.evidence.extract.log_origin`.
            signer: the key of the party that keeps the log; signs the head.

        Returns:
            The log.

        Raises:
            EvidenceError: ``evidence.log_exists``.
            StorageError: if it can't be written.
        """
        head = sign_checkpoint(origin, 0, EMPTY_ROOT, signer)
        engine = open_database(path)
        try:
            with transaction(engine) as connection:
                _require_empty(connection, path)
                _METADATA.create_all(connection)
                connection.execute(insert(_HEAD).values(id=1, format=FORMAT, checkpoint=head.encode()))
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, path, origin, signer)

    @classmethod
    def open(cls, path: Path, *, origin: str, signer: Signer) -> EvidenceLog:
        """Open a log that is there, and check its tree against its signed head.

        Args:
            path: the SQLite file.
            origin: the name the log must have.
            signer: the key its head must be signed with.

        Returns:
            The log.

        Raises:
            EvidenceError: ``evidence.log_missing`` or ``evidence.log_mismatch``.
            StorageError: if the file can't be read as a database.
        """
        if not path.is_file():
            raise LogError(
                "evidence.log_missing",
                f"There is no log at {path}.",
                "A log that was there before and is gone must be restored, not begun anew.",
            )
        engine = open_database(path)
        log = cls(engine, path, origin, signer)
        try:
            with snapshot(engine) as connection:
                log._check(connection)
        except BaseException:
            engine.dispose()
            raise
        return log

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._origin

    @property
    def public_key(self) -> PublicKey:
        """The key that signs the log's head."""
        return self._signer.public_key

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self.checkpoint().size

    def append(self, envelope: Envelope, *, stream: str, position: int) -> LogEntry:
        """Add an envelope; it is durable when this returns.

        Args:
            envelope: what to log.
            stream: what the entry belongs to: the job's id.
            position: its place among the stream's entries, from 0; each is taken once.

        Returns:
            Where it is.

        Raises:
            EvidenceError: ``evidence.log_mismatch`` if the position is taken or the stored tree is broken.
            StorageError: if it can't be written; then nothing was.
        """
        data = envelope.encode()
        leaf = leaf_hash(data)
        with self._lock:
            try:
                with transaction(self._engine) as connection:
                    index, edge_at = self._append(connection, leaf, (data, stream, position))
            except IntegrityError:
                raise self._mismatch(
                    f"entry {position} of {stream} is taken; another writer is at work"
                ) from None
            self._edge_at = edge_at
        return LogEntry(index, leaf)

    def checkpoint(self) -> Checkpoint:
        """The log's signed head.

        Raises:
            EvidenceError: ``evidence.log_mismatch`` if it isn't signed by this log's key.
        """
        with snapshot(self._engine) as connection:
            return self._head(connection)

    def entry(self, index: int) -> Envelope:
        """The envelope at a position, verified against the signed head.

        Raises:
            EvidenceError: ``evidence.out_of_range`` or ``evidence.log_mismatch``.
        """
        with snapshot(self._engine) as connection:
            return self._proven(connection, self._head(connection), index, self._reader(connection)).envelope

    def envelopes(self) -> tuple[Envelope, ...]:
        """Every envelope in order, verified as a whole against the signed head.

        Raises:
            EvidenceError: ``evidence.log_mismatch`` if any entry was altered, removed or added.
        """
        tree = CompactRange()
        with snapshot(self._engine) as connection:
            head = self._head(connection)
            found = [bytes(data) for data in connection.execute(_READ_ALL).scalars()]
        for data in found:
            tree.append(leaf_hash(data))
        if tree.size != head.size or tree.root() != head.root:
            raise self._mismatch("its entries don't lead to its signed head")
        return tuple(decode_envelope(data) for data in found)

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Proof that entry ``index`` is in the log as it was at ``size`` entries (RFC 9162 section 2.1.3)."""
        with snapshot(self._engine) as connection:
            self._require_size(connection, size)
            return inclusion_proof(index, size, self._reader(connection))

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Proof that the log at ``new_size`` begins with the log at ``old_size`` (RFC 9162 section 2.1.4)."""
        with snapshot(self._engine) as connection:
            self._require_size(connection, new_size)
            return consistency_proof(old_size, new_size, self._reader(connection))

    def extract(self, stream: str) -> LogExtract:
        """All entries of a stream with proofs against the present head, each verified.

        Args:
            stream: the job's id.

        Returns:
            The entries in order; none if the log knows no such stream.

        Raises:
            EvidenceError: ``evidence.log_mismatch`` if the log is broken.
        """
        with snapshot(self._engine) as connection:
            head = self._head(connection)
            get = self._reader(connection)
            indices = connection.execute(_READ_STREAM, {"of": stream}).scalars().all()
            entries = tuple(self._proven(connection, head, index, get) for index in indices)
        return LogExtract(self._origin, head, entries)

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(
        self, connection: Connection, leaf: bytes, row: tuple[bytes, str, int]
    ) -> tuple[int, tuple[str, CompactRange]]:
        data, stream, position = row
        tree = self._writable_edge(connection)
        index = tree.size
        nodes = tree.append(leaf)
        connection.execute(
            _ADD_ENTRY, {"idx": index, "stream": stream, "position": position, "envelope": data}
        )
        connection.execute(_ADD_NODES, [{"level": a, "idx": b, "hash": c} for a, b, c in nodes])
        note = sign_checkpoint(self._origin, tree.size, tree.root(), self._signer).encode()
        connection.execute(_WRITE_HEAD, {"note": note})
        return index, (note, tree)

    def _writable_edge(self, connection: Connection) -> CompactRange:
        """The tree's edge: as kept in memory if the stored head is the one written last, else read anew."""
        kept, self._edge_at = self._edge_at, None
        note = connection.execute(_READ_HEAD).one_or_none()
        if kept is not None and note is not None and note.checkpoint == kept[0]:
            return kept[1]
        return self._edge(connection, self._head(connection))

    def _check(self, connection: Connection) -> None:
        head = self._head(connection)
        entries = connection.execute(_COUNT).one()
        last = -1 if entries[1] is None else entries[1]
        if entries[0] != head.size or last != head.size - 1:
            raise self._mismatch("it has more or fewer entries than its head says")
        self._edge(connection, head)
        if head.size:
            self._proven(connection, head, head.size - 1, self._reader(connection))

    def _head(self, connection: Connection) -> Checkpoint:
        row = connection.execute(_READ_HEAD).one_or_none()
        if row is None or row.format != FORMAT:
            raise self._mismatch("it has no head of a known format")
        try:
            head = parse_checkpoint(row.checkpoint)
            verify_checkpoint(head, self._origin, self._signer.public_key)
        except CloisterError as error:
            raise self._mismatch("its head is not this log's, or not signed by its key") from error
        return head

    def _edge(self, connection: Connection, head: Checkpoint) -> CompactRange:
        get = self._reader(connection)
        peaks = [get(level, index) for level, index in compact_range_nodes(head.size)]
        tree = CompactRange(head.size, peaks)
        if tree.root() != head.root:
            raise self._mismatch("its stored tree doesn't lead to its signed head")
        return tree

    def _proven(self, connection: Connection, head: Checkpoint, index: int, get: NodeReader) -> ProvenEntry:
        proof = inclusion_proof(index, head.size, get)
        data = connection.execute(_READ_ENTRY, {"at_idx": index}).scalar_one_or_none()
        if data is None:
            raise self._mismatch(f"its entry {index} is gone")
        try:
            entry = ProvenEntry(index, decode_envelope(data), proof)
            verify_entry(entry, head)
        except EvidenceError as error:
            raise self._mismatch(f"its entry {index} was altered") from error
        return entry

    def _reader(self, connection: Connection) -> NodeReader:
        """Reads stored nodes, each once within one call."""

        @cache
        def node(level: int, index: int) -> bytes:
            found = connection.execute(_READ_NODE, {"at_level": level, "at_idx": index}).scalar_one_or_none()
            if found is None:
                raise self._mismatch("a part of its tree is gone")
            return bytes(found)

        return node

    def _require_size(self, connection: Connection, size: int) -> None:
        if size > self._head(connection).size:
            raise EvidenceError("evidence.out_of_range", f"The log has fewer than {size} entries.")

    def _mismatch(self, reason: str) -> LogError:
        return LogError(
            "evidence.log_mismatch",
            f"The log at {self._path} can't be used: {reason}.",
            "Restore a copy that leads to the newest checkpoint known elsewhere; nothing was changed.",
        )


def _require_empty(connection: Connection, path: Path) -> None:
    if inspect(connection).get_table_names():
        raise LogError("evidence.log_exists", f"There is already a log at {path}.", "Open it instead.")
