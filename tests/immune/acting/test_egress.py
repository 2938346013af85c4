"""The egress guard on real sockets, files, programs and libraries: what it stops, and what it can't see."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import importlib
import json
import logging
import os
import pickle
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from types import FunctionType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.acting import switch
from cloister.immune.acting.egress import EgressGuard, NewReach
from cloister.immune.acting.reach import Operation, Places
from cloister.immune.acting.reached import MOST, GuardMode
from cloister.immune.errors import CallBlocked, EgressBlocked, ImmuneError
from tests.immune.acting.locks import held_by_another_thread

NAME = "shop:export"
PLACES = Places(own=Places.of_this_interpreter().own)


class Watched:
    """A guard that is armed for one test, and what it reported."""

    def __init__(self) -> None:
        self.reports: list[NewReach] = []
        self.guard = EgressGuard(self.reports.append, key=b"k" * 32, places=PLACES)
        assert self.guard.arm()

    def __call__(self, function: Callable[..., object], name: str = NAME) -> None:
        assert isinstance(function, FunctionType)
        self.guard.register(function, name)

    def enforce(self, name: str = NAME) -> None:
        self.guard.set_mode(name, GuardMode.ENFORCE)

    def observe(self, name: str = NAME) -> None:
        self.guard.set_mode(name, GuardMode.OBSERVE)


@pytest.fixture
def watched() -> Iterator[Watched]:
    one = Watched()
    yield one
    one.guard.disarm()
    assert one.guard.failures == 0


@pytest.fixture
def server() -> Iterator[tuple[str, int, list[bytes]]]:
    """A server on loopback, and what it received."""
    received: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                received.append(connection.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    host, port = listener.getsockname()
    yield host, port, received
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_first_connection_of_an_enforcing_function_does_not_happen(
    watched: Watched, server: tuple[str, int, list[bytes]]
) -> None:
    host, port, received = server

    def export() -> None:
        with socket.socket() as one:
            one.connect((host, port))
            one.sendall(b"a record")

    watched(export)
    watched.enforce()
    with pytest.raises(EgressBlocked):
        export()
    watched.guard.approve(NAME, Operation.CONNECT, "127.0.0.0/8")
    export()
    while not received:
        pass
    assert received == [b"a record"]
    assert [(one.operation, one.target, one.refused) for one in watched.reports] == [
        (Operation.CONNECT, "127.0.0.1", True)
    ]


def test_what_was_learned_is_let_through_and_another_folder_is_not(watched: Watched, tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one").write_text("x")

    def export(folder: str, mode: str) -> str:
        with (tmp_path / folder / "one").open(mode) as file:
            return file.read() if mode == "r" else str(file.write("stolen"))

    watched(export)
    export("in", "r")
    watched.enforce()
    assert export("in", "r") == "x"
    with pytest.raises(EgressBlocked):
        export("out", "r")
    with pytest.raises(EgressBlocked):
        export("in", "w")
    assert (tmp_path / "in" / "one").read_text() == "x"


def test_a_program_that_was_never_started_is_not_started(watched: Watched, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    def export(*command: str) -> int:
        return subprocess.run(command, check=True).returncode

    def in_a_shell(line: str) -> int:
        return os.system(line)

    watched(export)
    watched(in_a_shell, "shop:shell")
    assert export("true") == 0
    assert in_a_shell("true") == 0
    watched.enforce()
    watched.enforce("shop:shell")
    assert export("true") == 0
    assert in_a_shell("true # again") == 0
    with pytest.raises(EgressBlocked):
        export("touch", str(trace))
    with pytest.raises(EgressBlocked):
        in_a_shell(f"true; touch {trace}")
    assert not trace.exists()


def test_other_ways_to_start_a_program_are_seen(watched: Watched, tmp_path: Path) -> None:
    trace = str(tmp_path / "trace")

    def spawn() -> None:
        os.posix_spawn("/usr/bin/touch", ["touch", trace], os.environ)

    def replace() -> None:
        os.execv("/usr/bin/touch", ["touch", trace])

    for function in (spawn, replace):
        watched(function)
        watched.enforce()
        with pytest.raises(EgressBlocked):
            function()
    assert not Path(trace).exists()


def test_opening_through_ctypes_is_not_seen_but_loading_the_library_is(
    watched: Watched, tmp_path: Path
) -> None:
    """The limit of an audit hook, stated: C code raises no event."""
    (tmp_path / "secret").write_bytes(b"x")
    before = ctypes.CDLL(None)

    def with_a_library_loaded_before() -> int:
        return int(before.open(os.fsencode(tmp_path / "secret"), os.O_RDONLY))

    def with_a_library_of_its_own() -> int:
        return int(ctypes.CDLL(None).open(os.fsencode(tmp_path / "secret"), os.O_RDONLY))

    watched(with_a_library_loaded_before)
    watched(with_a_library_of_its_own, "shop:load")
    watched.enforce()
    watched.enforce("shop:load")
    descriptor = with_a_library_loaded_before()
    assert os.read(descriptor, 1) == b"x"
    os.close(descriptor)
    with pytest.raises(EgressBlocked, match="load"):
        with_a_library_of_its_own()


def test_a_native_module_from_elsewhere_is_not_loaded_by_any_loader(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec("_ctypes_test")
    if found is None or found.origin is None or not found.origin.endswith(tuple(EXTENSION_SUFFIXES)):
        pytest.skip("this interpreter has no native module beside it to copy")
    copied = tmp_path / Path(found.origin).name
    shutil.copy(found.origin, copied)

    def by_a_loader() -> str:
        loader = ExtensionFileLoader("_ctypes_test", str(copied))
        spec = importlib.util.spec_from_file_location("_ctypes_test", copied, loader=loader)
        assert spec is not None
        return importlib.util.module_from_spec(spec).__name__

    watched(by_a_loader)
    watched.enforce()
    with pytest.raises(EgressBlocked, match="load"):
        by_a_loader()
    assert [(one.operation, one.target) for one in watched.reports] == [(Operation.LOAD, str(copied))]
    # Where modules are looked for it is a module of the function's own.
    monkeypatch.syspath_prepend(str(tmp_path))
    assert by_a_loader() == "_ctypes_test"


def test_what_sqlite_opens_for_a_statement_is_not_seen(watched: Watched, tmp_path: Path) -> None:
    """The limit of an audit hook, stated: SQL raises no event."""
    connection = sqlite3.connect(":memory:")

    def export() -> None:
        connection.execute("ATTACH DATABASE ? AS other", (str(tmp_path / "x.sqlite"),))
        connection.execute("CREATE TABLE other.records (one)")

    watched(export)
    watched.enforce()
    export()
    connection.close()
    assert (tmp_path / "x.sqlite").exists()
    assert not watched.reports


def test_a_database_and_a_datagram_are_seen(watched: Watched, tmp_path: Path) -> None:
    def store() -> None:
        sqlite3.connect(tmp_path / "x.sqlite").close()

    def datagram() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as one:
            one.sendto(b"x", ("127.0.0.1", 9))

    for function in (store, datagram):
        watched(function)
        watched.enforce()
        with pytest.raises(EgressBlocked):
            function()
    assert not (tmp_path / "x.sqlite").exists()


def test_an_observed_function_goes_on_and_is_reported_ever_more_rarely(
    watched: Watched, tmp_path: Path
) -> None:
    def export() -> None:
        (tmp_path / "new").write_text("x")

    watched(export)
    watched.observe()
    for _ in range(100):
        export()
    assert [one.times for one in watched.reports] == [1, 2, 4, 8, 16, 32, 64]
    assert not any(one.refused for one in watched.reports)


def test_every_watched_function_on_the_stack_is_asked(watched: Watched, tmp_path: Path) -> None:
    def inner() -> None:
        (tmp_path / "x").write_text("x")

    def outer() -> None:
        inner()

    watched(inner, "shop:inner")
    watched(outer, "shop:outer")
    watched.observe("shop:inner")
    watched.enforce("shop:outer")
    inner()
    with pytest.raises(EgressBlocked) as blocked:
        outer()
    assert blocked.value.function == "shop:outer"


def test_what_happens_outside_of_watched_functions_is_no_concern(watched: Watched, tmp_path: Path) -> None:
    def export() -> None:
        return None

    watched(export)
    watched.enforce()
    export()
    (tmp_path / "x").write_text("x")
    assert not watched.reports


def test_neither_the_exception_nor_the_hash_tells_the_targets_name(watched: Watched, tmp_path: Path) -> None:
    folder = tmp_path / "jane-doe"
    folder.mkdir()

    def export() -> None:
        (folder / "x").write_text("x")

    watched(export)
    watched.enforce()
    with pytest.raises(EgressBlocked) as blocked:
        export()
    (report,) = watched.reports
    assert report.target == str(folder)
    assert "jane" not in str(blocked.value) + repr(blocked.value)
    assert report.target_id in str(blocked.value)
    assert blocked.value.event_id == report.event_id
    again = pickle.loads(pickle.dumps(blocked.value))
    assert (type(again), str(again)) == (EgressBlocked, str(blocked.value))
    assert issubclass(EgressBlocked, CallBlocked)


def test_the_hash_depends_on_the_key() -> None:
    ids = set()
    for key in (b"a" * 32, b"a" * 32, b"b" * 32):
        guard = EgressGuard(key=key, places=PLACES)
        ids.add(guard._target_id((Operation.READ, "/etc")))
    assert len(ids) == 2


def test_imports_time_zones_randomness_and_tracebacks_are_not_stopped(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lately_written.py").write_text("def fail():\n    raise ValueError('x')\n")
    (tmp_path / "miswritten.py").write_text("def\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def export() -> None:
        import colorsys
        import zoneinfo

        zoneinfo.ZoneInfo.no_cache("Europe/Berlin")
        random.SystemRandom().random()
        Path("/proc/self/stat").read_text()
        Path("/dev/null").write_text("x")
        importlib.reload(colorsys)
        module = importlib.import_module("lately_written")
        try:
            module.fail()
        except ValueError:
            logging.getLogger("test").exception("it failed")

    watched(export)
    watched.enforce()
    export()
    assert (tmp_path / "__pycache__").exists()
    assert not watched.reports


def test_a_loader_that_is_made_to_read_a_users_file_is_seen(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("x")
    loader = importlib.util.find_spec("json").loader  # type: ignore[union-attr]

    def export() -> bytes:
        return loader.get_data(str(tmp_path / "records.csv"))  # type: ignore[union-attr,attr-defined]

    watched(export)
    watched.enforce()
    with pytest.raises(EgressBlocked):
        export()


def test_a_module_that_reaches_out_while_it_is_imported_is_stopped(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dropped_in.py").write_text(f"open({str(tmp_path / 'out')!r}, 'w').write('x')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def export() -> None:
        importlib.import_module("dropped_in")

    watched(export)
    watched.enforce()
    with pytest.raises(EgressBlocked):
        export()
    assert not (tmp_path / "out").exists()


def test_a_coroutine_a_generator_and_a_method_are_on_the_stack_while_they_run(
    watched: Watched, server: tuple[str, int, list[bytes]], tmp_path: Path
) -> None:
    host, port, _ = server

    async def fetch() -> None:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()

    def rows() -> Generator[int, None, None]:
        yield 1
        (tmp_path / "x").write_text("x")
        yield 2

    class Shop:
        def export(self) -> None:
            (tmp_path / "x").write_text("x")

    async def gathered() -> list[BaseException | None]:
        return await asyncio.gather(fetch(), fetch(), return_exceptions=True)

    for number, function in enumerate((fetch, rows, Shop.export)):
        watched(function, f"shop:{number}")
        watched.enforce(f"shop:{number}")
    assert [type(one) for one in asyncio.run(gathered())] == [EgressBlocked, EgressBlocked]
    running = rows()
    assert next(running) == 1
    with pytest.raises(EgressBlocked):
        next(running)
    with pytest.raises(EgressBlocked):
        Shop().export()


def test_a_thread_an_executor_and_a_task_are_a_way_around_unless_they_carry_their_owner(
    watched: Watched, tmp_path: Path
) -> None:
    """The limit of looking at the stack, stated; and what can be done."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    carried = [False]

    def write() -> None:
        (tmp_path / "x").write_text("x")

    def work() -> Callable[[], None]:
        return watched.guard.carrying(write) if carried[0] else write

    def in_a_thread() -> None:
        thread = concurrent.futures.Future[None]()

        def run(what: Callable[[], None]) -> None:
            try:
                thread.set_result(what())
            except EgressBlocked as error:
                thread.set_exception(error)

        threading.Thread(target=run, args=(work(),)).start()
        thread.result(30)

    def in_an_executor() -> None:
        pool.submit(work()).result(30)

    async def to_thread() -> None:
        await asyncio.to_thread(work())

    async def in_a_task() -> None:
        what = work()

        async def child() -> None:
            what()

        await asyncio.create_task(child())

    ways: list[Callable[[], None]] = [
        in_a_thread,
        in_an_executor,
        lambda: asyncio.run(to_thread()),
        lambda: asyncio.run(in_a_task()),
    ]
    for function in (in_a_thread, in_an_executor, to_thread, in_a_task):
        watched(function)
    watched.enforce()
    for way in ways:
        way()
        (tmp_path / "x").unlink()
    carried[0] = True
    for way in ways:
        with pytest.raises(EgressBlocked):
            way()
    assert not (tmp_path / "x").exists()
    pool.submit(write).result(30)
    pool.shutdown()


def test_a_watched_function_further_out_than_the_depth_is_not_found(watched: Watched, tmp_path: Path) -> None:
    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            (tmp_path / "x").write_text("x")

    def export(levels: int) -> None:
        deeper(levels)

    watched(export)
    watched.enforce()
    with pytest.raises(EgressBlocked):
        export(200)
    export(300)


def test_two_functions_of_one_qualified_name_are_told_apart_and_two_of_one_code_are_one(
    watched: Watched, tmp_path: Path
) -> None:
    def make(*, enforced: bool) -> Callable[[], None]:
        if enforced:

            def export() -> None:
                (tmp_path / "x").write_text("x")

        else:

            def export() -> None:
                (tmp_path / "y").write_text("y")

        return export

    one, same_code, other = make(enforced=True), make(enforced=True), make(enforced=False)
    assert one.__qualname__ == other.__qualname__
    watched(one, "shop:one")
    watched(other, "shop:other")
    watched.enforce("shop:one")
    with pytest.raises(EgressBlocked):
        one()
    with pytest.raises(EgressBlocked):
        same_code()
    other()


def test_a_relative_path_is_another_folder_once_the_current_one_changed(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("known", "new"):
        (tmp_path / name).mkdir()

    def export() -> None:
        Path("x").write_text("x")

    watched(export)
    monkeypatch.chdir(tmp_path / "known")
    export()
    watched.enforce()
    export()
    monkeypatch.chdir(tmp_path / "new")
    with pytest.raises(EgressBlocked):
        export()


def test_an_error_of_the_guard_lets_the_operation_through_and_is_counted(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise ValueError("a fault")

    def export() -> None:
        (tmp_path / "x").write_text("x")

    guard = EgressGuard(fail, places=PLACES)
    guard.register(export, NAME)  # type: ignore[arg-type]
    guard.set_mode(NAME, GuardMode.OBSERVE)
    guard.arm()
    try:
        export()
        assert guard.failures == 1
        guard.set_mode(NAME, GuardMode.ENFORCE)
        guard._reached = None  # type: ignore[assignment]
        export()
        assert guard.failures >= 2
    finally:
        guard.disarm()


def test_a_report_that_fails_does_not_open_the_way(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise ValueError("a fault")

    def export() -> None:
        (tmp_path / "x").write_text("x")

    guard = EgressGuard(fail, places=PLACES)
    guard.register(export, NAME)  # type: ignore[arg-type]
    guard.set_mode(NAME, GuardMode.ENFORCE)
    guard.arm()
    try:
        with pytest.raises(EgressBlocked):
            export()
        assert guard.failures == 1
    finally:
        guard.disarm()


def test_what_a_report_does_is_not_judged(tmp_path: Path) -> None:
    def export() -> None:
        (tmp_path / "x").write_text("x")

    def report(new: NewReach) -> None:
        with (tmp_path / "incidents").open("a") as file:
            file.write(new.target_id)

    guard = EgressGuard(report, places=PLACES)
    guard.register(export, NAME)  # type: ignore[arg-type]
    guard.set_mode(NAME, GuardMode.ENFORCE)
    guard.arm()
    try:
        with pytest.raises(EgressBlocked):
            export()
        with pytest.raises(EgressBlocked):
            export()
    finally:
        guard.disarm()
    assert (tmp_path / "incidents").exists()


def test_what_the_immune_system_writes_inside_of_a_watched_function_is_not_judged(
    watched: Watched, tmp_path: Path
) -> None:
    def export() -> None:
        switch.throw(tmp_path)

    watched(export)
    watched.enforce()
    export()
    assert (tmp_path / switch.DISABLED_FILE).exists()
    assert not watched.reports


def test_code_that_runs_under_the_immune_systems_name_is_judged(watched: Watched, tmp_path: Path) -> None:
    def export() -> None:
        for name in ("cloister.immune.acting.switch", "cloister.immune.invented"):
            with pytest.raises(EgressBlocked):
                exec(f"open({str(tmp_path / 'x')!r}, 'w')", {"__name__": name})

    watched(export)
    watched.enforce()
    export()
    assert not (tmp_path / "x").exists()


def test_the_kill_switch_and_disarming_let_everything_through(tmp_path: Path) -> None:
    thrown = [True]

    def export() -> None:
        (tmp_path / "x").write_text("x")

    guard = EgressGuard(switched_off=lambda: thrown[0], places=PLACES)
    guard.register(export, NAME)  # type: ignore[arg-type]
    guard.set_mode(NAME, GuardMode.ENFORCE)
    guard.arm()
    export()
    thrown[0] = False
    with pytest.raises(EgressBlocked):
        export()
    guard.disarm()
    export()
    assert not guard.armed


def test_a_process_has_one_hook_however_often_guards_are_armed() -> None:
    code = """
import sys
added = []
sys.addaudithook(lambda event, _: added.append(event) if event == "sys.addaudithook" else None)
from cloister.immune.acting import switch
from cloister.immune.acting.egress import EgressGuard
for _ in range(5):
    guard = EgressGuard()
    assert guard.arm() and guard.arm()
    guard.disarm()
print(len(added))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "1"


def test_another_hook_that_forbids_ours_is_noticed() -> None:
    code = """
import sys
def forbid(event, _):
    if event == "sys.addaudithook":
        raise RuntimeError
from cloister.immune.acting import switch
from cloister.immune.acting.egress import EgressGuard
sys.addaudithook(forbid)
print(EgressGuard().arm())
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "False"


def test_a_program_that_ends_with_the_guard_armed_says_nothing() -> None:
    code = """
import atexit, tempfile
from cloister.immune.acting import switch
from cloister.immune.acting.egress import EgressGuard
guard = EgressGuard()
guard.arm()
folder = tempfile.TemporaryDirectory()
open(folder.name + "/x", "w").close()
"""
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stderr == ""


def test_a_child_of_a_fork_is_guarded_too(watched: Watched, tmp_path: Path) -> None:
    def export() -> None:
        (tmp_path / "x").write_text("x")

    watched(export)
    watched.enforce()
    with held_by_another_thread(watched.guard._lock):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            try:
                export()
            except EgressBlocked:
                os._exit(0)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not (tmp_path / "x").exists()


def test_threads_learn_together_and_are_stopped_together(watched: Watched, tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / str(number)).mkdir()

    def export(number: int) -> None:
        (tmp_path / str(number) / "x").write_text("x")

    watched(export)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(export, list(range(20)) * 10))
        watched.enforce()
        list(pool.map(export, range(20)))
        outcomes = [pool.submit(export, number) for number in range(20, 40)]
        assert all(isinstance(one.exception(), EgressBlocked) for one in outcomes)


def test_a_function_that_reaches_for_too_many_targets_is_told_of_once(watched: Watched) -> None:
    def export() -> None:
        for number in range(MOST + 50):
            sys.audit("socket.connect", None, (f"10.0.{number // 256}.{number % 256}", 1))

    watched(export)
    export()
    watched.enforce()
    export()
    assert [one.unguarded for one in watched.reports] == [True]


def test_what_was_learned_survives_a_restart_and_enforces_only_when_told(
    watched: Watched, tmp_path: Path
) -> None:
    def export(name: str) -> None:
        (tmp_path / name / "x").write_text("x")

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    watched(export)
    export("a")
    watched.observe()
    state = json.loads(json.dumps(watched.guard.state()))
    watched.guard.disarm()

    again = Watched()
    try:
        again.guard.restore(state)
        again(export)
        assert again.guard.mode(NAME) is GuardMode.OBSERVE
        export("b")
        again.enforce()
        export("a")
        with pytest.raises(EgressBlocked):
            export("b")
    finally:
        again.guard.disarm()


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        {},
        {"version": 2, "functions": {}},
        {"version": 1, "functions": []},
        {"version": 1, "functions": {"f": {}}},
    ],
    ids=str,
)
def test_a_damaged_state_is_refused_whole(state: object) -> None:
    guard = EgressGuard(places=PLACES)
    with pytest.raises(ImmuneError) as refused:
        guard.restore(state)
    assert refused.value.code == "immune.state_damaged"
    assert guard.state()["functions"] == {}


EVENTS = st.tuples(
    st.sampled_from(
        [
            *("open", "socket.connect", "os.rename", "subprocess.Popen", "os.system", "ctypes.dlopen"),
            *("import", "sqlite3.load_extension"),
        ]
    ),
    st.lists(
        st.one_of(
            st.none(),
            st.integers(),
            st.text(max_size=10),
            st.binary(max_size=10),
            st.lists(st.text(), max_size=2),
        ),
        max_size=5,
    ),
)


@settings(max_examples=300)
@given(EVENTS)
def test_no_event_of_any_form_reaches_the_application_as_another_error(
    event: tuple[str, list[object]],
) -> None:
    guard = EgressGuard(places=PLACES)

    def export() -> None:
        sys.audit(event[0], *event[1])

    guard.register(export, NAME)  # type: ignore[arg-type]
    guard.set_mode(NAME, GuardMode.ENFORCE)
    guard.arm()
    try:
        export()
    except EgressBlocked:
        pass
    finally:
        guard.disarm()


@pytest.mark.parametrize("mode", [GuardMode.LEARN, GuardMode.OBSERVE, GuardMode.ENFORCE])
@pytest.mark.parametrize("enforcing", [True, False])
def test_a_change_of_the_immune_systems_own_folder_is_told_of_and_never_learned(
    tmp_path: Path, mode: GuardMode, *, enforcing: bool
) -> None:
    state = tmp_path / "state"
    state.mkdir()

    def export() -> None:
        (state / "disabled").mkdir(exist_ok=True)

    reports: list[NewReach] = []
    places = Places.of_this_interpreter(state)
    guard = EgressGuard(reports.append, places=places, refuses=lambda _: enforcing)
    guard.register(export, NAME)  # type: ignore[arg-type]
    guard.approve(NAME, Operation.WRITE, f"{tmp_path}/")
    guard.approve(NAME, Operation.WRITE, "/tmp")
    guard.set_mode(NAME, mode)
    guard.arm()
    try:
        for _ in range(2):
            if enforcing or mode is GuardMode.ENFORCE:
                with pytest.raises(EgressBlocked, match="own folder"):
                    export()
            else:
                export()
    finally:
        guard.disarm()
    assert (state / "disabled").exists() is not (enforcing or mode is GuardMode.ENFORCE)
    assert [(one.operation, one.target, one.times) for one in reports] == [
        (Operation.WRITE, str(state), times) for times in (1, 2)
    ]


def test_what_was_learned_of_it_before_is_not_taken_over(tmp_path: Path) -> None:
    earlier, guard = EgressGuard(places=Places()), EgressGuard(places=Places.of_this_interpreter(tmp_path))

    def export() -> None:
        (tmp_path / "x").write_text("x")

    earlier.register(export, NAME)  # type: ignore[arg-type]
    earlier.arm()
    export()
    earlier.disarm()
    guard.restore(json.loads(json.dumps(earlier.state())))
    assert not guard._reached[NAME].learned


def test_a_module_that_a_watched_function_imports_for_the_first_time_lists_no_folder(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_late.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def export() -> None:
        importlib.invalidate_caches()
        importlib.import_module("imported_late")

    watched(export)
    watched.enforce()
    export()
    sys.modules.pop("imported_late")
    assert not watched.reports
