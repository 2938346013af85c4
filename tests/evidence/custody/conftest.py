"""Parties with logs, for every test of custody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evidence.custody.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A hub and two sites, whose logs are empty."""
    with House(tmp_path) as opened:
        yield opened
