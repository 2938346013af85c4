"""One warm server for each way to start it, for all tests of the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from cloister.enclave.sealed import SealedHost
from tests.enclave.sealed.scene import Violations, started, workers_of

if sys.platform != "linux":
    pytest.skip("sealed workers need Linux", allow_module_level=True)


@pytest.fixture(scope="session")
def _own() -> Iterator[tuple[SealedHost, Violations]]:
    with started("hostile_server") as made:
        yield made


@pytest.fixture(scope="session")
def _ordinary() -> Iterator[tuple[SealedHost, Violations]]:
    if os.getuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    with started("ordinary_server") as made:
        yield made


@pytest.fixture
def sealed_host(_own: tuple[SealedHost, Violations]) -> Iterator[SealedHost]:
    """A host started by whoever runs the tests."""
    yield _own[0]
    assert workers_of(_own[0]) == [], "the test left workers"


@pytest.fixture(params=["as whoever runs this", "as an ordinary user"])
def host_and_violations(request: pytest.FixtureRequest) -> Iterator[tuple[SealedHost, Violations]]:
    """A host and its sink, emptied; root's and an ordinary user's."""
    name = "_own" if request.param == "as whoever runs this" else "_ordinary"
    made: tuple[SealedHost, Violations] = request.getfixturevalue(name)
    made[1].clear()
    yield made
    assert workers_of(made[0]) == [], "the test left workers"
