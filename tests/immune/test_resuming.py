"""A contained function over a restart: contained until its time is up, however its process ended."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.keys import Signer
from cloister.immune.acting.containment import LONGEST, ContainmentRules, Stage, Standing
from cloister.immune.acting.effector import Effector, StageChange
from cloister.immune.keeping import BaselineKeeper, StateStore
from cloister.immune.keeping.stages import CONTAIN, HALF_OPEN, RELEASE, KeptStage, StageKeeper
from cloister.immune.operating import Operator
from cloister.immune.resuming import StageMemory, resumed
from cloister.immune.settings import BaselineSettings
from tests.conftest import ROOT

if TYPE_CHECKING:
    from cloister.immune.cell import Cell

FUNCTION = "tests.restart:export"
BEGAN = 1_790_000_000.0

SERVICE = '''
import json, os, random, signal, sys, time
from cloister.immune import CallBlocked, monitor
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings
from pathlib import Path

folder, what, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
NAME = "tests.restart:export"


@monitor(name=NAME)
def export(ids):
    return len(ids)


class Steps:
    """A clock that each look moves alike, so that no load of the machine looks like an attack."""

    def __init__(self):
        self.chance, self.now = random.Random(3), 1000.0

    def __call__(self):
        self.now += 1e-5 * self.chance.lognormvariate(0.0, 0.2)
        return self.now


def call(ids):
    try:
        export(ids)
        return 0
    except CallBlocked:
        return 1


chance, clock = random.Random(os.getpid()), Steps()
on = Protection(
    ImmuneSettings.model_validate(
        {
            "cellagent": {"sampling": "every-call"},
            "effector": {
                "enforcing": [] if what == "not-enforcing" else ["tests.restart:*"],
                "contain_seconds": seconds,
                "promotion": "policy",
            },
            "storage": {"directory": str(folder)},
        }
    ),
    monotonic=clock,
).start()
if what == "attack":
    with Operator(folder, "tester") as operator:
        operator.approve(NAME)
    on.brain.anchors.refresh(NAME)
    for _ in range(500):
        call([0] * chance.randint(1, 6))
    blocked = sum(call([0] * 400) for _ in range(60))
    print(json.dumps({"blocked": blocked}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
blocked = sum(call([0]) for _ in range(40))
status = on.status()
stage = on.brain.effector.state(NAME).stage.value
on.close()
print(json.dumps({"blocked": blocked, "stage": stage, "alarms": status["alarms"]}))
'''


def kept(stage: str = CONTAIN, seconds: float = 60.0, calm_at: float = 0.0) -> KeptStage:
    return KeptStage(FUNCTION, stage, BEGAN, seconds, calm_at, 1, "a")


def test_a_containment_goes_on_for_what_is_left_of_it_and_then_through_its_stages() -> None:
    at = {age: resumed(kept(), BEGAN + age, 5.0, 60.0) for age in (10.0, 70.0, 130.0, 190.0)}
    contained, half, released = at[10.0], at[70.0], at[130.0]
    assert contained is not None
    assert (contained.stage, contained.since, contained.seconds) == (Stage.CONTAIN, -5.0, 60.0)
    assert half is not None
    assert (half.stage, half.since) == (Stage.HALF_OPEN, -5.0)
    assert released is not None
    assert (released.stage, released.calm_at) == (Stage.RELEASE, 55.0)
    assert at[190.0] is None


def test_a_half_open_and_a_released_function_stay_what_they_are_for_what_is_left() -> None:
    half = resumed(kept(HALF_OPEN), BEGAN + 59, 0.0, 60.0)
    assert half is not None
    assert half.stage is Stage.HALF_OPEN
    released = resumed(kept(RELEASE, calm_at=BEGAN + 50), BEGAN + 49, 0.0, 60.0)
    assert released is not None
    assert (released.stage, released.calm_at) == (Stage.RELEASE, 1.0)
    assert resumed(kept(RELEASE, calm_at=BEGAN + 50), BEGAN + 50, 0.0, 60.0) is None


numbers = st.floats(min_value=-1e12, max_value=1e12)


@settings(max_examples=200)
@given(
    st.sampled_from([CONTAIN, HALF_OPEN, RELEASE]),
    st.floats(min_value=1e-3, max_value=1e9),
    numbers,
    numbers,
    st.floats(min_value=0.1, max_value=3600.0),
)
def test_whatever_was_kept_and_whatever_the_clock_says_nothing_lasts_longer_than_the_rules_allow(
    stage: str, seconds: float, calm_at: float, present: float, first: float
) -> None:
    found = resumed(kept(stage, seconds, calm_at), BEGAN + present, 100.0, first)
    if found is not None:
        longest = LONGEST * first
        assert found.seconds <= longest
        assert found.since <= 100.0
        assert found.since + found.seconds <= 100.0 + longest
        assert found.calm_at <= 100.0 + longest


class ACell:
    """As much of a cell as is kept."""

    name, recognised_by = FUNCTION, 3

    def learned_state(self) -> bytes:
        return b"{}"


def test_a_containment_that_a_busy_store_didnt_take_is_kept_at_the_next_save(
    tmp_path: Path, signer: Signer
) -> None:
    store = StateStore(tmp_path / "immune.db", lambda: BEGAN)
    effector = Effector(ContainmentRules())
    keeper = StageKeeper(store, signer)
    memory = StageMemory(
        keeper,
        BaselineKeeper(store, BaselineSettings()),
        lambda: effector,
        60.0,
        clock=lambda: BEGAN,
        monotonic=lambda: 5.0,
    )
    cell = cast("Cell", ACell())
    assert effector.contain(
        FUNCTION, Standing(baseline=True, learned=500, enforcing=True, promoted=True), 5.0
    )
    change = StageChange(FUNCTION, Stage.SUSPECT, Stage.CONTAIN, 5.0, 60.0, by_operator=False)
    other = sqlite3.connect(tmp_path / "immune.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    memory.changed(change, cell)
    other.execute("ROLLBACK")
    other.close()
    assert keeper.find(FUNCTION) == (None, None)
    memory.keep_what_is_due(cell)
    found, _ = keeper.find(FUNCTION)
    assert found is not None
    assert (found.stage, found.began, found.seconds, found.detector) == (CONTAIN, BEGAN, 60.0, 3)
    store.close()


def run(folder: Path, what: str, seconds: float = 120.0) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, str(folder), what, str(seconds)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left") / "state"
    code, said = run(folder, "attack")
    assert code == -signal.SIGKILL
    assert said["blocked"] != 0
    return folder


@pytest.fixture
def killed(left: Path, tmp_path: Path) -> Path:
    """The state of a service that contained a function, and was killed the next moment."""
    return shutil.copytree(left, tmp_path / "state")


def test_after_a_kill_the_function_is_contained_from_its_first_call_on(killed: Path) -> None:
    code, said = run(killed, "restart")
    assert code == 0
    assert said == {"blocked": 40, "stage": "contain", "alarms": []}
    with Operator(killed, "tester") as operator:
        verdict = operator.export(killed / "audit.jsonl")
    assert "stage-resumed" in (killed / "audit.jsonl").read_text()
    # The killed process closed nothing: its segment's end is a matter of `pic logs export`.
    assert verdict.entries > 0


def test_a_second_restart_in_order_changes_nothing(killed: Path) -> None:
    run(killed, "restart")
    assert run(killed, "restart")[1] == {"blocked": 40, "stage": "contain", "alarms": []}


def test_when_its_time_is_up_it_is_probed_and_released_by_ordinary_calls(killed: Path) -> None:
    # To the restarted process the containment was one of a tenth of a second: time went on without it.
    _, said = run(killed, "restart", 0.005)
    assert said["blocked"] == 0
    assert said["stage"] in ("observe", "release")


def test_a_function_that_is_enforcing_no_more_isnt_blocked_by_what_was_kept(killed: Path) -> None:
    assert run(killed, "not-enforcing")[1]["blocked"] == 0


def test_after_its_detector_was_rolled_back_or_rejected_it_isnt_blocked(killed: Path) -> None:
    with Operator(killed, "tester") as operator:
        for one in operator.detectors():
            operator.reject(one.id, "it was a colleague")
    assert run(killed, "restart")[1]["blocked"] == 0


@pytest.mark.parametrize("how", ["document", "signature", "both", "another's"])
def test_a_forged_containment_never_blocks_and_is_an_alarm(killed: Path, how: str) -> None:
    with sqlite3.connect(killed / "immune.db") as connection:
        if how == "another's":
            connection.execute("UPDATE stages SET function = 'tests.restart:other'")
            connection.execute(
                "INSERT INTO stages SELECT ?, document, signature, kept_at FROM stages", (FUNCTION,)
            )
            connection.execute("UPDATE stages SET document = replace(document, 'export', 'import')")
        else:
            columns = ("document", "signature") if how == "both" else (how,)
            for column in columns:
                connection.execute(f"UPDATE stages SET {column} = ?", (b"{}",))
    _, said = run(killed, "restart")
    assert said["blocked"] == 0
    (alarm,) = said["alarms"]  # type: ignore[misc]
    assert "didn't verify" in alarm


def test_a_state_that_was_damaged_never_blocks(killed: Path) -> None:
    (killed / "immune.db").write_bytes(b"no database" * 1000)
    for rest in ("immune.db-wal", "immune.db-shm"):
        (killed / rest).unlink(missing_ok=True)
    _, said = run(killed, "restart")
    assert said["blocked"] == 0
    assert said["alarms"]
