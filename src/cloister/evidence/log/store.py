"""How a log lies in a database: its tables, and the few statements that read and write them.

Rules kept here:

1. Entries and nodes are added, never updated or deleted; the head is the only row that changes.
2. A node's number is its place in an in-order walk of the tree, so nodes lie beside their leaves and an
   append touches the end of each table.
3. Nothing here judges what it reads; :mod:`cloister.evidence.log.reading` does.
4. In PostgreSQL each log has a schema of its own, named by its origin, so that several share a database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Executable,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    func,
    insert,
    inspect,
    select,
)

from cloister.core.database import Writer, database_name, insert_rows, open_database, run, snapshot
from cloister.core.forks import forked, in_own_process
from cloister.evidence.envelope import Envelope, decode_envelope
from cloister.evidence.errors import LogError

FORMAT: Final = 2
ROWS_AT_ONCE: Final = 500

EntryRow: TypeAlias = tuple[int, str, int, bytes]
"""Index, stream, position, encoded envelope."""

_Number = BigInteger().with_variant(Integer, "sqlite")
_METADATA = MetaData()
_ENTRIES = Table(
    "evidence_entries",
    _METADATA,
    Column("idx", _Number, primary_key=True, autoincrement=False),
    Column("stream", String(64), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    UniqueConstraint("stream", "position"),
)
_NODES = Table(
    "evidence_nodes",
    _METADATA,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)
_HEAD = Table(
    "evidence_head",
    _METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("format", Integer, nullable=False),
    Column("checkpoint", String, nullable=False),
)

# What every append runs goes straight to the driver: SQLAlchemy's part takes longer than SQLite's.
_READ_HEAD: Final = "SELECT format, checkpoint FROM evidence_head"
_WRITE_HEAD: Final = "UPDATE evidence_head SET checkpoint = ? WHERE id = 1 AND checkpoint = ?"
_READ_NODES = select(_NODES.c.id, _NODES.c.hash).where(_NODES.c.id.in_(bindparam("ids", expanding=True)))
_ROWS = select(_ENTRIES.c.idx, _ENTRIES.c.stream, _ENTRIES.c.position, _ENTRIES.c.envelope)
_READ_ROW = _ROWS.where(_ENTRIES.c.idx == bindparam("at_idx"))
_READ_RANGE = _ROWS.where(
    _ENTRIES.c.idx >= bindparam("from_idx"), _ENTRIES.c.idx < bindparam("to_idx")
).order_by(_ENTRIES.c.idx)
_READ_STREAM = _ROWS.where(_ENTRIES.c.stream == bindparam("of")).order_by(_ENTRIES.c.position)
_READ_LAST = _ROWS.where(_ENTRIES.c.stream == bindparam("of")).order_by(_ENTRIES.c.position.desc()).limit(1)
_READ_PLACE = _ROWS.where(_ENTRIES.c.stream == bindparam("of"), _ENTRIES.c.position == bindparam("at"))
# Two searches from either end of the table; asked for both at once SQLite reads all of it.
_ENDS = select(
    select(func.min(_ENTRIES.c.idx)).scalar_subquery(), select(func.max(_ENTRIES.c.idx)).scalar_subquery()
)


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as the log keeps it.

    Attributes:
        index: its position in the log, from 0.
        stream: what it belongs to.
        position: its place in the stream.
        data: the encoded envelope, which is what the tree hashes.
    """

    index: int
    stream: str
    position: int
    data: bytes

    @property
    def envelope(self) -> Envelope:
        """What was logged.

        Raises:
            EvidenceError: ``evidence.envelope_malformed``.
        """
        return decode_envelope(self.data)


def node_number(level: int, index: int) -> int:
    """Number a complete subtree by its place in an in-order walk: leaf i has 2i.

    Args:
        level: the subtree's height.
        index: its position among those of its height.

    Returns:
        A number no other subtree has.
    """
    return ((2 * index + 1) << level) - 1


class Store:
    """One log's tables. Make them with `create` once, and reach them with `open` ever after.

    Attributes:
        name: how messages call it; no password is in it.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._writer = Writer(engine)
        self.name = name
        self._write_head = _WRITE_HEAD if engine.dialect.name == "sqlite" else _WRITE_HEAD.replace("?", "%s")

    @classmethod
    def create(cls, place: Path | str, origin: str, note: str) -> Store:
        """Make the tables, with this head.

        Raises:
            LogError: ``evidence.log_exists``.
            StorageError: if it can't be written.
        """
        store = cls._at(place, origin)
        try:
            with store.transaction() as connection:
                _require_free(connection, place, origin)
                if isinstance(place, str):
                    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {_schema(origin)}")
                _METADATA.create_all(connection, checkfirst=False)
                connection.execute(insert(_HEAD).values(id=1, format=FORMAT, checkpoint=note))
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, place: Path | str, origin: str, *, whole: bool = True) -> Store:
        """Reach tables that are there.

        Args:
            place: the SQLite file, or the URL of the PostgreSQL database.
            origin: the log's name.
            whole: False where the entries will do, of a log that was refused.

        Raises:
            LogError: ``evidence.log_missing``; ``evidence.log_mismatch`` if only some are there.
            StorageError: if the database can't be read.
        """
        if isinstance(place, Path) and not place.is_file():
            raise _missing(str(place))
        store = cls._at(place, origin)
        try:
            with store.snapshot() as connection:
                there = _tables(connection, place, origin)
        except BaseException:
            store.close()
            raise
        if not (set(_METADATA.tables) if whole else {_ENTRIES.name}) <= there:
            store.close()
            raise log_mismatch(store.name, "a table of it is gone") if there else _missing(store.name)
        return store

    @classmethod
    def _at(cls, place: Path | str, origin: str) -> Store:
        return cls(open_database(place, schema=_schema(origin)), database_name(place))

    def transaction(self) -> AbstractContextManager[Connection]:
        """A writing transaction, one at a time: see :class:`cloister.core.database.Writer`."""
        return self._writer.transaction()

    def snapshot(self) -> AbstractContextManager[Connection]:
        """A reading transaction that sees one state."""
        return snapshot(self._engine)

    def require_own_process(self) -> None:
        """Refuse a log that was opened before this process was forked, before any lock of it is waited for.

        Raises:
            StorageError: ``storage.forked``.
        """
        if not in_own_process(self._engine):
            raise forked(self.name)

    def close(self) -> None:
        """Let go of the database."""
        self._writer.close()
        self._engine.dispose()

    def add(
        self,
        connection: Connection,
        rows: Sequence[EntryRow],
        nodes: Sequence[tuple[int, bytes]],
        heads: tuple[str, str],
    ) -> bool:
        """Add entries and nodes and put a new head in place; all within the caller's transaction.

        Args:
            connection: the transaction.
            rows: the entries.
            nodes: the subtrees they finish, by number.
            heads: the notes of the head that must be there now, and of the new one.

        Returns:
            False if another head is there; then nothing was added.
        """
        old, new = heads
        if run(connection, self._write_head, (new, old)) != 1:
            return False
        insert_rows(connection, _ENTRIES.name, _ENTRIES.columns.keys(), rows)
        insert_rows(connection, _NODES.name, _NODES.columns.keys(), nodes)
        return True


def read_head(connection: Connection) -> tuple[int, str] | None:
    """The head's format and note; None if there is none."""
    row = connection.exec_driver_sql(_READ_HEAD).first()
    if row is None or not isinstance(row[0], int) or not isinstance(row[1], str):
        return None
    return row[0], row[1]


def read_nodes(connection: Connection, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """The hashes of these subtrees, named by (level, index); those that aren't stored are left out."""
    names = {node_number(level, index): (level, index) for level, index in wanted}
    numbers = sorted(names)
    found: dict[tuple[int, int], bytes] = {}
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        for number, value in _rows(connection, _READ_NODES, ids=numbers[start : start + ROWS_AT_ONCE]):
            if isinstance(number, int) and isinstance(value, bytes):
                found[names[number]] = value
    return found


def read_entry(connection: Connection, index: int) -> StoredEntry | None:
    """The entry at an index."""
    return next(_entries(connection, _READ_ROW, at_idx=index), None)


def read_place(connection: Connection, stream: str, position: int) -> StoredEntry | None:
    """The entry that holds a position of a stream."""
    return next(_entries(connection, _READ_PLACE, of=stream, at=position), None)


def read_last(connection: Connection, stream: str) -> StoredEntry | None:
    """The entry with the highest position of a stream."""
    return next(_entries(connection, _READ_LAST, of=stream), None)


def read_stream(connection: Connection, stream: str) -> list[StoredEntry]:
    """All entries of a stream, by position."""
    return list(_entries(connection, _READ_STREAM, of=stream))


def read_range(connection: Connection, start: int, end: int) -> list[StoredEntry]:
    """The entries from index ``start`` up to ``end`` that are there, in order."""
    return list(_entries(connection, _READ_RANGE, from_idx=start, to_idx=end))


def read_ends(connection: Connection) -> tuple[object, object]:
    """The lowest and the highest index; nothing and nothing if there is no entry."""
    ((lowest, highest),) = _rows(connection, _ENDS)
    return lowest, highest


def log_mismatch(name: str, reason: str) -> LogError:
    """The error for a log that is not what its head says.

    Args:
        name: the log's place.
        reason: what doesn't fit.
    """
    return LogError(
        "evidence.log_mismatch",
        f"The log at {name} can't be used: {reason}.",
        "Restore a copy that leads to the newest checkpoint known elsewhere; nothing was changed. Entries "
        "that still lead to a good checkpoint can be moved to a new log: cloister log recover.",
    )


def _entries(connection: Connection, statement: Select[EntryRow], **values: object) -> Iterator[StoredEntry]:
    for index, stream, position, data in _rows(connection, statement, **values):
        if not isinstance(index, int) or not isinstance(stream, str) or not isinstance(position, int):
            raise _foreign(connection)
        if not isinstance(data, bytes):
            raise _foreign(connection)
        yield StoredEntry(index, stream, position, data)


def _rows(connection: Connection, statement: Executable, **values: object) -> Sequence[Sequence[object]]:
    # SQLite keeps whatever type it is given: what was edited in may be anything.
    try:
        return connection.execute(statement, values).all()
    except (TypeError, ValueError):
        raise _foreign(connection) from None


def _foreign(connection: Connection) -> LogError:
    return log_mismatch(connection.engine.url.render_as_string(), "a stored value is not of its kind")


def _schema(origin: str) -> str:
    return "cloister_log_" + hashlib.sha256(origin.encode("utf-8")).hexdigest()[:32]


def _tables(connection: Connection, place: Path | str, origin: str) -> set[str]:
    """Which of a log's tables are there."""
    schema = None if isinstance(place, Path) else _schema(origin)
    return _METADATA.tables.keys() & set(inspect(connection).get_table_names(schema))


def _require_free(connection: Connection, place: Path | str, origin: str) -> None:
    schema = None if isinstance(place, Path) else _schema(origin)
    if inspect(connection).get_table_names(schema):
        raise LogError(
            "evidence.log_exists", f"There is already a log at {database_name(place)}.", "Open it instead."
        )


def _missing(name: str) -> LogError:
    return LogError(
        "evidence.log_missing",
        f"There is no log at {name}.",
        "A log that was there before and is gone must be restored, not begun anew.",
    )
