"""Watches the code that workers were made of: measured before the server imports it, and on while it runs.

A worker runs what the server loaded, so a change on the disk can't reach it. It still means that somebody
changes what the hospital agreed to, and that the next server would run it. Rules kept here:

1. Every file has a SHA-256 from when the server started: the measured packages' from before it, all others'
   from when it said what it had loaded (`cloister.enclave.sealed.loaded`). What a distribution's record says
   of a file has to be that.
2. Afterwards place, size and times of every file are looked at twice a second or more often, new and missing
   files and distributions included, and what looks different is hashed again. A large file that looks
   different counts as changed without being read: that would take longer than there is.
3. Beside that all contents are read again, a few megabytes at each look.
4. On any change the server and all workers are killed first. Then the alert goes out, with what a statement
   about it needs. A file that can't be read counts as changed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, Self

from cloister.core.canonical import JSON
from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.closing import Closing
from cloister.enclave.errors import SealBroken, SealedError
from cloister.enclave.sealed.fingerprint import (
    NOTHING,
    Fingerprint,
    Named,
    WatchedFiles,
    contents_of,
    place_of,
    take_fingerprint,
)

LOOK_SECONDS: Final = 0.3
_TURNS: Final = 2
"""Looks until every loaded file had its turn; packages, lock and single files have theirs at each."""
READ_BYTES: Final = 4 * 1024**2
_NAMED: Final = 10


class Stoppable(Protocol):
    """What is stopped on a change: a `SealedHost`."""

    def stop(self, reason: SealedError) -> None:
        """Kill everything, now."""
        ...


@dataclass(frozen=True, slots=True)
class CodeChange:
    """A change of what is measured.

    Attributes:
        names: up to ten of the files that differ.
        count: how many differ.
        before: measurement at the start.
        after: measurement now.
        noticed_at: when it was noticed, RFC 3339.
        stopped_after_ms: milliseconds from then until server and workers were dead.
    """

    names: tuple[str, ...]
    count: int
    before: str
    after: str
    noticed_at: str
    stopped_after_ms: float

    def incident_fields(self) -> dict[str, JSON]:
        """The fields of an `Incident` statement."""
        return {
            "incident_class": "code-changed",
            "severity": "critical",
            "detail": f"{self.count} measured files differ, from {self.before[:16]} at the start to "
            f"{self.after[:16]}: {', '.join(self.names)}"[:500],
            "detected_at": self.noticed_at,
            "response": "all sealed workers and their fork server were killed",
        }


AlertSink = Callable[[CodeChange], None]


class IntegrityMonitor(Closing):
    """Watches until it is stopped; use `start`, and as a context manager.

    Args:
        host: what is stopped on a change.
        watched: what is measured.
        baseline: what it was at the start.
        alert: told of a change, once.
        clock: dates it.
    """

    def __init__(
        self,
        host: Stoppable,
        watched: WatchedFiles,
        baseline: Fingerprint,
        alert: AlertSink,
        clock: Clock = system_clock,
    ) -> None:
        self._host, self._watched, self._baseline = host, watched, baseline
        self._alert, self._clock = alert, clock
        self._over = threading.Event()
        self._change: CodeChange | None = None
        self._places = dict(baseline.places)
        loaded = tuple(watched.loaded.paths.items())
        self._turns = tuple(tuple(islice(loaded, turn, None, _TURNS)) for turn in range(_TURNS))
        self._thread = threading.Thread(target=self._watch, name="integrity-monitor", daemon=True)

    @property
    def change(self) -> CodeChange | None:
        """What was noticed."""
        return self._change

    def start(self) -> Self:
        """Look at everything once more, then watch.

        Raises:
            SealBroken: ``sealed.code_changed`` since the baseline; all is stopped, the alert is out.
        """
        if not self._look(self._watched.loaded.paths.items()):
            raise changed_error()
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        try:
            self._watch_on()
        except BaseException:  # nobody watches any more
            self._host.stop(changed_error())
            raise

    def _watch_on(self) -> None:
        reading = self._read_again()
        turn = 0
        while not self._over.wait(LOOK_SECONDS):
            turn = (turn + 1) % _TURNS
            if not self._look(self._turns[turn]):
                return
            differs = next(reading)
            if differs is not None:
                self._stop(*differs)
                return

    def _look(self, loaded: Named) -> bool:
        """Look at what can be listed and at some of the loaded files; False after a change."""
        known, before = Fingerprint(self._places, self._baseline.hashes), self._baseline.hashes
        try:
            listed = take_fingerprint(self._watched.listed(), known)
        except OSError:  # a folder vanished or can't be listed any more
            listed = NOTHING
        places = self._places
        some = take_fingerprint(
            [(name, path) for name, path in loaded if place_of(path) != places[name]], known
        )
        missing = before.keys() - listed.hashes.keys() - self._watched.loaded.paths.keys()
        now = {**listed.hashes, **some.hashes}
        names = [name for name, value in now.items() if before.get(name) != value]
        if not names and not missing:
            self._places |= {**listed.places, **some.places}
            return True
        after = {name: now.get(name, value) for name, value in before.items() if name not in missing} | now
        self._stop([*names, *missing], after)
        return False

    def _stop(self, names: list[str], after: Mapping[str, str]) -> None:
        noticed_at, began = format_time(self._clock()), time.perf_counter()
        self._host.stop(changed_error())
        stopped = 1000 * (time.perf_counter() - began)
        self._change = CodeChange(
            tuple(sorted(names)[:_NAMED]),
            len(names),
            self._baseline.sha384,
            Fingerprint({}, after).sha384,
            noticed_at,
            stopped,
        )
        self._alert(self._change)

    def _read_again(self) -> Iterator[tuple[list[str], dict[str, str]] | None]:
        """Read all contents, over and over; a few megabytes between two yields, or what differs."""
        left = READ_BYTES
        while True:
            try:
                files = list(self._watched.all())
            except OSError:
                files = []
            for name, path in files:
                digest = hashlib.sha256()
                try:
                    for chunk in contents_of(path):
                        digest.update(chunk)
                        left -= len(chunk)
                        if left <= 0:
                            yield None
                            left = READ_BYTES
                except OSError:
                    continue
                value = digest.hexdigest()
                # A file that looks different is the next look's: it says more.
                if value != self._baseline.hashes.get(name) and place_of(path) == self._places.get(name):
                    yield [name], {**self._baseline.hashes, name: value}
            yield None


def changed_error() -> SealBroken:
    """The error for whoever waits for a worker meanwhile."""
    return SealBroken(
        "sealed.code_changed",
        "Measured code, a library, the lock file or a model's definition changed while sealed workers ran.",
        "Find out who changed it, install the agreed release anew, then start again.",
    )
