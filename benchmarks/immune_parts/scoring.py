"""What judging one observed call costs: a score, then learning from the call; and the whole of a sensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cloister.immune.detection import PercentileDetector, TailDetector
from cloister.immune.generators import BUDGETED, SPIKE_PATTERNS, TraceSensor, attacked_trace
from cloister.immune.observation import Observed
from immune_parts._detectors import EwmaZ, Peer
from immune_parts._figures import Figures, Row, Target
from immune_parts._machine import active_core
from immune_parts._turns import Work, rounds_of, times_of
from immune_parts._wrappers import new_brain

OURS = "tail tables"
US = "us a call"
PURE, COMPILED = 8.0, 1.5
DETECTORS: dict[str, Callable[[], Peer]] = {
    OURS: TailDetector,
    "L2 percentile": PercentileDetector,
    "EWMA z": EwmaZ,
}
_WARM = 1000


def measure(share: float = 1.0) -> Figures:
    """Microseconds of processor time for a call, medians over rounds, on the calls of one unseen trace."""
    calls = observations(203)
    rounds = rounds_of(share, 31)
    works: dict[str, Work] = {name: _judging(make(), calls) for name, make in DETECTORS.items()}
    works["score alone"] = _scoring(TailDetector(), calls)
    works["a whole sensor, before and after a call"] = _sensing(calls)
    times = times_of(works, rounds, slice_seconds=0.02 if share >= 1 else 0.002)
    found: dict[str, Row] = {}
    for name, taken in times.items():
        ordered = sorted(taken)
        found[name] = {
            US: ordered[len(ordered) // 2] / 1000,
            "least": ordered[0] / 1000,
            "core": active_core() if name not in DETECTORS or name == OURS else "",
        }
    bound = PURE if active_core() == "pure" else COMPILED
    return Figures(
        "Judging one observed call: score and learning; thread processor time.",
        found,
        (Target(OURS, US, "at most", bound),),
        ("a whole sensor decides, keeps the call, and looks after the baseline at each hundredth as well",),
    )


def observations(seed: int) -> list[Observed]:
    """What the shipped sampling sees of a trace."""
    sensor = TraceSensor(BUDGETED, seed)
    seen = [sensor.look(call) for call in attacked_trace(seed, patterns=SPIKE_PATTERNS)]
    return [one for one in seen if one is not None]


def _judging(detector: Peer, calls: Sequence[Observed]) -> Work:
    for one in calls[:_WARM]:
        detector.learn(one)

    def step(one: Observed) -> None:
        detector.score(one)
        detector.learn(one)

    return _over(step, calls)


def _scoring(detector: Peer, calls: Sequence[Observed]) -> Work:
    for one in calls[:_WARM]:
        detector.learn(one)
    return _over(detector.score, calls)


def _sensing(calls: Sequence[Observed]) -> Work:
    cell = new_brain().cell("benchmark:scored")

    def step(one: Observed) -> None:
        cell.enter(one.entered)
        cell.leave(one)

    for one in calls[:_WARM]:
        step(one)
    return _over(step, calls)


def _over(step: Callable[[Observed], object], calls: Sequence[Observed]) -> Work:
    place = 0

    def work(count: int) -> float:
        nonlocal place
        chosen = [calls[(place + number) % len(calls)] for number in range(count)]
        place += count
        began = time.thread_time()
        for one in chosen:
            step(one)
        return time.thread_time() - began

    return work
