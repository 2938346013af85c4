"""What looking after the baselines takes of the processor, a minute, with 100 and 1,000 functions.

A function's upkeep is on the way of its every hundredth observed call, at most once a second; besides, what
was learned is kept once a minute and the status is written every two seconds. Each is measured alone, with
the state in a folder and a thousand calls kept of each function; the minutes are put together from that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cloister.immune import ImmuneSettings, monitor
from cloister.immune.protection import Protection
from cloister.immune.settings import StorageSettings
from immune_parts._figures import Figures, Row
from immune_parts._machine import active_core
from immune_parts.scoring import observations

COUNTS = (100, 1000)
_KEPT, _SAVES, _BEATS, _MOST_LOOKS = 1000, 1, 30, 60
_USUAL_LOOKS = 6


def measure(share: float = 1.0) -> Figures:
    """Processor time of each part, and seconds of it a minute."""
    found: dict[str, Row] = {}
    for full in COUNTS:
        count = max(5, round(full * share))
        found[f"{full:,} functions"] = _with(count, full / count, max(10, round(_KEPT * share)))
    return Figures(
        "Upkeep: processor time of each part, and what a minute of them takes.",
        found,
        (),
        (
            f"CPU s a minute: each function looked after {_USUAL_LOOKS} times (10 observed calls a second)",
            "at most: 60 times, as often as is allowed (100 observed calls a second of each function)",
        ),
    )


def _with(count: int, times: float, kept: int) -> Row:
    """The figures with so many functions, times what is missing to the full number."""
    calls = observations(203)[:kept]
    functions = [monitor(name=f"service.part_{number}:work")(_work()) for number in range(count)]
    now = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        settings = ImmuneSettings(storage=StorageSettings(directory=folder))
        with Protection(settings, monotonic=lambda: now[0]).start() as protection:
            brain = protection.brain
            names = list(brain.cells())
            for name in names:
                for one in calls:
                    brain.cell(name).leave(one)
            looks = _spent(lambda: [brain.upkeep.look(name, blocks=False) for name in names]) / count
            now[0] += 70.0
            saving_looks = _spent(lambda: [brain.upkeep.look(name, blocks=False) for name in names]) / count
            save = _spent(brain.save) * times
            status = min(_spent(protection._status.write) for _ in range(3)) * times
            size = sum(one.stat().st_size for one in Path(folder).glob("immune.db*")) * times
    del functions
    once_a_minute = saving_looks * count * times + save * _SAVES + status * _BEATS
    return {
        "a look, us": looks * 1e6,
        "a look that saves calls, us": saving_looks * 1e6,
        "save all, ms": save * 1e3,
        "status, ms": status * 1e3,
        "CPU s a minute": once_a_minute + looks * count * times * (_USUAL_LOOKS - 1),
        "at most": once_a_minute + looks * count * times * (_MOST_LOOKS - 1),
        "state, MB": size / 1e6,
        "core": active_core(),
    }


def _work() -> Callable[[], int]:
    def work() -> int:
        return 1

    return work


def _spent(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
