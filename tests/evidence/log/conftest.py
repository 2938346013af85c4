"""Where a log may lie: a test that asks for a place runs once on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evidence.log.places import Place, drop_logs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield path
        return
    url = request.getfixturevalue("postgresql")
    yield url
    drop_logs(url)
