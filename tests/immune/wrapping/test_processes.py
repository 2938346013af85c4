"""Threads, forks, spawned processes, pickles, and the watched function inside other tools."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from cloister.immune.errors import CallBlocked
from cloister.immune.wrapping import FAULTS, Recorder, Ring, Sampling, monitor, observing
from cloister.immune.wrapping.build import build
from cloister.immune.wrapping.locked import LockedGate
from cloister.immune.wrapping.sampling import Mode, Pace, Ticks
from tests.immune.wrapping.watching import (
    EVERY,
    TENTH,
    Keeping,
    KeepingWatcher,
    doubled,
    doubled_here,
    doubled_soon,
    refused,
    watching,
)
from tests.racing import race

ROOT = Path(__file__).parents[3]


def test_calls_and_samples_are_exact_under_threads() -> None:
    with watching(TENTH) as watcher:
        calls, errors = watcher.gate("refused").calls, watcher.gate("refused").errors

        def calling() -> None:
            for _ in range(5000):
                with pytest.raises(ValueError):  # noqa: PT011 - its own
                    refused(1)

        def doubling() -> None:
            for one in range(20_000):
                assert doubled(one) == 2 * one

        start = watcher.gate("doubled").calls
        race([doubling] * 4, hands=1e-5)
        assert watcher.gate("doubled").calls - start == 80_000
        chosen = sum(one.entered.teaches for one in watcher.sensor("doubled").left)
        # Two threads may start one block twice.
        assert 7_960 <= chosen <= 8_040
        # The last observed call has told of all before it.
        told = sum(one.entered.calls for one in watcher.sensor("doubled").left)
        assert 80_000 - 20 <= told - start <= 80_000
        race([calling] * 4, hands=1e-5)
        assert watcher.gate("refused").calls - calls == 20_000
        assert watcher.gate("refused").errors - errors == 20_000


def test_arming_and_disarming_from_other_threads_loses_no_call() -> None:
    with watching(TENTH) as watcher:
        gate = watcher.gate("doubled")
        start, done = gate.calls, threading.Semaphore(0)

        def switching() -> None:
            for _ in range(3):
                while not done.acquire(blocking=False):
                    gate.arm()
                    gate.once()
                    gate.disarm()
                    gate.once()

        def doubling() -> None:
            for one in range(5_000):
                doubled(one)
            done.release()

        race([switching, *[doubling] * 3], hands=1e-5)
        assert gate.calls - start == 15_000
        assert FAULTS.count == 0


def test_without_a_global_lock_a_flag_of_its_own_holds_every_call() -> None:
    wrapper, gate = build(lambda: 1, name="m:f", locked=True)
    sensor = Keeping()
    gate.attach(sensor, TENTH, Pace(1.0), Ticks(iter([0.5] * 10_000).__next__), lambda: 0.0)
    assert isinstance(gate, LockedGate)
    gate.arm()
    # A lost update of the countdown, as two threads can make it without a lock, opens nothing.
    gate._left.cell_contents = 1000
    sensor.blocks = True
    for _ in range(5):
        with pytest.raises(CallBlocked):
            wrapper()
    sensor.blocks = False
    gate.disarm()
    for _ in range(1000):
        wrapper()
    assert 95 <= len(sensor.left) <= 105
    gate.once()
    told = len(sensor.left)
    wrapper()
    assert len(sensor.left) == told + 1


def test_threads_of_a_pool_each_get_their_own_result(watcher: KeepingWatcher) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(doubled, range(500))) == [2 * one for one in range(500)]
    assert len(watcher.sensor("doubled").left) == 500


def test_wrapped_functions_pickle_by_name_and_copy_as_themselves() -> None:
    for function in (doubled, doubled_soon, refused):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(function, protocol)) is function
        assert copy.deepcopy(function) is function


def test_a_forked_child_counts_from_nothing_keeps_no_event_and_goes_on_watching() -> None:
    ring: Ring[object] = Ring()
    recorder = Recorder(ring)  # type: ignore[arg-type]
    with watching(EVERY, recorder) as watcher:
        doubled(1)
        parents = ring.newest(1)[0].event_id  # type: ignore[attr-defined]
        observing.INSIDE.add(-1)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                clean = (len(ring), watcher.gate("doubled").calls, FAULTS.count, len(observing.INSIDE))
                doubled(2)
                own = ring.newest(1)[0]
                fine = (
                    clean == (0, 0, 0, 0)
                    and watcher.gate("doubled").calls == 1
                    and own.process_id == os.getpid()  # type: ignore[attr-defined]
                    and own.event_id != parents  # type: ignore[attr-defined]
                )
                os.write(writer, b"yes" if fine else repr(clean).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        observing.INSIDE.discard(-1)
        assert os.read(reader, 100) == b"yes"
        os.close(reader)
        os.close(writer)
        assert len(ring) == 1


def test_an_armed_function_stays_armed_in_a_forked_child(watcher: KeepingWatcher) -> None:
    watcher.gate("doubled").arm()
    watcher.sensor("doubled").blocks = True
    child = os.fork()
    if child == 0:
        try:
            doubled(1)
        except CallBlocked:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    watcher.gate("doubled").disarm()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_wrapped_function_runs_in_processes_of_either_kind(method: str) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(doubled, 4).result(60) == 8
        assert pool.submit(doubled_here, 4).result(60)[0] == 8
        with pytest.raises(ValueError, match="not True"):
            pool.submit(refused, 1).result(60)


def test_a_block_in_another_process_arrives_as_a_block() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(CallBlocked) as blocked:
            pool.submit(_blocked).result(60)
        assert blocked.value.event_id == "event-1"


def _blocked() -> int:
    with watching() as watcher:
        watcher.sensor("doubled").blocks = True
        return doubled(1)


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    with watching(Sampling(Mode.BUDGETED), Recorder(Ring())):
        for one in range(1000):
            doubled(one)
        assert threading.active_count() == before


def _python(source: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_disabled_by_the_environment_a_function_stays_as_it_is() -> None:
    source = "from cloister.immune.wrapping import monitor\ndef f(): pass\nprint(monitor(f) is f)"
    assert _python(source, PIC_DISABLED="1") == "True"
    assert _python(source, PIC_DISABLED="0") == "False"


def test_disabled_when_a_watcher_is_named_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIC_DISABLED", "true")
    with watching() as watcher:
        assert doubled(2) == 4
        assert watcher.sensors == {}


def test_without_a_watcher_calls_pass_straight_and_are_counted() -> None:
    @monitor
    def unwatched_yet() -> int:
        return 1

    assert [unwatched_yet() for _ in range(5)] == [1] * 5
    with watching() as watcher:
        assert watcher.gate("unwatched_yet").calls == 5
        unwatched_yet()
        assert len(watcher.sensor("unwatched_yet").left) == 1
        gate = watcher.gate("unwatched_yet")
    unwatched_yet()
    assert (gate.calls, gate.sensor) == (7, None)


def test_the_wrapper_loads_quickly_and_brings_no_library() -> None:
    source = (
        "import sys; before = set(sys.modules); import cloister.immune.wrapping\n"
        "print(sorted({'pydantic', 'sqlalchemy', 'cryptography', 'asyncio', 'numpy', 'torch', 'yaml'}"
        " & (set(sys.modules) - before)))"
    )
    assert _python(source) == "[]"


def test_pytest_collects_and_runs_what_is_wrapped(tmp_path: Path) -> None:
    (tmp_path / "test_wrapped.py").write_text(
        "import pytest\n"
        "from cloister.immune.wrapping import monitor\n"
        "@pytest.fixture\n@monitor\ndef number():\n    yield 3\n"
        "@monitor\ndef test_bare(number): assert number == 3\n"
        "@pytest.mark.parametrize('one', [1, 2])\n@monitor\ndef test_each(one, number): assert one < number\n"
        "class TestIn:\n    @monitor\n    def test_method(self, number): assert number\n"
    )
    source = (
        "import pytest, sys\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'no:randomly', {str(tmp_path)!r}]))"
    )
    assert "4 passed" in _python(source)
