"""What protection takes of a request to the clinic's service, beside other wrappers, turn by turn."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

from cloister.immune.kpi import latency
from cloister.immune.protection import Protection
from cloister.immune.wrapping.gate import Gate
from immune_parts._clinic import application
from immune_parts._clinic_traffic import ask, ordinary
from immune_parts._clinic_watched import SHIPPED, Clock, OwnClock, RealTime, clinic_folder, ours, settings_of
from immune_parts._wrappers import no_op, peers

BARE, OURS, NOTHING = "bare", "cloister", "functools.wraps no-op"
BATCH, ROUNDS = 10, 600
SETTLED, MOST_LEARNED = 1200, 40_000
PACED_ROUNDS, PACED_LEARNED = 200, 6000
"""Where requests really wait for each other, a minute each."""


def overhead(sampling: str, share: float, a_second: float) -> dict[str, Any]:
    """Processor time and latency of ordinary requests, by what the functions are wrapped with.

    Args:
        sampling: of ours.
        share: of the full size.
        a_second: requests that come a second, one after the other; 0 as many as are answered. Other libraries
            are measured beside that only.
    """
    clock: Clock = RealTime() if a_second else OwnClock()
    pause = 1.0 / a_second if a_second else 0.0
    rounds, most = (PACED_ROUNDS, PACED_LEARNED) if a_second else (ROUNDS, MOST_LEARNED)
    with clinic_folder() as folder:
        ways: dict[str, Any] = {
            BARE: application(folder, lambda _name, function: function),
            NOTHING: application(folder, lambda _name, function: no_op(function)),
            OURS: application(folder, ours),
        }
        if sampling == SHIPPED and not a_second:
            ways |= {
                name: application(folder, lambda _name, function, wrap=wrap: wrap(function))
                for name, wrap in peers()[0].items()
            }
        with Protection(settings_of(sampling, folder), monotonic=clock).start() as protection:
            learned = asyncio.run(_learn(ways[OURS], clock, pause, protection, round(most * share)))
            gates = _gates(protection)
            before = {name: (gate.calls, gate.observed) for name, gate in gates.items()}
            cpu, wall = asyncio.run(_in_turns(ways, clock, pause, max(3, round(rounds * share))))
            intervals = {
                name.partition(":")[2]: (gate.calls - before[name][0])
                / max(1, gate.observed - before[name][1])
                for name, gate in gates.items()
            }
    bare = latency(wall[BARE])
    found = {}
    for name in ways:
        times = latency(wall[name])
        pairs = list(zip(cpu[name], cpu[BARE], strict=True))
        found[name] = {
            "CPU us": statistics.median(cpu[name]) * 1e6,
            "above bare, us": statistics.median(one - less for one, less in pairs) * 1e6,
            "of a processor, %": (statistics.median(one - less for one, less in pairs) * a_second * 100),
            "above bare, %": (statistics.median(one / less for one, less in pairs) - 1) * 100,
            "p50, us": times.p50 * 1e6,
            "p95, us": times.p95 * 1e6,
            "p99, us": times.p99 * 1e6,
            "p50 of bare": times.p50 / bare.p50,
            "p95 of bare": times.p95 / bare.p95,
            "p99 of bare": times.p99 / bare.p99,
        }
    return {"rows": found, "one observed in": intervals, "requests learned from": learned}


def _gates(protection: Protection) -> dict[str, Gate]:
    """The gate of each function, by name."""
    return {name: gate for name in protection.brain.cells() for gate in protection._gates(name)}


async def _learn(app: Any, clock: Clock, pause: float, protection: Protection, most: int) -> int:
    """Ordinary requests until the sampling of each function has settled."""
    chance = random.Random(5)
    count = 0
    while count < most and any(gate.observed < SETTLED for gate in _gates(protection).values()):
        await clock.wait(pause)
        await ask(app, ordinary(chance))
        clock.stand()
        count += 1
    return count


async def _in_turns(
    ways: dict[str, Any], clock: Clock, pause: float, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    order, turns = list(ways), random.Random(1)
    for number in range(rounds):
        turns.shuffle(order)
        for name in order:
            # The same requests for all.
            chance = random.Random(number)
            spent = 0.0
            for one in [ordinary(chance) for _ in range(BATCH)]:
                # Another way's turn doesn't date ours; where requests really wait, each of all ways does.
                if name == OURS or pause:
                    await clock.wait(pause)
                at, began = time.perf_counter(), time.thread_time()
                await ask(ways[name], one)
                spent += time.thread_time() - began
                wall[name].append(time.perf_counter() - at)
                if name == OURS:
                    clock.stand()
            cpu[name].append(spent / BATCH)
    return cpu, wall
