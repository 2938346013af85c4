"""What is done every hundred observed calls, on the way of the hundredth: no thread, no schedule.

Rules kept here:

1. The baseline is looked at, what other processes decided is taken over, what is past its time ends. Of a
   function that is called very often, at most once a second; of all functions together, in a thousandth of
   the time, however long a disk makes it take: a function that is due waits, and keeps its turn.
2. The newest calls are kept for the next start: 200 at most once a minute, and what came since when the
   service stops.
3. Once an hour what is too old is removed: ended detectors, old baselines and snapshots after 90 days, calls
   after 30. An anchor, a function's newest baseline and its last decision stay.
4. Nothing here reaches the call: a part that fails is counted and tried again a hundred calls later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from cloister.core.errors import CloisterError
from cloister.immune.code_names import name_shown
from cloister.immune.keeping.approval import AnchorKeeper, forget_old_marks
from cloister.immune.keeping.baseline import BaselineKeeper, forget_old_baselines
from cloister.immune.keeping.detectors import DetectorRegistry, forget_old_detectors
from cloister.immune.keeping.events import Alarm, Happened, StateEvent
from cloister.immune.keeping.stages import forget_old_stages
from cloister.immune.keeping.store import StateStore
from cloister.immune.keeping.traces import Kept, TraceStore
from cloister.immune.observation import Entered, Observed

if TYPE_CHECKING:
    from cloister.immune.settings import BaselineSettings, StorageSettings

_LEAST_SECONDS: Final = 1.0
_SHARE: Final = 0.001
_MINUTE: Final = 60.0
_SOME: Final = 200
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0


class Upkeep:
    """The inline upkeep of all that is kept.

    Args:
        store: the state.
        traces: the newest calls.
        baselines: of all functions.
        anchors: of all functions.
        detectors: of all functions.
        baseline: when a look is due, and how far back it goes.
        storage: how long things are kept.
        monotonic: seconds of the clock that `Entered.at` is of.
    """

    def __init__(
        self,
        store: StateStore,
        traces: TraceStore,
        baselines: BaselineKeeper,
        anchors: AnchorKeeper,
        detectors: DetectorRegistry,
        *,
        baseline: BaselineSettings,
        storage: StorageSettings,
        monotonic: Callable[[], float],
    ) -> None:
        self._store, self._traces, self._baselines = store, traces, baselines
        self._anchors, self._detectors = anchors, detectors
        self._every, self._window = baseline.retrain_every, baseline.window_hours * _HOUR
        self._metadata, self._trace_seconds = storage.metadata_days * _DAY, storage.trace_days * _DAY
        self._monotonic = monotonic
        self._looked: dict[str, float] = {}
        self._due: set[str] = set()
        self._free_at = -math.inf
        self._saved: dict[str, tuple[int, float]] = {}
        self._cleaned = -math.inf
        self.failures = 0
        self._told: frozenset[Alarm] = frozenset()

    def start(self, function: str) -> tuple[StateEvent, ...]:
        """Take over what is kept of a function, before its first call is judged.

        Returns:
            What to write down.
        """
        return self._each((lambda: self._restore(function), lambda: _one(self._anchors.refresh(function))))

    def observed(
        self, function: str, observed: Observed, *, ordinary: bool, blocks: bool
    ) -> tuple[StateEvent, ...]:
        """Keep an observed call; after every hundredth of a function, look after it.

        Args:
            function: ``module:qualname``.
            observed: the call.
            ordinary: whether its function was in no suspicion.
            blocks: whether its calls may be blocked by the operator's settings.

        Returns:
            What to write down; empty most times.
        """
        if not self._traces.add(function, observed, ordinary=ordinary) % self._every:
            self._due.add(function)
        if function not in self._due:
            return ()
        now = self._monotonic()
        if now < self._free_at or now - self._looked.get(function, -math.inf) < _LEAST_SECONDS:
            return ()
        self._due.discard(function)
        self._looked[function] = now
        events = self.look(function, blocks=blocks)
        self._free_at = now + (self._monotonic() - now) / _SHARE
        return events

    def look(self, function: str, *, blocks: bool) -> tuple[StateEvent, ...]:
        """Look after a function now.

        Returns:
            What to write down.
        """
        return self._each(
            (
                lambda: _one(self._anchors.refresh(function)),
                lambda: self._look_at_baseline(function, blocks=blocks),
                self._detectors.expire_old_detectors,
                lambda: self._save_some(function),
                self._clean,
            )
        )

    def stop(self) -> tuple[StateEvent, ...]:
        """Keep the newest calls of all functions for the next start.

        Returns:
            What to write down.
        """
        everything = self._traces.per_function
        return self._each(tuple(partial(self._save, one, everything) for one in self._traces.functions()))

    def _each(self, parts: tuple[Callable[[], tuple[StateEvent, ...]], ...]) -> tuple[StateEvent, ...]:
        happened: list[StateEvent] = []
        for part in parts:
            try:
                happened.extend(part())
            except Exception as error:
                self.failures += 1
                reason = error.code if isinstance(error, CloisterError) else type(error).__name__
                happened.append(StateEvent(Happened.UPKEEP_FAILED, "", self._store.clock(), reason))
        # What was wrong when the store was opened included.
        alarms = self._store.alarms
        told, self._told = self._told, frozenset(alarms)
        for alarm in alarms:
            if alarm in told:
                continue
            happened.append(StateEvent(Happened.STATE_DAMAGED, "", alarm.at, alarm.reason))
        return tuple(happened)

    def _look_at_baseline(self, function: str, *, blocks: bool) -> tuple[StateEvent, ...]:
        now = self._monotonic()
        count, first_at = self._traces.added(function)
        held = not self._anchors.may_learn(function, blocks=blocks)
        durations = self._traces.durations(function, now - self._window)
        return _one(self._baselines.look(function, durations, count, now - first_at, held=held))

    def _save_some(self, function: str) -> tuple[StateEvent, ...]:
        _, at = self._saved.get(function, (0, -math.inf))
        return self._save(function, _SOME) if self._monotonic() - at >= _MINUTE else ()

    def _save(self, function: str, most: int) -> tuple[StateEvent, ...]:
        count, _ = self._traces.added(function)
        fresh = min(count - self._saved.get(function, (0, 0.0))[0], most)
        if fresh <= 0:
            return ()
        tick = self._monotonic()
        began = self._store.clock() - tick
        rows = [_row(function, one, began) for one in reversed(self._traces.kept(function, fresh))]
        with self._store.writing() as connection:
            connection.executemany(
                _INSERT, [row for row in rows if math.isfinite(row[1]) and math.isfinite(row[7])]
            )
            connection.execute(_KEEP_NEWEST, (function, function, self._traces.per_function))
        self._saved[function] = count, tick
        return ()

    def _restore(self, function: str) -> tuple[StateEvent, ...]:
        if self._traces.added(function)[0]:
            return ()
        began = self._store.clock() - self._monotonic()
        with self._store.reading() as connection:
            rows = connection.execute(_SELECT, (function, self._traces.per_function)).fetchall()
        for at, size, caller, calls, errors, teaches, duration, failed, ordinary in reversed(rows):
            # A row with something else in it is no call.
            with suppress(TypeError):
                entered = Entered(at - began, size, caller, calls, errors, bool(teaches))
                self._traces.add(function, Observed(entered, duration, bool(failed)), ordinary=bool(ordinary))
        self._saved[function] = self._traces.added(function)[0], -math.inf
        return ()

    def _clean(self) -> tuple[StateEvent, ...]:
        tick = self._monotonic()
        if tick - self._cleaned < _HOUR:
            return ()
        now = self._store.clock()
        with self._store.writing() as connection:
            forget_old_baselines(connection, now - self._metadata)
            forget_old_detectors(connection, now - self._metadata)
            forget_old_marks(connection, now - self._metadata)
            forget_old_stages(connection, now - self._metadata)
            connection.execute("DELETE FROM learned WHERE updated_at < ?", (now - self._metadata,))
            connection.execute("DELETE FROM traces WHERE at < ?", (now - self._trace_seconds,))
        self._traces.forget(tick - self._trace_seconds)
        self._cleaned = tick
        return ()


_COLUMNS: Final = "at, size, caller, calls, errors, teaches, duration, failed, benign"
_INSERT: Final = f"INSERT INTO traces (function, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_SELECT: Final = f"SELECT {_COLUMNS} FROM traces WHERE function = ? ORDER BY id DESC LIMIT ?"  # noqa: S608
_KEEP_NEWEST: Final = (
    "DELETE FROM traces WHERE function = ? AND id <="
    " (SELECT id FROM traces WHERE function = ? ORDER BY id DESC LIMIT 1 OFFSET ?)"
)


def _one(event: StateEvent | None) -> tuple[StateEvent, ...]:
    return () if event is None else (event,)


def _row(
    function: str, kept: Kept, began: float
) -> tuple[str, float, int, str, int, int, int, float, int, int]:
    entered = kept.observed.entered
    return (
        function,
        entered.at + began,
        entered.size,
        name_shown(entered.caller).encode("utf-8", "backslashreplace").decode(),
        entered.calls,
        entered.errors,
        int(entered.teaches),
        kept.observed.duration,
        int(kept.observed.failed),
        int(kept.ordinary),
    )
