"""A watcher for each test; nothing is watched afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.immune.wrapping.watching import KeepingWatcher, watching


@pytest.fixture(autouse=True)
def _not_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIC_DISABLED", raising=False)


@pytest.fixture
def watcher() -> Iterator[KeepingWatcher]:
    with watching() as one:
        yield one
