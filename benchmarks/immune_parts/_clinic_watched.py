"""The clinic's service under protection: the three samplings, and the clocks."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from cloister.immune import ImmuneSettings, monitor
from cloister.immune.settings import CellAgentSettings, StorageSettings
from immune_parts._clinic import create

SHIPPED = "as shipped"
SAMPLINGS = {
    SHIPPED: CellAgentSettings(),
    "every call": CellAgentSettings(sampling="every-call", cpu_threshold=1.0),
    "1:10": CellAgentSettings(sampling="fixed", sampling_rate=0.1),
}


def settings_of(sampling: str, folder: Path) -> ImmuneSettings:
    """Defaults but for the sampling, with the state in a folder."""
    state = folder / "state"
    state.mkdir()
    return ImmuneSettings(cellagent=SAMPLINGS[sampling], storage=StorageSettings(directory=str(state)))


def ours(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function as `application` asks for it."""
    return monitor(name=name)(function)


@contextmanager
def clinic_folder() -> Iterator[Path]:
    """A folder with the database and the templates, as long as the block runs."""
    # Not among temporary files, which the guard of egress doesn't tell apart.
    build = Path(__file__).parents[2] / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clinic-", dir=build) as name:
        create(Path(name))
        yield Path(name)


class Clock(Protocol):
    """What calls are dated by, and who waits for the next request."""

    def __call__(self) -> float:
        """Seconds."""
        ...

    async def wait(self, pause: float) -> None:
        """Let a request begin, so many seconds after the one before ended."""
        ...

    def stand(self) -> None:
        """It has ended."""
        ...


class RealTime:
    """The clock on the wall: who waits leaves the processor to whoever wants it, as a service does."""

    def __call__(self) -> float:
        """Seconds."""
        return time.perf_counter()

    async def wait(self, pause: float) -> None:
        """Sleep until a request begins."""
        await asyncio.sleep(pause)

    def stand(self) -> None:
        """Nothing stands still."""


class OwnClock:
    """The clock of a service that has the machine to itself: it stands still while another way has its turn.

    Nobody sleeps: what lies between two requests is added, and the process works all the time. So it has no
    processor time to spare, like a service on a machine that others use as well.
    """

    def __init__(self) -> None:
        self._passed = 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        """Seconds."""
        since = self._since
        return self._passed if since is None else self._passed + time.perf_counter() - since

    async def wait(self, pause: float) -> None:
        """Let a request begin at once, dated so many seconds after the one before."""
        self._passed += pause
        self._since = time.perf_counter()

    def stand(self) -> None:
        """It has ended."""
        self._passed, self._since = self(), None
