"""A candidate that failed is tried again by the process that watches its function, once an operator asked."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.core.keys import EphemeralKeyStore
from cloister.immune.acting.containment import Stage
from cloister.immune.brain import Brain
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import Detector, DetectorState, Happened, pattern_of
from cloister.immune.keeping.events import StateEvent
from cloister.immune.observation import Decision, Entered, Observed, Score
from cloister.immune.operating import Operator
from cloister.immune.settings import ImmuneSettings
from tests.immune.keeping.test_detectors import calls, scorer

NAME = "tests.shop:export"
START = 1_790_000_000.0
FOUND = Score(96.0, 1e-6, "size", 70.0)
ROOT = Path(__file__).resolve().parents[2]


class Told:
    """Where events go."""

    def __init__(self) -> None:
        self.events: list[StateEvent] = []

    def decided(self, function: str, decision: Decision) -> None:
        """Decisions aren't looked at."""

    def happened(self, event: StateEvent) -> None:
        """Keep it."""
        self.events.append(event)

    def trials(self) -> list[str]:
        return [one.reason for one in self.events if one.kind is Happened.DETECTOR_VALIDATED]


class Service:
    """A process that watches one function, on a clock of its own."""

    def __init__(self, folder: Path, promotion: str = "operator", now: float = 0.0) -> None:
        self.now, self._chance = now, random.Random(7)
        self.told = Told()
        self.brain = Brain(
            ImmuneSettings.model_validate(
                {
                    "storage": {"directory": str(folder)},
                    "effector": {"enforcing": [NAME], "promotion": promotion},
                }
            ),
            EphemeralKeyStore().generate("tests"),
            self.told,
            redact=str,
            switched_off=lambda: False,
            changed=lambda _: None,
            matured=lambda _name, _learned: None,
            clock=self.since_1970,
            monotonic=lambda: self.now,
        )
        self.cell = self.brain.cell(NAME)

    def since_1970(self) -> float:
        return START + self.now

    def run(self, count: int, size: int = 0) -> None:
        for _ in range(count):
            self.now += 0.01
            entered = Entered(self.now, size or self._chance.randint(1, 6), "tests:caller", 1, 0, True)
            self.cell.enter(entered)
            self.cell.leave(Observed(entered, 2e-5 * self._chance.lognormvariate(0.0, 0.25), False))

    def failed(self) -> int:
        """The number of a candidate whose trial failed."""
        registry = self.brain.registry
        made, _ = registry.store_detector(NAME, pattern_of(NAME, FOUND), 80.0, FOUND.reason)
        registry.validate(made.id, calls(6), scorer)
        return made.id

    def candidate(self, number: int) -> Detector:
        return self.brain.registry.detector(number)


@pytest.fixture
def service(folder: Path) -> Iterator[Service]:
    made = Service(folder)
    made.run(300)
    yield made
    made.brain.close()


@pytest.fixture
def retry(folder: Path, service: Service) -> Callable[[int], StateEvent]:
    """What an operator in another process does."""

    def ask(number: int) -> StateEvent:
        with Operator(folder, "dana") as operator:
            operator.store.clock = service.since_1970
            return operator.retry(number)

    return ask


def test_a_running_process_tries_it_on_a_hundred_ordinary_calls_from_the_request_on(
    service: Service, retry: Callable[[int], StateEvent]
) -> None:
    number = service.failed()
    service.run(250)
    assert service.told.trials() == []
    assert retry(number).kind is Happened.RETRY_ASKED
    service.run(99)
    assert service.told.trials() == []
    service.run(101)
    assert service.told.trials() == ["0 of 100 ordinary calls flagged: may be promoted"]
    assert service.candidate(number).state is DetectorState.CANDIDATE
    service.run(300)
    assert len(service.told.trials()) == 1


def test_what_it_failed_on_before_the_request_is_not_what_it_is_tried_on(
    service: Service, retry: Callable[[int], StateEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = service.failed()
    service.run(250)
    asked_at = service.now
    tried: list[Observed] = []
    validate = service.brain.registry.validate

    def noted(number: int, ordinary: tuple[Observed, ...], scored: object) -> object:
        tried.extend(ordinary)
        return validate(number, ordinary, scored)  # type: ignore[arg-type]

    monkeypatch.setattr(service.brain.registry, "validate", noted)
    retry(number)
    service.run(450)
    assert len(tried) == 100
    assert min(one.entered.at for one in tried) >= asked_at


def test_the_policy_promotes_what_passes_at_last(folder: Path) -> None:
    service = Service(folder, promotion="policy")
    service.run(300)
    number = service.failed()
    service.brain.registry.retry(number, "dana")
    service.run(300)
    assert service.candidate(number).state is DetectorState.ACTIVE
    assert [one.by for one in service.told.events if one.kind is Happened.DETECTOR_PROMOTED] == ["policy"]
    service.brain.close()


def test_one_that_fails_again_waits_for_the_next_request(
    service: Service, retry: Callable[[int], StateEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = service.failed()
    monkeypatch.setattr(type(service.cell), "_scores_of", lambda _, some: {id(one): FOUND for one in some})
    retry(number)
    service.run(500)
    assert service.told.trials() == ["100 of 100 ordinary calls flagged: not eligible"]
    monkeypatch.undo()
    service.run(300)
    assert len(service.told.trials()) == 1
    retry(number)
    service.run(300)
    assert service.told.trials()[1:] == ["0 of 100 ordinary calls flagged: may be promoted"]


def test_calls_of_a_suspicion_are_none_that_it_is_tried_on(
    service: Service, retry: Callable[[int], StateEvent]
) -> None:
    number = service.failed()
    retry(number)
    service.run(50)
    service.run(3, size=400)
    assert service.brain.effector.state(NAME).stage is Stage.CONTAIN
    service.run(300)
    assert service.candidate(number).waits
    service.brain.effector.release(NAME, service.now)
    service.run(300)
    assert not service.candidate(number).waits


def test_a_request_from_before_a_restart_is_taken_up_by_the_next_process(
    service: Service, folder: Path, retry: Callable[[int], StateEvent]
) -> None:
    number = service.failed()
    retry(number)
    service.run(50)
    service.brain.close()
    following = Service(folder, now=service.now + 20)
    following.run(300)
    assert len(following.told.trials()) == 1
    assert not following.candidate(number).waits
    following.brain.close()


def test_of_two_processes_one_tries_it(
    service: Service, folder: Path, retry: Callable[[int], StateEvent]
) -> None:
    number = service.failed()
    neighbour = Service(folder, now=service.now)
    retry(number)
    for _ in range(4):
        service.run(100)
        neighbour.run(100)
    assert len(service.told.trials() + neighbour.told.trials()) == 1
    neighbour.brain.close()


def test_a_request_that_was_rolled_back_or_whose_time_is_up_is_not_followed(
    service: Service, folder: Path, retry: Callable[[int], StateEvent]
) -> None:
    number = service.failed()
    other, _ = service.brain.registry.store_detector(NAME, b"other", 80.0, "errors")
    service.brain.registry.validate(other.id, calls(0), scorer)
    service.brain.registry.promote(other.id, "dana")
    retry(number)
    with Operator(folder, "dana") as operator:
        operator.roll_back(NAME, operator.snapshots(NAME)[0].id)
    service.run(400)
    assert service.told.trials() == []
    retry(number)
    service.now += 90 * 86_400
    service.run(400)
    assert service.told.trials() == []


def test_a_store_that_is_busy_at_a_look_is_asked_at_the_next(
    service: Service, retry: Callable[[int], StateEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = service.failed()
    retry(number)

    def busy(_: str) -> tuple[tuple[int, float], ...]:
        raise ImmuneError("immune.state_unusable", "The state database can't be used now (SQLITE_BUSY).")

    monkeypatch.setattr(service.brain.registry, "to_try", busy)
    service.run(300)
    assert service.candidate(number).waits
    monkeypatch.undo()
    service.run(100)
    assert not service.candidate(number).waits


def test_a_candidate_that_nobody_tried_is_tried_by_the_next_process(folder: Path) -> None:
    before = Service(folder)
    made, _ = before.brain.registry.store_detector(NAME, pattern_of(NAME, FOUND), 80.0, FOUND.reason)
    before.run(50)
    assert before.candidate(made.id).waits
    before.brain.close()
    after = Service(folder, now=1000.0)
    after.run(300)
    assert not after.candidate(made.id).waits
    after.brain.close()


def test_a_trial_that_a_busy_store_kept_back_is_made_at_the_next_look(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = service.brain.registry
    numbers = [
        registry.store_detector(NAME, pattern, 80.0, FOUND.reason)[0].id for pattern in (b"first", b"second")
    ]

    def busy(*_: object) -> None:
        raise ImmuneError("immune.state_unusable", "The state database can't be used now (SQLITE_BUSY).")

    monkeypatch.setattr(registry, "validate", busy)
    with pytest.raises(ImmuneError, match="SQLITE_BUSY"):
        service.run(200)
    assert all(service.candidate(one).waits for one in numbers)
    monkeypatch.undo()
    service.run(200)
    assert not any(service.candidate(one).waits for one in numbers)


def test_the_service_says_that_a_candidate_waits_again(
    service: Service, retry: Callable[[int], StateEvent]
) -> None:
    from cloister.immune.remote_brain import RemoteBrain
    from cloister.immune.service.brain_port import WatchdogState

    remote = RemoteBrain(service.brain, lambda: next(iter(WatchdogState)))
    number = service.failed()
    assert remote.metrics().sandbox_queue_length == 0
    retry(number)
    assert remote.metrics().sandbox_queue_length == 1


WATCHED = """
import sys
import time
from cloister.immune import monitor
from cloister.immune.protection import Protection
from cloister.immune.settings import ImmuneSettings

@monitor(name="tests.shop:export")
def export(amount):
    time.sleep(0.001)
    return amount

settings = ImmuneSettings.model_validate({"storage": {"directory": sys.argv[1]}})
with Protection(settings).start():
    print("on", flush=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        export(1)
"""


def test_a_service_follows_what_a_command_asks_in_another_process(folder: Path) -> None:
    with Operator(folder, "tester") as operator:
        registry = operator.registry
        made, _ = registry.store_detector(NAME, b"p", 80.0, FOUND.reason)
        first, _ = registry.validate(made.id, calls(6), scorer)
        words = ("detectors", "retry", str(made.id), "--directory", str(folder))
        running = subprocess.Popen(
            [sys.executable, "-c", WATCHED, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "on\n"
            subprocess.run(
                [sys.executable, "-m", "cloister.cli.pic", *words],
                check=True,
                cwd=folder,
                timeout=60,
            )
            until = time.monotonic() + 50
            while registry.detector(made.id).waits and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            running.kill()
            running.wait()
        found = registry.detector(made.id)
    assert found.retry_at is None
    assert found.verdict is not None
    assert (found.verdict.total, found.verdict.at > first.at) == (100, True)
