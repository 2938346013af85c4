"""Nine faults that a system of this kind was seen to have, each with what would find it here.

The numbers are those of measurements on that system. Each test asks for the one thing that the fault would
break, on the parts as they are put together; the tests that it names look closer.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hashlib
import inspect
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.core.redaction import Redactor
from cloister.immune import CallBlocked, ImmuneSettings, monitor
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_export import verify_audit
from cloister.immune.audit_folder import AuditFolder, open_audit
from cloister.immune.detection import new_detector
from cloister.immune.detection.detector import DetectorSettings
from cloister.immune.generators import Deviation, Pattern, deviations
from cloister.immune.generators.draws import Draws
from cloister.immune.kpi import detection
from cloister.immune.observation import Entered, Observed
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.wrapping.arguments import ArgumentHasher
from tests.conftest import ROOT
from tests.immune.scene import SteppingClock
from tests.immune.wrapping.watching import watching
from tests.timing import processor_seconds, shortest

NAME = "tests.original:export"
RAN: list[int] = []


@monitor(name=NAME)
def export(ids: list[int]) -> int:
    RAN.append(len(ids))
    return sum(ids)


def call_each(function: Callable[[list[int]], int], lists: list[list[int]]) -> None:
    """The caller of all ordinary calls: another one would be unusual by itself."""
    for one in lists:
        function(one)


def some_lists(chance: random.Random) -> list[list[int]]:
    return [[chance.randrange(1000) for _ in range(chance.randint(1, 6))] for _ in range(500)]


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Protection]:
    """A function that may be blocked, approved, and 500 ordinary calls later."""
    folder, chance = tmp_path / "state", random.Random(5)
    folder.mkdir(mode=0o700)
    settings = ImmuneSettings.model_validate(
        {
            "cellagent": {"sampling": "every-call"},
            "effector": {"enforcing": [NAME], "promotion": "policy"},
            "egress": {"enabled": False},
            "storage": {"directory": str(folder)},
        }
    )
    with Protection(settings, monotonic=SteppingClock()).start() as protection:
        with Operator(folder, "tester") as operator:
            operator.approve(NAME)
        protection.brain.anchors.refresh(NAME)
        call_each(export, some_lists(chance))
        yield protection


def test_1_a_block_blocks(protected: Protection) -> None:
    """The exception of a block was caught and printed as "non-fatal"; the function ran.

    test_blocking.py::test_a_block_raises_before_the_body_runs_and_says_function_reason_and_event
    """
    blocked = 0
    for _ in range(60):
        before = len(RAN)
        try:
            export(list(range(400)))
        except CallBlocked:
            blocked += 1
            assert len(RAN) == before, "the body ran"
    assert blocked > 30


def test_2_every_observed_call_is_scored_and_what_is_unusual_is_found(protected: Protection) -> None:
    """A cache in front of the detector let 1,810 of 1,810 calls pass unscored.

    test_protection.py::test_an_attack_that_nobody_promoted_a_detector_for_is_seen_and_not_blocked
    """
    cell = protected.brain.cell(NAME)
    assert cell.detector.learned >= 450
    assert cell.detector.judging
    with contextlib.suppress(CallBlocked):
        export(list(range(400)))
    assert protected.brain.registry.detectors(NAME)


def test_3_a_coroutine_stays_one_and_its_duration_is_of_its_run() -> None:
    """A coroutine of 50 ms was recorded as 0.0006 ms, and was no coroutine function any more.

    test_kinds.py::test_a_coroutines_duration_is_what_it_ran_itself
    """
    with watching() as watcher:

        @monitor
        async def work() -> None:
            until = time.perf_counter() + 0.005
            while time.perf_counter() < until:
                pass

        assert inspect.iscoroutinefunction(work)
        asyncio.run(work())
        (seen,) = watcher.sensor("work").left
    assert seen.duration >= 0.005


def test_4_what_is_ordinary_makes_next_to_no_candidate() -> None:
    """A score above 80 was reached at 0.88 standard deviations: by 37.6 % of Gaussian calls.

    test_score.py::test_a_score_above_80_means_a_probability_below_alpha
    """
    draw = random.Random(7)
    shapes: list[Callable[[], float]] = [
        lambda: max(1e-4, draw.gauss(0.01, 0.001)),
        lambda: draw.lognormvariate(-5.0, 0.5),
    ]
    for shape in shapes:
        detector, flagged, now = new_detector("tail", DetectorSettings()), 0, 0.0
        for number in range(4000):
            now += draw.expovariate(10.0)
            call = Observed(Entered(now, 3, "a:b", 1, 0, True), shape(), False)
            flagged += number >= 1000 and detector.score(call).value > 80
            detector.learn(call)
        assert flagged / 3000 < 0.01


def test_5_an_attack_counts_as_found_by_its_session() -> None:
    """Nine of ten events of its "burst" had ordinary values: no detector could find 75 % of events.

    test_kpi.py::test_the_true_positive_rate_is_the_detected_share_of_the_malicious_ones_exactly
    """
    sessions = [deviations(Pattern.BURST, Draws(str(seed))) for seed in range(30)]
    perfect = [[one != Deviation() for one in session] for session in sessions]
    by_event = detection((True, flagged) for session in perfect for flagged in session)
    by_session = detection((True, any(session)) for session in perfect)
    assert by_event.true_positive_rate == pytest.approx(0.1)
    assert by_session.true_positive_rate == 1.0


def test_6_an_audit_with_a_line_less_moved_or_cut_off_is_refused(tmp_path: Path) -> None:
    """Its verification took each of the three for whole.

    test_audit.py::test_an_entry_that_is_edited_deleted_moved_or_cut_off_is_found
    """
    folder = AuditFolder(tmp_path / "audit")
    trail = open_audit(folder)
    for number in range(6):
        at = "2026-11-21T14:00:00.000000Z"
        entry = AuditEvent(at, AuditKind.DECISION, "allow", NAME, 1.0, "nothing unusual", f"{number:016x}")
        assert trail.record_durably(entry)
    trail.close()
    assert verify_audit(folder).accepted
    (path,) = folder.segments.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in (lines[:2] + lines[3:], [*lines[:2], lines[3], lines[2], *lines[4:]], lines[:-3]):
        path.write_bytes(b"".join(changed))
        assert not verify_audit(folder).accepted


@pytest.mark.timed
def test_7_redaction_takes_linear_time_on_what_is_nearly_an_address() -> None:
    """50 KB of ``a.a.a.`` took 1.28 s.

    test_redaction.py::test_a_hundred_kilobytes_of_any_shape_take_linear_time
    """
    clean = Redactor().clean
    assert shortest(lambda: processor_seconds(lambda: clean("a." * 25_000)), 0.05) < 0.05


def test_8_a_hash_of_an_argument_is_keyed(protected: Protection) -> None:
    """SHA-256 without a key: all social security numbers in thirteen minutes on one core.

    test_telemetry.py::test_hashes_are_keyed_so_that_no_other_process_can_try_all_values
    """
    number = "123-45-6789"
    here, elsewhere = (ArgumentHasher(time.monotonic).describe([number]).hashes for _ in range(2))
    assert here != elsewhere
    for plain in (number, repr(number), f"str\0{len(number)}:{number}"):
        for name in ("sha256", "blake2b", "md5"):
            assert not hashlib.new(name, plain.encode()).hexdigest().startswith(here[0])


@pytest.mark.timed
def test_9_a_call_that_is_judged_by_the_whole_brain_costs_less_than_half_of_what_it_did(
    protected: Protection,
) -> None:
    """104 us of processor time for each judged call, with a lock and the audit's file on its way.

    test_overhead.py::test_the_median_latency_of_a_watched_call_is_within_a_twentieth_of_a_bare_one
    """
    plain, chance = inspect.unwrap(export), random.Random(9)
    given = some_lists(chance)
    learned = protected.brain.cell(NAME).detector.learned

    def above_bare() -> float:
        bare = processor_seconds(lambda: call_each(plain, given))
        return (processor_seconds(lambda: call_each(export, given)) - bare) / len(given)

    taken = shortest(above_bare, 52e-6, least=3)
    assert taken < 52e-6
    assert protected.brain.cell(NAME).detector.learned > learned


def test_each_fault_has_a_test_and_each_names_another_that_is_there() -> None:
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    tests = {one.name: ast.get_docstring(one) or "" for one in tree.body if isinstance(one, ast.FunctionDef)}
    numbered = {name: said for name, said in tests.items() if re.match(r"test_[0-9]_", name)}
    assert [int(name[5]) for name in numbered] == list(range(1, 10))
    for said in numbered.values():
        file, _, name = said.rsplit("\n", 1)[-1].strip().partition("::")
        paths = [*(ROOT / "tests" / "immune").rglob(file), *(ROOT / "tests" / "core").rglob(file)]
        assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in paths), said
