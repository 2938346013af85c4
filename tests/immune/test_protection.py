"""The immune system of a process, as a whole: learns, flags, blocks, explains, and lets go again."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cloister.immune import CallBlocked, EgressBlocked, ImmuneError, ImmuneIncident, monitor, present, protect
from cloister.immune.acting.containment import Stage
from cloister.immune.acting.reach import Operation, Places
from cloister.immune.audit_event import AuditKind
from cloister.immune.detection import FusionDetector
from cloister.immune.keeping import DetectorState, Standing
from cloister.immune.kept_state import EGRESS
from cloister.immune.observation import Score
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import AnomalySettings, EgressSettings
from cloister.immune.wrapping.faults import FAULTS
from tests.immune.scene import SteppingClock, attack, on_with, ordinary, promote_all, settings
from tests.timing import shortest

NAME = "tests.shop:export"
WORK = 40


@monitor(name=NAME)
def export(ids: list[int]) -> int:
    total = 0
    for one in ids:
        for step in range(WORK):
            total += one * step
    return total


@pytest.fixture
def chance() -> random.Random:
    return random.Random(5)


@pytest.fixture
def on(folder: Path, chance: random.Random, clock: SteppingClock) -> Iterator[Protection]:
    """Switched on, approved, and 500 ordinary calls later."""
    with on_with(settings(folder), clock) as protection:
        approve(protection, folder)
        ordinary(export, 500, chance)
        yield protection


def approve(protection: Protection, folder: Path) -> None:
    with Operator(folder, "tester") as operator:
        operator.approve(NAME)
    protection.brain.anchors.refresh(NAME)


def test_an_attack_that_nobody_promoted_a_detector_for_is_seen_and_not_blocked(
    on: Protection, folder: Path
) -> None:
    assert attack(export) == 0
    with Operator(folder, "tester") as operator:
        found = operator.detectors()
    assert found
    assert {one.state for one in found} == {DetectorState.CANDIDATE}
    assert all(one.verdict is not None and one.verdict.passed for one in found)
    assert on.brain.cell(NAME).decisions["block"] == 0
    assert on.brain.cell(NAME).decisions["quarantine"] > 0


def test_once_promoted_it_is_blocked_before_it_runs_and_the_error_says_why(
    on: Protection, folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    attack(export)
    promote_all(folder)
    on.brain.effector.release(NAME, clock())
    assert attack(export) >= 50
    with pytest.raises(CallBlocked, match=r"size .*x median, p=") as blocked:
        export(list(range(400)))
    assert blocked.value.function == NAME
    with Operator(folder, "tester") as operator:
        on.notes.trail.flush()  # type: ignore[union-attr]
        verdict = operator.export(folder.parent / "audit.jsonl")
    assert verdict.accepted, verdict.problems
    lines = [json.loads(line) for line in (folder.parent / "audit.jsonl").read_text().splitlines()]
    (entry,) = [one for one in lines if one["event_id"] == blocked.value.event_id]
    assert (entry["action"], entry["function"]) == ("block", NAME)


def test_containment_ends_by_itself_and_ordinary_calls_run_again(
    on: Protection, folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    attack(export)
    promote_all(folder)
    on.brain.effector.release(NAME, clock())
    assert attack(export) > 0
    with pytest.raises(CallBlocked):
        ordinary(export, 1, chance)
    clock.pass_by(0.6)
    let_in = 0
    for _ in range(100):
        with suppress(CallBlocked):
            ordinary(export, 1, chance)
            let_in += 1
    assert 0 < let_in < 100
    clock.pass_by(0.6)
    ordinary(export, 100, chance)


def test_a_probe_that_is_unusual_in_another_way_than_was_promoted_blocks_nobody(
    on: Protection, folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    attack(export)
    with Operator(folder, "tester") as operator:
        for one in operator.detectors():
            if one.provenance.startswith("size"):
                operator.promote(one.id)
    on.brain.effector.release(NAME, clock())
    assert attack(export) > 0
    clock.pass_by(0.6)
    for _ in range(100):
        slow_down(clock, 40)
        with suppress(CallBlocked):
            ordinary(export, 1, chance)
        if on.brain.effector.state(NAME).stage is Stage.CONTAIN:
            break
    assert on.brain.effector.state(NAME).stage is Stage.CONTAIN
    ordinary(export, 20, chance)
    assert attack(export, 20) == 20


def slow_down(clock: SteppingClock, looks: int) -> None:
    """Have the next looks at the clock find that more time has passed."""
    clock.slow = looks


@pytest.mark.parametrize(
    "lacking",
    ["not enforcing", "not approved", "deployed anew", "switched off"],
)
def test_where_one_condition_is_missing_nothing_is_blocked(
    folder: Path, chance: random.Random, lacking: str, clock: SteppingClock
) -> None:
    given = settings(folder, promotion="policy", **({"enforcing": []} if lacking == "not enforcing" else {}))
    with on_with(given, clock) as protection:
        if lacking != "not approved":
            approve(protection, folder)
        ordinary(export, 500, chance)
        with Operator(folder, "tester") as operator:
            if lacking == "deployed anew":
                operator.deploy(NAME)
                protection.brain.anchors.refresh(NAME)
            if lacking == "switched off":
                operator.switch_off()
                time.sleep(0.3)
        assert attack(export) == 0


def test_with_all_conditions_a_policy_promotes_and_the_first_attack_is_blocked(
    folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    with on_with(settings(folder, promotion="policy"), clock) as protection:
        approve(protection, folder)
        ordinary(export, 500, chance)
        assert attack(export) > 40


def test_what_was_learned_and_approved_is_there_after_a_restart(
    folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    with on_with(settings(folder), clock) as protection:
        approve(protection, folder)
        ordinary(export, 500, chance)
        learned = protection.brain.cell(NAME).detector.learned
    with on_with(settings(folder), clock) as protection:
        assert protection.brain.cell(NAME).detector.learned == learned
        assert protection.brain.anchors.standing(NAME) is Standing.APPROVED
        ordinary(export, 50, chance)
        assert attack(export, 20) == 0
        promote_all(folder)
        protection.brain.effector.release(NAME, clock())
        assert attack(export) > 40


def test_a_deployment_three_times_as_slow_is_usual_within_200_calls_of_its_approval(
    folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    with on_with(settings(folder, promotion="policy"), clock) as protection:
        approve(protection, folder)
        ordinary(export, 1000, chance)
        clock.slower = 3.0
        for _ in range(60):
            with suppress(CallBlocked):
                ordinary(export, 1, chance)
        assert protection.brain.effector.state(NAME).stage is Stage.CONTAIN
        approve(protection, folder)
        clock.pass_by(2.0)
        ordinary(export, 200, chance)
        assert protection.brain.anchors.standing(NAME) is Standing.APPROVED
        before = dict(protection.brain.cell(NAME).decisions)
        ordinary(export, 500, chance)
        assert protection.brain.cell(NAME).decisions == before, "nothing of it is unusual"


def test_a_damaged_state_is_put_aside_alarmed_and_blocks_nothing(
    folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    with on_with(settings(folder, promotion="policy"), clock) as protection:
        approve(protection, folder)
        ordinary(export, 500, chance)
    (database,) = folder.glob("*.sqlite*") if list(folder.glob("*.sqlite")) else folder.glob("*.db")
    database.write_bytes(b"not a database" * 1000)
    with on_with(settings(folder, promotion="policy"), clock) as protection:
        assert protection.brain.alarms
        ordinary(export, 500, chance)
        assert attack(export) == 0
        assert protection.status()["alarms"]


def test_what_it_never_reached_for_is_refused_before_it_happens(
    folder: Path, tmp_path: Path, clock: SteppingClock
) -> None:
    received: list[bytes] = []

    @monitor(name="tests.shop:report")
    def report(place: str | tuple[str, int]) -> None:
        if isinstance(place, str):
            Path(place).write_text("done")
        else:
            with socket.create_connection(place, timeout=5) as connection:
                connection.sendall(b"records")

    with socket.create_server(("127.0.0.1", 0)) as server, on_with(settings(folder), clock) as protection:
        with Operator(folder, "tester") as operator:
            operator.approve("tests.shop:report")
        protection.brain.anchors.refresh("tests.shop:report")
        for _ in range(450):
            report(str(tmp_path / "report.txt"))
        with pytest.raises(EgressBlocked):
            report(server.getsockname())
        server.settimeout(0.2)
        with suppress(TimeoutError):
            received.append(server.accept()[0].recv(100))
        report(str(tmp_path / "report.txt"))
    assert received == []
    assert oct((folder / EGRESS).stat().st_mode)[-3:] == "600"


def test_what_was_refused_is_named_to_the_operator_and_goes_through_once_it_is_approved_by_its_id(
    folder: Path, tmp_path: Path, clock: SteppingClock
) -> None:
    name = "tests.shop:store"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    @monitor(name=name)
    def store(place: Path) -> None:
        place.write_text("done")

    given = settings(folder)
    with on_with(given, clock) as protection, Operator(folder, "tester") as operator:
        # Without the folders whose files are taken for one, for this test's are in one.
        protection.guard._places = Places()
        operator.approve(name)
        protection.brain.anchors.refresh(name)
        for _ in range(450):
            store(tmp_path / "report.txt")
        with pytest.raises(EgressBlocked) as blocked:
            store(elsewhere / "copy.txt")
        protection._beat()
        new = new_target(operator, name)
        assert (new["operation"], new["target"], new["times"]) == ("write", str(elsewhere), 1)
        assert str(new["id"]) in str(blocked.value)
        assert "new_targets" not in protection.status()
        event = operator.approve_target(name, str(new["id"]))
        assert str(elsewhere) not in event.reason
        protection._beat()
        store(elsewhere / "copy.txt")
        assert (elsewhere / "copy.txt").exists()
        assert new_target(operator, name) == {}
        with pytest.raises(EgressBlocked):
            store(tmp_path.parent / "copy.txt")
        with pytest.raises(ImmuneError) as unknown:
            operator.approve_target(name, "0" * 16)
    assert unknown.value.code == "immune.target_unknown"
    (folder / EGRESS).unlink()
    with on_with(given, clock) as again:
        assert again.guard._reached[name].knows((Operation.WRITE, str(elsewhere)))


def new_target(operator: Operator, function: str) -> dict[str, object]:
    """The first of a function's new targets, as its process told it to the operator."""
    (said,) = operator.processes().values()
    by_function = said["new_targets"]
    assert isinstance(by_function, dict)
    found = by_function.get(function, [{}])
    assert isinstance(found, list)
    assert isinstance(found[0], dict)
    return dict(found[0])


def test_the_fused_score_is_selected_by_a_setting_and_hears_what_the_guard_sees(
    folder: Path,
    tmp_path: Path,
    clock: SteppingClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PIC-D5: selectable as the seed's detector is."""

    @monitor(name="tests.shop:note")
    def note(place: str) -> None:
        Path(place).read_bytes()

    (tmp_path / "notes.txt").write_text("done")
    heard: list[str] = []
    reach = FusionDetector.reach

    def listening(self: FusionDetector, operation: str, score: Score) -> None:
        heard.append(operation)
        reach(self, operation, score)

    monkeypatch.setattr(FusionDetector, "reach", listening)
    given = settings(folder, enforcing=[]).model_copy(
        update={"anomaly": AnomalySettings(detector="fusion"), "egress": EgressSettings(learn_calls=200)}
    )
    with on_with(given, clock) as protection:
        assert isinstance(protection.brain.cell("tests.shop:note").detector, FusionDetector)
        for _ in range(450):
            note(str(tmp_path / "notes.txt"))
        heard.clear()
        note("/etc/hosts")
    assert heard == ["read"]


def test_incidents_are_told_once_and_hold_no_argument(
    folder: Path, chance: random.Random, clock: SteppingClock
) -> None:
    told: list[ImmuneIncident] = []
    with on_with(settings(folder, promotion="policy"), clock, on_incident=told.append) as protection:
        approve(protection, folder)
        ordinary(export, 500, chance)
        assert attack(export) > 10
    assert 1 <= len(told) <= 4
    assert NAME in told[0].incident_fields()["detail"]


def test_without_a_folder_all_is_in_memory_and_nothing_is_blocked_unapproved(
    chance: random.Random, clock: SteppingClock
) -> None:
    with on_with(settings(None, promotion="policy"), clock) as protection:
        ordinary(export, 500, chance)
        assert attack(export) == 0
        assert protection.brain.registry.detectors()
        assert protection.notes.trail is None


def test_one_at_a_time_and_closing_makes_functions_themselves_again(
    folder: Path, clock: SteppingClock
) -> None:
    with on_with(settings(folder), clock) as protection:
        assert present() is protection
        with pytest.raises(ImmuneError) as refused:
            protect(settings=settings(None))
        assert refused.value.code == "immune.setting_invalid"
        protection.close()
    assert present() is None
    assert export([1]) == sum(range(WORK))
    protection.close()


def test_targets_are_wrapped_by_name_and_let_go_again(folder: Path) -> None:
    import tests.immune.watched_module as module

    plain = module.price
    with protect("tests.immune.watched_module:*", settings=settings(folder)) as protection:
        assert module.price(3) == 6
        assert "tests.immune.watched_module:price" in protection.brain.cells()
    assert module.price is plain


def test_a_target_that_is_not_there_leaves_nothing_on(folder: Path) -> None:
    with pytest.raises(ImmuneError) as refused:
        protect("tests.immune.no_such_module:*", settings=settings(folder))
    assert refused.value.code == "immune.target_unknown"
    assert present() is None


@pytest.mark.parametrize("broken", ["score", "learn", "entry", "audit", "store"])
def test_whatever_breaks_inside_the_application_goes_on(
    on: Protection, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise RuntimeError("broken")

    cell = on.brain.cell(NAME)
    if broken in ("score", "learn", "entry"):
        monkeypatch.setattr(type(cell.detector), broken, fail)
    elif broken == "audit":
        monkeypatch.setattr(on.notes, "_write", fail)
    else:
        monkeypatch.setattr(on.brain.registry, "matching", fail)
    faults = FAULTS.count
    for _ in range(20):
        assert export([1]) == sum(range(WORK))
        assert export(list(range(400))) > 0
    assert FAULTS.count > faults


def test_a_child_of_a_fork_goes_on_watched_with_an_audit_of_its_own(
    on: Protection, folder: Path, chance: random.Random
) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ordinary(export, 50, chance)
            on.notes.note(AuditKind.FAULT, "told", NAME, "from the child")
            code = 0 if on.notes.trail is not None and on.notes.trail.flush() else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    ordinary(export, 50, chance)
    on.notes.trail.flush()  # type: ignore[union-attr]
    with Operator(folder, "tester") as operator:
        verdict = operator.export(folder.parent / "forked.jsonl")
    assert verdict.accepted, verdict.problems
    assert "from the child" in (folder.parent / "forked.jsonl").read_text()


def test_one_import_line_switches_it_on_from_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "pic.yaml").write_text(
        "cellagent: {watch: ['shop:*'], sampling: every-call}\nstorage: {directory: state}\n"
    )
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "shop.py").write_text("def price(number):\n    return 2 * number\n")
    (tmp_path / "main.py").write_text(
        "import cloister.immune.auto\nimport shop\n"
        "from cloister.immune import present\n"
        "assert [shop.price(one) for one in range(30)][-1] == 58\n"
        "print(present().status()['functions']['shop:price']['calls'])\n"
    )
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "30"), done.stderr


@pytest.mark.timed
def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import time, sys; began = time.process_time(); import cloister.immune\n"
        "from cloister.immune import monitor\n"
        "print(time.process_time() - began)\n"
        "heavy = ('torch', 'numpy', 'pydantic', 'starlette', 'sqlalchemy')\n"
        "print(*(one for one in heavy if one in sys.modules))"
    )

    def seconds() -> float:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        assert lines[1] == ""
        return float(lines[0])

    assert shortest(seconds, 0.1) < 0.1
