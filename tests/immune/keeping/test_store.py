"""The state database: its form, its threads and processes, its kills, its damage."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import BaselineKeeper, BaselineProfile, StateStore, open_state
from cloister.immune.keeping.files import file_locked
from cloister.immune.keeping.schema import NAMES, VERSION
from cloister.immune.settings import BaselineSettings
from tests.immune.keeping.conftest import FUNCTION, START, HandClock
from tests.interrupts import interrupts

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")


def profile(mean: float = 1.0, function: str = FUNCTION) -> BaselineProfile:
    return BaselineProfile(function, mean, 0.1, mean, mean, mean, 20, START)


def keeper(store: StateStore) -> BaselineKeeper:
    return BaselineKeeper(store, BaselineSettings())


def columns(path: Path, table: str) -> set[str]:
    with sqlite3.connect(path) as connection:
        return {row[1] for row in connection.execute(f"PRAGMA table_xinfo({table})")}


def test_the_tables_have_the_columns_that_were_asked_for(store: StateStore, path: Path) -> None:
    assert columns(path, "baselines") >= {
        "function", "module", "version", "sample_count", "created_at", "updated_at", "profile_json",
        "mean", "std", "p50", "p95", "p99",
    }  # fmt: skip
    assert columns(path, "detectors") >= {
        "id", "function", "threshold", "signature_hash", "provenance", "created_at", "expires_at",
        "is_active", "version",
    }  # fmt: skip
    with store.reading() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_baselines_statistics_can_be_asked_for_by_column(store: StateStore) -> None:
    keeper(store).store_baseline(profile(2.5))
    with store.reading() as connection:
        row = connection.execute("SELECT function, module, version, mean, std, p99 FROM baselines").fetchone()
    assert row == ("place", "shop.orders", 1, 2.5, 0.1, 2.5)


def test_one_function_has_each_version_once_and_one_pattern_one_detector(store: StateStore) -> None:
    keeper(store).store_baseline(profile())
    with pytest.raises(sqlite3.IntegrityError), store.writing() as connection:
        connection.execute(
            "INSERT INTO baselines SELECT 99, function, module, version, sample_count, created_at,"
            " updated_at, profile_json, mean, std, p50, p95, p99 FROM baselines"
        )
    insert = (
        "INSERT INTO detectors (function, threshold, signature_hash, provenance, created_at, expires_at,"
        " is_active, version, state, reason) VALUES ('f', 80, ?, '', 0, 1, ?, 1, ?, '')"
    )
    with pytest.raises(sqlite3.IntegrityError), store.writing() as connection:
        connection.execute(insert, ("0" * 64, 1, "candidate"))
    with store.writing() as connection:
        connection.execute(insert, ("0" * 64, 0, "candidate"))
    with pytest.raises(sqlite3.IntegrityError), store.writing() as connection:
        connection.execute(insert, ("0" * 64, 0, "candidate"))


def test_the_file_is_its_owners_alone_even_if_it_wasnt_before(path: Path, hand: HandClock) -> None:
    path.touch(mode=0o666)
    path.chmod(0o666)
    store = StateStore(path, hand)
    with store.writing() as connection:
        connection.execute("DELETE FROM traces")
    for one in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
    store.close()


def test_a_folder_that_isnt_there_is_made_its_owners_alone(tmp_path: Path, hand: HandClock) -> None:
    store = open_state(tmp_path / "state" / "immune", hand)
    assert store.alarms == ()
    assert stat.S_IMODE((tmp_path / "state" / "immune").stat().st_mode) == 0o700


def test_what_a_transaction_that_failed_wrote_is_gone(store: StateStore) -> None:
    with pytest.raises(sqlite3.IntegrityError), store.writing() as connection:
        connection.executemany("INSERT INTO learned VALUES (?, 0, x'00', '')", [("f",), ("f",)])
    assert keeper(store).learned("f") is None
    keeper(store).save_learned("f", b"state")
    assert keeper(store).learned("f") == b"state"


def test_the_generation_changes_with_every_write_of_anybody(store: StateStore, path: Path) -> None:
    seen = {store.generation()}
    assert store.generation() in seen
    keeper(store).save_learned("f", b"1")
    assert store.generation() not in seen
    seen.add(store.generation())
    other = StateStore(path)
    keeper(other).save_learned("f", b"2")
    assert store.generation() not in seen
    other.close()


def test_readers_see_one_state_and_dont_wait_for_the_writer(store: StateStore, path: Path) -> None:
    keeper(store).save_learned("f", b"old")
    reader = StateStore(path)
    with store.writing() as connection:
        connection.execute("UPDATE learned SET state = x'00'")
        began = time.monotonic()
        assert keeper(reader).learned("f") == b"old"
        assert time.monotonic() - began < 5
    reader.close()


def test_on_the_way_of_a_call_nobody_waits_long_for_another_writer(store: StateStore, path: Path) -> None:
    other = StateStore(path)
    with other.writing():
        began = time.monotonic()
        with pytest.raises(ImmuneError) as caught:
            keeper(store).save_learned("f", b"1")
        assert time.monotonic() - began < 5
    assert caught.value.code == "immune.state_unusable"
    keeper(store).save_learned("f", b"1")
    other.close()


def test_many_threads_of_one_store_write_every_version_once(store: StateStore) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(25):
                keeper(store).store_baseline(profile())
                keeper(store).get_baseline(FUNCTION)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    newest = keeper(store).get_baseline(FUNCTION)
    assert newest is not None
    assert newest.version == 100


def _open_and_write_versions(path: Path, times: int) -> None:
    _write_versions(StateStore(path), times)


def _write_versions(store: StateStore, times: int) -> None:
    for _ in range(times):
        for _ in range(1000):
            try:
                keeper(store).store_baseline(profile())
                break
            except ImmuneError:
                time.sleep(0.005)


def _read_versions(path: Path, until: int) -> None:
    store, last = StateStore(path), 0
    deadline = time.monotonic() + 60
    while last < until and time.monotonic() < deadline:
        with store.reading() as connection:
            versions = [
                row[0] for row in connection.execute("SELECT version FROM baselines ORDER BY version")
            ]
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) >= last
        last = len(versions)
    assert last == until


def test_processes_read_and_write_one_file_at_once_and_no_version_is_lost_or_used_twice(path: Path) -> None:
    workers = [SPAWN.Process(target=_open_and_write_versions, args=(path, 30)) for _ in range(2)]
    workers += [SPAWN.Process(target=_read_versions, args=(path, 60)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(90)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]


def test_a_store_goes_on_in_parent_and_child_after_a_fork(store: StateStore, path: Path) -> None:
    keeper(store).store_baseline(profile())
    done = threading.Event()

    def write_on() -> None:
        while not done.is_set():
            try:
                keeper(store).save_learned("busy", b"1")
            except ImmuneError:
                time.sleep(0.001)

    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        for _ in range(3):
            child = FORK.Process(target=_write_versions, args=(store, 5))
            child.start()
            child.join(60)
            assert child.exitcode == 0
    finally:
        done.set()
        thread.join()
    keeper(store).store_baseline(profile())
    newest = keeper(store).get_baseline(FUNCTION)
    assert newest is not None
    assert newest.version == 17
    with store.reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_no_connection_of_the_parent_is_in_a_forked_child(store: StateStore, path: Path) -> None:
    keeper(store).store_baseline(profile())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        names = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if os.path.lexists(one)]
        os.write(writing, b"open" if str(path) in names else b"none")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"none"
    os.close(reading)
    os.close(writing)


def test_a_state_in_memory_is_copied_by_a_fork() -> None:
    store = StateStore(None)
    keeper(store).save_learned("f", b"before")
    child = FORK.Process(target=_expect_learned, args=(store,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert keeper(store).learned("f") == b"before"


def _expect_learned(store: StateStore) -> None:
    assert keeper(store).learned("f") == b"before"
    keeper(store).save_learned("f", b"in the child")


WRITER = """
import sys
from pathlib import Path
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import BaselineKeeper, BaselineProfile, StateStore
from cloister.immune.settings import BaselineSettings
store = StateStore(Path(sys.argv[1]))
keeper = BaselineKeeper(store, BaselineSettings())
while True:
    try:
        made = keeper.store_baseline(BaselineProfile("m:f", 1.0, 0.1, 1.0, 1.0, 1.0, 20, 0.0))
        keeper.save_learned("m:f", bytes(20_000))
        sys.stdout.write(f"{made.version}\\n")
        sys.stdout.flush()
    except ImmuneError:
        pass
"""


def test_a_kill_in_the_middle_of_writing_leaves_a_usable_store_with_whatever_was_said_to_be_kept(
    path: Path,
) -> None:
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        last = 0
        for _ in range(40):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        writer.wait()
        writer.stdout.close()
        whole = rest[: rest.rfind("\n") + 1].split()
        last = int(whole[-1]) if whole else last
        store = StateStore(path)
        assert store.alarms == ()
        newest = keeper(store).get_baseline("m:f")
        assert newest is not None
        assert newest.version >= last
        with store.reading() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()


def test_a_damaged_file_is_put_aside_and_what_was_in_it_kept_for_whoever_looks(
    path: Path, hand: HandClock
) -> None:
    path.write_bytes(b"this is no database" * 1000)
    store = StateStore(path, hand)
    (alarm,) = store.alarms
    assert alarm.kind == "state_damaged"
    assert alarm.put_aside == "immune.db.damaged-20260921T141320Z"
    assert alarm.put_aside in alarm.reason
    assert path.with_name(alarm.put_aside).read_bytes().startswith(b"this is no database")
    keeper(store).store_baseline(profile())
    assert keeper(store).get_baseline(FUNCTION) is not None
    store.close()


def test_no_damaged_file_takes_an_earlier_ones_name(path: Path, hand: HandClock) -> None:
    for number in range(3):
        path.write_bytes(b"junk %d" % number * 1000)
        StateStore(path, hand).close()
    assert (
        len([one for one in path.parent.iterdir() if ".damaged-" in one.name and "wal" not in one.name]) == 3
    )


def test_a_page_that_is_damaged_is_found_when_the_file_is_opened(store: StateStore, path: Path) -> None:
    for number in range(50):
        keeper(store).save_learned(f"f{number}", os.urandom(5000))
    store.close()
    data = bytearray(path.read_bytes())
    for place in range(4096 * 20, len(data) - 4096, 4096):
        data[place : place + 64] = b"\xff" * 64
    path.write_bytes(data)
    again = StateStore(path)
    assert [alarm.kind for alarm in again.alarms] == ["state_damaged"]
    again.close()


def test_a_file_without_one_of_the_tables_is_damaged(store: StateStore, path: Path) -> None:
    with store.writing() as connection:
        connection.execute("DROP TABLE detectors")
    store.close()
    again = StateStore(path)
    assert len(again.alarms) == 1
    again.close()


def test_damage_that_is_met_later_is_put_aside_then_and_the_store_goes_on(
    store: StateStore, path: Path
) -> None:
    for number in range(200):
        keeper(store).save_learned(f"f{number}", os.urandom(5000))
    with store.writing() as connection:
        pass
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * (path.stat().st_size - 4096))
    connection.execute("PRAGMA shrink_memory")
    with pytest.raises(ImmuneError) as caught:
        [keeper(store).learned(f"f{number}") for number in range(200)]
    assert caught.value.code == "immune.state_damaged"
    assert len(store.alarms) == 1
    assert keeper(store).learned("f1") is None
    keeper(store).save_learned("f1", b"anew")
    assert keeper(store).learned("f1") == b"anew"


def test_nobody_opens_a_file_while_another_process_opens_it_or_puts_it_aside(path: Path) -> None:
    opened = threading.Event()

    def open_one() -> None:
        StateStore(path).close()
        opened.set()

    thread = threading.Thread(target=open_one)
    with file_locked(path):
        thread.start()
        assert not opened.wait(0.5)
    thread.join(30)
    assert opened.is_set()


def _open(path: Path) -> None:
    store = StateStore(path)
    for _ in range(1000):
        try:
            keeper(store).save_learned(str(os.getpid()), b"1")
            break
        except ImmuneError:
            time.sleep(0.005)


def test_processes_that_find_the_damage_at_once_put_it_aside_once(path: Path) -> None:
    path.write_bytes(b"junk" * 5000)
    workers = [SPAWN.Process(target=_open, args=(path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len([one for one in path.parent.iterdir() if ".damaged-" in one.name]) == 1
    store = StateStore(path)
    with store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM learned").fetchone() == (3,)
    store.close()


def test_a_process_follows_when_another_one_put_its_file_aside(store: StateStore, path: Path) -> None:
    keeper(store).save_learned("f", b"1")
    path.rename(path.with_name("elsewhere"))
    other = StateStore(path)
    assert keeper(store).learned("f") is None
    keeper(store).save_learned("f", b"2")
    assert keeper(other).learned("f") == b"2"
    other.close()


def test_a_newer_version_and_another_programs_file_are_refused_and_left_as_they_are(path: Path) -> None:
    for pragma in ("user_version=99", "application_id=7"):
        path.unlink(missing_ok=True)
        store = StateStore(path)
        with store.writing() as connection:
            connection.execute(f"PRAGMA {pragma}")
        store.close()
        before = path.read_bytes()
        with pytest.raises(ImmuneError) as caught:
            StateStore(path)
        assert caught.value.code == "immune.state_unusable"
        assert path.read_bytes() == before


@pytest.mark.parametrize("fault", ["newer", "folder", "file-as-folder", "link"])
def test_a_state_that_cant_be_used_never_stops_a_service(tmp_path: Path, hand: HandClock, fault: str) -> None:
    directory = tmp_path / "state"
    if fault == "file-as-folder":
        directory.write_text("")
    else:
        directory.mkdir()
    if fault == "newer":
        with sqlite3.connect(directory / "immune.db") as connection:
            connection.execute("PRAGMA user_version=99")
    if fault == "folder":
        (directory / "immune.db").mkdir()
    if fault == "link":
        (directory / "immune.db").symlink_to(tmp_path / "elsewhere")
    store = open_state(directory, hand)
    (alarm,) = store.alarms
    assert (alarm.kind, alarm.at) == ("state_unusable", START)
    keeper(store).store_baseline(profile())
    assert store.path is None
    assert not (tmp_path / "elsewhere").exists()


def test_no_table_was_forgotten_in_the_list_of_those_that_must_be_there(store: StateStore) -> None:
    with store.reading() as connection:
        found = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        assert {name for (name,) in found} == NAMES


def test_importing_what_is_kept_loads_no_database_library_of_the_node() -> None:
    code = (
        "import sys; from cloister.immune.keeping import StateStore, TraceStore, DetectorRegistry;"
        "print({'sqlalchemy', 'torch', 'numpy', 'pydantic_settings'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


_ITS_FILES = ("contextlib.py", "core/interrupts.py", "keeping/files.py", "keeping/store.py", "test_store.py")


def test_an_interrupt_leaves_no_transaction_open_and_no_lock_held_while_it_is_on_its_way(
    store: StateStore, path: Path
) -> None:
    keeper(store).save_learned("f", b"1")
    process = sqlite3.connect(path, timeout=0, isolation_level=None)
    opening = path.with_name(f".{path.name}.lock").open("rb")

    def write() -> None:
        store.close()
        with store.writing() as connection:
            for name in ("f", "g"):
                connection.execute("DELETE FROM learned WHERE function = ?", (name,))

    seen = 0
    for _ in interrupts(write, *_ITS_FILES):
        process.execute("BEGIN IMMEDIATE")
        process.execute("ROLLBACK")
        fcntl.flock(opening, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(opening, fcntl.LOCK_UN)
        thread = threading.Thread(target=keeper(store).learned, args=("f",), daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        keeper(store).save_learned("f", b"1")
        seen += 1
    assert seen > 200
    process.close()
    opening.close()


def test_a_transaction_that_could_not_be_rolled_back_is_before_the_next_one(store: StateStore) -> None:
    with store.writing() as connection:
        kept = connection
    kept.execute("BEGIN IMMEDIATE")
    kept.execute("DELETE FROM learned")
    keeper(store).save_learned("f", b"1")
    assert not kept.in_transaction
    assert keeper(store).learned("f") == b"1"
