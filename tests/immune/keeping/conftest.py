"""A clock that is set by hand, a state in a folder, and calls to keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.immune.keeping import DetectorRegistry, StateStore, pattern_key
from cloister.immune.keeping.store import NAME
from cloister.immune.observation import Entered, Observed

START = 1_790_000_000.0
FUNCTION = "shop.orders:place"


class HandClock:
    """Stands where it is put, backwards too."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def call(
    duration: float = 0.01,
    *,
    at: float = 0.0,
    size: int = 10,
    caller: str = "shop.web:handle",
    failed: bool = False,
) -> Observed:
    return Observed(Entered(at, size, caller, calls=1, errors=0, teaches=True), duration, failed)


def keep_as_it_is(text: str) -> str:
    return text


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


@pytest.fixture
def store(path: Path, hand: HandClock) -> Iterator[StateStore]:
    opened = StateStore(path, hand)
    yield opened
    opened.close()


@pytest.fixture
def registry(store: StateStore) -> DetectorRegistry:
    return DetectorRegistry(store, pattern_key(None), 90, keep_as_it_is)
