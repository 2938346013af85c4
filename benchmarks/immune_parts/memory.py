"""Memory of a thousand watched functions, a function: its wrapper, what it learned, its newest calls.

Each figure is of a fresh process: private memory of the operating system's count, after less before. Pages of
programs and libraries aren't in it: they are private as long as no other process runs the same ones.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from cloister.immune import ImmuneSettings
from cloister.immune.observation import Entered, Observed
from cloister.immune.settings import StorageSettings
from cloister.immune.wrapping.build import build
from immune_parts._figures import Figures, Row, Target
from immune_parts._machine import active_core
from immune_parts._wrappers import new_brain
from shared_data import AbsentError

FUNCTIONS = 1000
KB = "KB a function"
WHOLE, ALONE = "with 1,000 calls kept", "without the calls kept"
TARGETS = (Target(WHOLE, KB, "at most", 52.0),)
_MAPS = Path("/proc/self/smaps_rollup")


def measure(share: float = 1.0) -> Figures:
    """Kilobytes (1,000 bytes) a function."""
    if not _MAPS.exists():
        raise AbsentError("private memory is read from /proc/self/smaps_rollup")
    count = max(10, round(FUNCTIONS * share))
    wrappers = _child("wrappers", count)
    found: dict[str, Row] = {
        "the wrapper": {KB: wrappers},
        ALONE: {KB: _child("learned", count)},
        WHOLE: {KB: _child("kept", count)},
    }
    for row in found.values():
        row["core"] = active_core()
    return Figures(
        f"Private memory of {count:,} watched functions, wrapper included.",
        found,
        TARGETS,
        ("without: each learned 300 calls and keeps the least number of newest calls that is allowed, 100",),
    )


def _child(what: str, count: int) -> float:
    command = [sys.executable, "-c", f"from immune_parts.memory import grow; grow({what!r}, {count})"]
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def grow(what: str, count: int) -> None:
    """Watch so many functions in this process and print what each took, in KB."""
    kept = 1000 if what == "kept" else 100
    with tempfile.TemporaryDirectory() as folder:
        _grow(what, count, kept, folder)


def _grow(what: str, count: int, kept: int, folder: str) -> None:
    # As in a service, the state is on the disk.
    settings = StorageSettings(trace_buffer_size=kept, directory=folder)
    brain = new_brain(ImmuneSettings(storage=settings))
    # What loads or grows at the first function isn't a function's.
    alive = [_watched(brain, number, what, kept) for number in range(5)]
    before = _private_kb()
    alive += [_watched(brain, number, what, kept) for number in range(5, 5 + count)]
    print(json.dumps((_private_kb() - before) / count))
    del alive
    brain.close()


def _watched(brain: object, number: int, what: str, kept: int) -> object:
    space: dict[str, object] = {"__name__": f"service.part_{number}"}
    exec(f"def function_{number}(a, b=1, *, c=None):\n    return a", space)
    wrapper, gate = build(space[f"function_{number}"])  # type: ignore[arg-type]
    if what == "wrappers":
        return wrapper
    chance = random.Random(number)
    cell = brain.cell(gate.name)  # type: ignore[attr-defined]
    at = 0.0
    for _ in range(max(300, kept)):
        at += chance.expovariate(50.0)
        caller = f"service.views:view_{chance.randrange(4)}"
        entered = Entered(at, chance.randint(1, 200), caller, 1, 0, teaches=True)
        cell.leave(Observed(entered, chance.lognormvariate(-9.0, 0.4), chance.random() < 0.01))
    return wrapper, cell


def _private_kb() -> float:
    lines = _MAPS.read_text().splitlines()
    return sum(int(line.split()[1]) * 1.024 for line in lines if line.startswith("Private_Dirty:"))
