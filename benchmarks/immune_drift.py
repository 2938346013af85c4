"""False drift alarms of a quick function while neighbours come and go, by what its time is measured in.

The demo's service runs as it is, over HTTP from another process, while busy loops begin and end beside it.
Of each observed call three times are taken: the wall clock, the processor time of its thread, and what the
scoring of that call took right after it. Then the same calls are replayed: every hundred calls an anchor is
taken from a hundred, and up to 3,000 calls after it are compared with that. Nothing about the function
changes, so each alarm is a false one.

Use: python benchmarks/immune_drift.py [--seconds 4] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from cloister.immune.cell import Cell
from cloister.immune.demo_client import Client
from cloister.immune.demo_service import FUNCTION, RECORDS, Records, running
from cloister.immune.detection.yardstick import Yardstick
from cloister.immune.keeping.approval import LASTING
from cloister.immune.keeping.drift import YARDSTICK, Band, drift_of
from cloister.immune.observation import Observed
from cloister.immune.protection import Protection
from cloister.immune.settings import EffectorSettings, ImmuneSettings
from cloister.immune.wrapping.build import gate_of

NEIGHBOURS: Final = (0, 2, 1, 3, 2, 0, 2)
SETTLE, TAKEN, COMPARED, EVERY, RATIO = 100, 100, 3000, 100, 1.5


class Call(NamedTuple):
    """What one observed call took, in three measures; seconds."""

    wall: float
    processor: float
    scoring: float


def observed_calls(seconds: float) -> list[Call]:
    """Calls of the demo's function, observed as usual, while neighbours come and go."""
    calls: list[Call] = []
    spent: dict[int, float] = {}
    gate = gate_of(Records.read_records)
    assert gate is not None
    body, leave = gate.function, Cell.leave

    def timed(*arguments: object) -> object:
        began = time.thread_time()
        try:
            return body(*arguments)
        finally:
            spent[threading.get_ident()] = time.thread_time() - began

    def noted(self: Cell, observed: Observed) -> None:
        began = time.perf_counter()
        self.detector.score(observed)
        scoring = time.perf_counter() - began
        calls.append(Call(observed.duration, spent.get(threading.get_ident(), 0.0), scoring))
        leave(self, observed)

    chance = random.Random(1)
    settings = ImmuneSettings(effector=EffectorSettings(enforcing=(FUNCTION,)))
    gate.function, Cell.leave = timed, noted  # type: ignore[method-assign]
    try:
        with Protection(settings).start(), running(Records(1)) as port, Client(port) as client:
            for count in NEIGHBOURS:
                with neighbours(count):
                    until = time.monotonic() + seconds
                    while time.monotonic() < until:
                        client.ask(
                            [
                                [chance.randrange(RECORDS) for _ in range(chance.randint(1, 5))]
                                for _ in range(25)
                            ]
                        )
    finally:
        gate.function, Cell.leave = body, leave  # type: ignore[method-assign]
    return calls


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Busy loops beside, as long as the block runs."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.wait()


def levels(series: list[float]) -> list[float]:
    """The running level of a series."""
    stick, found = Yardstick(), []
    for one in series:
        stick.take(one)
        found.append(stick.level)
    return found


def false_alarms(duration: list[float], scoring: list[float] | None, lasting: int) -> tuple[int, int]:
    """Anchors after which an alarm came, and all anchors."""
    alarms = anchors = 0
    for start in range(SETTLE, len(duration) - 1000 - TAKEN, EVERY):
        taken = slice(start, start + TAKEN)
        bands = {"duration": Band(min(duration[taken]), max(duration[taken]))}
        if scoring is not None:
            bands[YARDSTICK] = Band(min(scoring[taken]), max(scoring[taken]))
        anchors += 1
        beyond = 0
        for at in range(start + TAKEN, min(start + TAKEN + COMPARED, len(duration))):
            now = {"duration": duration[at]} | ({} if scoring is None else {YARDSTICK: scoring[at]})
            beyond = 0 if drift_of(FUNCTION, now, bands, RATIO) is None else beyond + 1
            if beyond >= lasting:
                alarms += 1
                break
    return alarms, anchors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each number of neighbours")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    before = os.getloadavg()[0]
    calls = observed_calls(chosen.seconds)
    wall, processor, scoring = (levels([max(one[part], 1e-9) for one in calls]) for part in range(3))
    rows = {
        f"{name}, {'at once' if lasting == 1 else f'for {lasting} calls'}": false_alarms(
            duration, stick, lasting
        )
        for name, duration, stick in (
            ("wall clock", wall, None),
            ("processor time", processor, None),
            ("wall clock against scoring", wall, scoring),
        )
        for lasting in (1, LASTING)
    }
    if chosen.json:
        print(json.dumps({"calls": len(calls), "load_before": before, "false_alarms": rows}, indent=2))
        return
    print(f"{len(calls)} observed calls; load before {before:.1f}")
    for name, (alarms, anchors) in rows.items():
        print(f"{name:<44} {alarms:>4} of {anchors} anchors")


if __name__ == "__main__":
    main()
