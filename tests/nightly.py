"""How slow tests share a night: each tries its cases in some order until its share of the time is up.

`make nightly` sets `CLOISTER_NIGHTLY_SECONDS`, the share of one test, and `CLOISTER_NIGHTLY_SEED`, which
gives every round another order. Without them a test tries everything.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

T = TypeVar("T")


def nightly_seed() -> int:
    """The seed of this round."""
    return int(os.environ.get("CLOISTER_NIGHTLY_SEED", "0"))


LONG_NIGHT = 30.0
"""The share of a test, in seconds, from which on a night has time for those that need more than theirs."""


def needs(seconds: float) -> None:
    """Skip, by name, a test that can't be cut into cases and is too long for a short night.

    Fewer cases would have to be judged by looser bounds. A night of the default length runs it whole.
    """
    share = float(os.environ.get("CLOISTER_NIGHTLY_SECONDS", "inf"))
    if share < min(seconds, LONG_NIGHT):
        pytest.skip(f"takes about {seconds:.0f} s in one piece; a share of this night is {share:.0f} s")


def spread(cases: Sequence[T], record_property: Callable[[str, object], None]) -> Iterator[T]:
    """The cases in this round's order, all of them or as many as the time allows, at least one.

    Args:
        cases: Everything there is to try.
        record_property: pytest's fixture, by which the runner learns how many were tried.
    """
    seconds = float(os.environ.get("CLOISTER_NIGHTLY_SECONDS", "inf"))
    order = list(range(len(cases)))
    if seconds != float("inf"):
        random.Random(nightly_seed()).shuffle(order)
    started, tried = time.monotonic(), 0
    try:
        for place in order:
            yield cases[place]
            tried += 1
            if time.monotonic() - started >= seconds:
                break
    finally:
        record_property("cases_tried", tried)
        record_property("cases", len(cases))
