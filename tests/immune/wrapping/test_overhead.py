"""What watching costs a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest

from cloister.immune.wrapping import Sampling, monitor
from tests.immune.wrapping.watching import watching


def _sum_up() -> int:
    return sum(range(1000))


def _seconds(function: Callable[[], int]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


@pytest.mark.timed
def test_the_median_latency_of_a_watched_call_is_within_a_twentieth_of_a_bare_one() -> None:
    """PIC-P1: Median latency with PIC is at most 1.05 times without.

    For a function of some 10 us under the default sampling; bare and watched calls take turns, so that both
    have the same neighbours. The best of five rounds counts: a neighbour that comes or goes moves one round.
    """
    with watching(Sampling()):
        watched = monitor(_sum_up)

        def ratio() -> float:
            bare_times, watched_times = [], []
            for _ in range(3000):
                bare_times.append(_seconds(_sum_up))
                watched_times.append(_seconds(watched))
            return statistics.median(watched_times) / statistics.median(bare_times)

        assert min(ratio() for _ in range(5)) <= 1.05
