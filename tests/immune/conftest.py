"""A folder of a protection's own, and a clock that steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.immune.scene import SteppingClock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()
