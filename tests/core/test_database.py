"""Databases: durable, exclusive for writers, their owner's alone, and typed when they fail."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from cloister.core.database import (
    Writer,
    check_integrity,
    database_name,
    insert_rows,
    open_database,
    run,
    snapshot,
    transaction,
)
from cloister.core.errors import StorageError
from tests.interrupts import interrupts


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "file.db", busy_timeout=0.1)
    with transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE item (id INTEGER PRIMARY KEY, content BLOB)")
    yield engine
    engine.dispose()


def add(engine: Engine, number: int) -> None:
    with transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO item (id) VALUES (?)", (number,))


def items(engine: Engine) -> list[int]:
    with snapshot(engine) as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT id FROM item ORDER BY id")]


def test_a_file_is_its_owners_alone_with_its_log_beside_it(engine: Engine, tmp_path: Path) -> None:
    add(engine, 1)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert {path.name for path in tmp_path.iterdir()} >= {"file.db", "file.db-wal"}


def test_an_existing_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    sqlite3.connect(path).close()
    path.touch()
    path.chmod(0o644)
    open_database(path).dispose()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_connection_is_set_up_to_keep_what_it_is_given(engine: Engine) -> None:
    def work() -> None:
        with snapshot(engine) as connection:
            for pragma, value in [
                ("journal_mode", "wal"),
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("trusted_schema", 0),
            ]:
                assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value

    work()
    with snapshot(engine):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


def test_a_transaction_that_raises_leaves_nothing(engine: Engine) -> None:
    add(engine, 1)

    def insert_and_fail() -> None:
        with transaction(engine) as connection:
            connection.exec_driver_sql("INSERT INTO item (id) VALUES (2)")
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        insert_and_fail()
    assert items(engine) == [1]


def test_a_writer_holds_the_lock_from_its_first_read(engine: Engine, tmp_path: Path) -> None:
    other = open_database(tmp_path / "file.db", busy_timeout=0.05)
    with transaction(engine) as connection:
        connection.exec_driver_sql("SELECT * FROM item").all()
        with pytest.raises(StorageError) as refused, transaction(other):
            pytest.fail("two writers at once")
        assert refused.value.code == "storage.in_use"
        assert items(other) == []
    add(other, 1)
    assert items(engine) == [1]
    other.dispose()


def test_a_reader_sees_one_state_while_a_writer_goes_on(engine: Engine) -> None:
    add(engine, 1)
    with snapshot(engine) as connection:
        count = "SELECT count(*) FROM item"
        assert connection.exec_driver_sql(count).scalar_one() == 1
        add(engine, 2)
        assert connection.exec_driver_sql(count).scalar_one() == 1
    assert items(engine) == [1, 2]


def test_writers_of_many_threads_lose_no_increment(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "file.db")
    with transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE counter (value INTEGER)")
        connection.exec_driver_sql("INSERT INTO counter VALUES (0)")

    def work() -> None:
        for _ in range(20):
            with transaction(engine) as connection:
                value = connection.exec_driver_sql("SELECT value FROM counter").scalar_one()
                connection.exec_driver_sql("UPDATE counter SET value = ?", (value + 1,))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with snapshot(engine) as connection:
        assert connection.exec_driver_sql("SELECT value FROM counter").scalar_one() == 80
    engine.dispose()


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from cloister.core.database import open_database, transaction\n"
        "engine = open_database(Path(sys.argv[1]))\n"
        "with transaction(engine) as c: c.exec_driver_sql('CREATE TABLE item (id INTEGER PRIMARY KEY)')\n"
        "with transaction(engine) as c: c.exec_driver_sql('INSERT INTO item VALUES (1)')\n"
        "with transaction(engine) as c:\n"
        "    c.exec_driver_sql('INSERT INTO item VALUES (2)')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "file.db"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    engine = open_database(path)
    assert items(engine) == [1]
    check_integrity(engine)
    engine.dispose()


def test_a_broken_constraint_is_left_to_the_room_that_wrote_it(engine: Engine) -> None:
    add(engine, 1)
    with pytest.raises(IntegrityError):
        add(engine, 1)
    assert items(engine) == [1]


def write(writer: Writer, *numbers: int) -> None:
    with writer.transaction() as connection:
        insert_rows(connection, "item", ("id", "content"), [(one, b"content") for one in numbers])


def fail_after_a_row(writer: Writer) -> None:
    with writer.transaction() as connection:
        run(connection, "INSERT INTO item (id) VALUES (?)", (3,))
        raise ZeroDivisionError


def test_a_writer_keeps_what_it_committed_and_nothing_else(engine: Engine, tmp_path: Path) -> None:
    writer = Writer(engine)
    write(writer, 1, 2)
    with pytest.raises(ZeroDivisionError):
        fail_after_a_row(writer)
    with pytest.raises(IntegrityError):
        write(writer, 4, 1)
    assert items(engine) == [1, 2]
    with writer.transaction() as connection:
        assert connection.exec_driver_sql("SELECT max(id) FROM item").scalar_one() == 2
        run(connection, "INSERT INTO item (id) VALUES (?)", (5,))
    write(writer, 6)
    other = open_database(tmp_path / "file.db")
    assert items(other) == [1, 2, 5, 6]
    other.dispose()
    writer.close()
    write(writer, 7)
    writer.close()
    assert items(engine) == [1, 2, 5, 6, 7]


def test_a_writer_holds_the_lock_only_while_it_writes(engine: Engine, tmp_path: Path) -> None:
    writer, other = Writer(engine), open_database(tmp_path / "file.db", busy_timeout=0.1)
    write(writer, 1)
    add(other, 2)
    with pytest.raises(StorageError) as caught, writer.transaction():
        add(other, 3)
    assert caught.value.code == "storage.in_use"
    add(other, 4)
    assert items(engine) == [1, 2, 4]
    other.dispose()
    writer.close()


@pytest.mark.parametrize("count", [0, 1, 8, 9, 63, 64, 73, 200])
def test_rows_are_added_whatever_their_number(engine: Engine, count: int) -> None:
    writer = Writer(engine)
    write(writer, *range(count))
    assert items(engine) == [*range(count)]
    writer.close()


def test_a_full_disk_keeps_what_was_there(engine: Engine) -> None:
    add(engine, 1)
    with transaction(engine) as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StorageError) as refused, transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO item VALUES (2, zeroblob(100000))")
    assert refused.value.code == "storage.no_space"
    assert items(engine) == [1]


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_no_database_is_refused_and_kept(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    path.write_bytes(content)
    with pytest.raises(StorageError) as refused:
        open_database(path)
    assert refused.value.code == "storage.corrupt"
    assert path.read_bytes() == content


def test_a_damaged_page_is_found(engine: Engine, tmp_path: Path) -> None:
    with transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO item VALUES (1, zeroblob(20000))")
    check_integrity(engine)
    engine.dispose()
    path = tmp_path / "file.db"
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * 4096)
    with pytest.raises(StorageError) as refused:
        check_integrity(open_database(path))
    assert refused.value.code == "storage.corrupt"


def test_a_folder_that_is_missing_or_in_the_way_is_said(tmp_path: Path) -> None:
    for path, code in [(tmp_path / "absent" / "file.db", "storage.failed"), (tmp_path, "storage.exists")]:
        with pytest.raises(StorageError) as refused:
            open_database(path)
        assert refused.value.code == code


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError) as refused:
        open_database(tmp_path / "file.db")
    assert refused.value.code == "storage.permission"


def test_no_error_shows_a_statement_or_its_values(engine: Engine) -> None:
    with pytest.raises(StorageError) as refused, transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO absent VALUES ('secret')")
    assert refused.value.code == "storage.failed"
    assert "secret" not in str(refused.value.as_json())


@pytest.fixture
def server(postgresql: str) -> Iterator[Engine]:
    engine = open_database(postgresql, schema="test_database", busy_timeout=0.2)
    with transaction(engine) as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS test_database CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA test_database")
        connection.exec_driver_sql("CREATE TABLE item (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO item VALUES (1)")
    yield engine
    engine.dispose()


def test_a_server_keeps_the_rules_of_a_file(server: Engine, postgresql: str) -> None:
    other = open_database(postgresql, schema="test_database", busy_timeout=0.05)
    elsewhere = open_database(postgresql, schema="test_elsewhere", busy_timeout=0.05)
    with transaction(server) as connection:
        connection.exec_driver_sql("INSERT INTO item VALUES (2)")
        with pytest.raises(StorageError) as refused, transaction(other):
            pytest.fail("two writers at once")
        assert refused.value.code == "storage.in_use"
        assert items(other) == [1]
        with transaction(elsewhere):
            pass
    with snapshot(other) as connection:
        assert connection.exec_driver_sql("SELECT max(id) FROM item").scalar_one() == 2
        with transaction(server) as writing:
            writing.exec_driver_sql("INSERT INTO item VALUES (3)")
        assert connection.exec_driver_sql("SELECT max(id) FROM item").scalar_one() == 2
    with pytest.raises(IntegrityError), transaction(server) as connection:
        connection.exec_driver_sql("INSERT INTO item VALUES (4), (4)")
    with pytest.raises(StorageError), snapshot(server) as connection:
        connection.exec_driver_sql("INSERT INTO item VALUES (5)")
    assert items(server) == [1, 2, 3]
    other.dispose()
    elsewhere.dispose()


@pytest.mark.usefixtures("postgresql")
def test_a_server_that_fails_is_named_without_its_password(tmp_path: Path) -> None:
    gone = f"postgresql://someone:secret@/database?host={tmp_path}"
    with pytest.raises(StorageError) as refused:
        open_database(gone)
    assert "secret" not in str(refused.value.as_json())
    assert "someone" in str(refused.value)
    assert "secret" not in database_name(gone)
    assert database_name("not a url") == "the database named"


@pytest.mark.parametrize("place", ["not a url", "mysql://host/database", "sqlite:///file"])
def test_another_kind_of_database_is_refused(place: str) -> None:
    with pytest.raises(StorageError, match="PostgreSQL"):
        open_database(place)


def test_a_schemas_name_cannot_carry_anything_else() -> None:
    with pytest.raises(StorageError, match="lower-case"):
        open_database("postgresql:///database", schema="a -cfsync=off")


def test_a_statement_that_somebody_holds_keeps_no_transaction_open_after_an_interrupt(engine: Engine) -> None:
    add(engine, 1)
    held: list[object] = []

    def strike() -> None:
        with transaction(engine) as connection:
            held.append(connection.exec_driver_sql("SELECT id FROM item"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        strike()
    add(engine, 2)
    assert items(engine) == [1, 2]


_TRANSACTION_FILES = (
    "contextlib.py",
    "core/interrupts.py",
    "database/failures.py",
    "database/transactions.py",
    "database/writer.py",
    "sqlalchemy/engine/base.py",
    "sqlalchemy/engine/default.py",
    "test_database.py",
)


@pytest.mark.parametrize("kept", [True, False], ids=["on a kept connection", "on one of the pool"])
def test_an_interrupt_leaves_no_transaction_open_while_it_is_on_its_way(
    engine: Engine, *, kept: bool
) -> None:
    writer = Writer(engine)
    other = sqlite3.connect(str(engine.url.database), timeout=0, isolation_level=None)

    def add_two() -> None:
        with writer.transaction() if kept else transaction(engine) as connection:
            for _ in range(2):
                connection.exec_driver_sql("INSERT INTO item (content) VALUES (x'00')")
                assert connection.exec_driver_sql("SELECT id FROM item").first() is not None

    seen = 0
    for _ in interrupts(add_two, *_TRANSACTION_FILES):
        other.execute("BEGIN IMMEDIATE")
        (rows,) = other.execute("SELECT count(*) FROM item").fetchone()
        other.execute("ROLLBACK")
        assert rows % 2 == 0
        seen += 1
    assert seen > 100
    add_two()
    other.close()
    writer.close()
