"""The service under more events than it is ever meant for (PIC-X11)."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from cloister.immune.service import HttpPost, Sender, TelemetryForm, encode_batch
from tests.immune.service.brains import MemoryBrain, event, running
from tests.nightly import needs

SECONDS = 120


class Counting(MemoryBrain):
    """Keeps no event."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def take(self, events: Sequence[TelemetryForm]) -> None:
        self.number += len(events)


class Told:
    """One of two hundred functions, told without building it anew: the sender isn't what is measured."""

    def __init__(self, number: int) -> None:
        self._told = event(f"m:f{number}", number)

    def as_json(self) -> dict[str, Any]:
        return self._told


def resident() -> int:
    """Bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.nightly
@pytest.mark.timeout(SECONDS * 3)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
def test_ten_thousand_events_a_second_leave_no_memory_behind_and_none_is_lost() -> None:
    """PIC-X11: stress, with the sender and the service in one process."""
    needs(120)
    brain = Counting()
    events = [Told(number) for number in range(200)]
    with running(brain, rate_per_second=20_000.0, burst=100_000, function_rate=20_000.0) as client:
        sender: Sender[Told] = Sender(encode_batch, HttpPost(client.url), batch_size=500, capacity=200_000)
        began, offered, at_first = time.monotonic(), 0, 0
        while (elapsed := time.monotonic() - began) < SECONDS:
            due = int(elapsed * 10_000) - offered
            for number in range(due):
                sender.offer(events[(offered + number) % 200])
            offered += due
            if not at_first and elapsed > SECONDS / 4:
                at_first = resident()
            time.sleep(0.01)
        grown = resident() - at_first
        sender.close(30.0)
        lost = offered - brain.number
    load = os.getloadavg()[0]
    print(f"{offered} events, {lost} lost, memory {grown / at_first:+.2%}, load {load:.1f}", file=sys.stderr)
    assert lost <= 0.001 * offered
    assert grown < 0.05 * at_first
