"""A folder of a protection's own, a clock that steps, and no faults of the tests before."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.immune.wrapping import FAULTS
from tests.immune.scene import SteppingClock


@pytest.fixture(autouse=True)
def _no_faults_yet() -> None:
    FAULTS.forget()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()
