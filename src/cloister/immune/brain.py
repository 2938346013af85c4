"""The brain of one process or service: a cell for each function, and what they share.

In a process it is the watcher of all wrapped functions. In the brain service it takes their telemetry: the
same cells learn and score there, and nothing is blocked from afar.

Rules kept here:

1. What was learned is kept as it goes, and taken over at the next start; a state that can't be read is
   learned anew, with an alarm, under which nothing is blocked. No content of it leaves a function unwatched.
2. An operator's acts come from any process: through the state database that all share, looked at every two
   seconds.
3. A contained function is contained after a restart as well, as long as it would have been without one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import JSON
from cloister.core.errors import CloisterError
from cloister.immune.acting.containment import ContainmentRules
from cloister.immune.acting.effector import Effector, StageChange
from cloister.immune.cell import Cell, CellRules, Organs, Record
from cloister.immune.code_names import learned_shown
from cloister.immune.detection.detector import DetectorSettings
from cloister.immune.detection.selection import new_detector, read_detector
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import (
    AnchorKeeper,
    BaselineKeeper,
    DetectorRegistry,
    TraceStore,
    Upkeep,
    open_pattern_key,
    open_state,
)
from cloister.immune.keeping.events import Alarm
from cloister.immune.keeping.stages import StageKeeper
from cloister.immune.resuming import StageMemory
from cloister.immune.wrapping.faults import counted

if TYPE_CHECKING:
    from cloister.core.keys import Signer
    from cloister.immune.detection.detector import Detector
    from cloister.immune.settings import ImmuneSettings

_SAVE_SECONDS: Final = 60.0
_MAX_LEARNED: Final = 1_000_000


class Brain:
    """All functions' cells.

    Args:
        settings: what a person set.
        signer: signs approved baselines.
        record: where decisions and events go.
        redact: for text of people and names of code before they are kept.
        switched_off: the kill switch.
        changed: told of each change of a function's stage.
        matured: told when a function learned another hundred calls, and how many in all.
        clock: seconds since 1970.
        monotonic: seconds of the clock that calls are dated by.
        stopwatch: times the brain's own work beside a call, by which it knows how slow the machine is; one
            that tells ``nan`` where the calls are another machine's.
    """

    def __init__(
        self,
        settings: ImmuneSettings,
        signer: Signer,
        record: Record,
        *,
        redact: Callable[[str], str],
        switched_off: Callable[[], bool],
        changed: Callable[[StageChange], None],
        matured: Callable[[str, int], None],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.perf_counter,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings, self._monotonic = settings, monotonic
        directory = None if settings.storage.directory is None else Path(settings.storage.directory)
        self.store = open_state(directory, clock)
        self.traces = TraceStore(settings.storage.trace_buffer_size)
        self.baselines = BaselineKeeper(self.store, settings.baseline)
        self.anchors = AnchorKeeper(self.store, signer, settings.baseline.drift_ratio)
        self.registry = DetectorRegistry(
            self.store, open_pattern_key(directory, self.store), settings.effector.detector_days, redact
        )
        effect, base = settings.effector, settings.baseline
        self.effector = Effector(
            ContainmentRules(
                settings.anomaly.candidate_score_threshold,
                effect.quarantine_above,
                base.block_after,
                effect.contain_seconds,
                effect.probe_one_in,
            ),
            switched_off=switched_off,
            changed=self._changed,
        )
        self._tell_changed = changed
        self._stages = StageMemory(
            StageKeeper(self.store, signer),
            self.baselines,
            lambda: self.effector,
            effect.contain_seconds,
            clock=clock,
            monotonic=monotonic,
        )
        self.upkeep = Upkeep(
            self.store,
            self.traces,
            self.baselines,
            self.anchors,
            self.registry,
            baseline=base,
            storage=settings.storage,
            monotonic=monotonic,
        )
        self._record = record
        self._organs = Organs(
            self.effector,
            self.registry,
            self.anchors,
            self.traces,
            self.upkeep,
            record,
            self._sound,
            matured,
            base.retrain_every,
            monotonic,
            stopwatch,
        )
        self._cells: dict[str, Cell] = {}
        self._lock = threading.RLock()
        self._saved_at = monotonic()
        self._generation: object = None

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What is wrong with the state; where anything is, nothing is blocked."""
        return self.store.alarms

    def cell(self, function: str) -> Cell:
        """A function's cell; made, with what was learned before, when it is first asked for.

        Args:
            function: ``module:qualname``.
        """
        found = self._cells.get(function)
        if found is not None:
            return found
        with self._lock:
            if function not in self._cells:
                detector = self._learned(function)
                for event in self.upkeep.start(function):
                    self._record.happened(event)
                made = Cell(function, detector, self._rules(function), self._organs)
                with suppress(CloisterError):
                    for event in self._stages.resume(made):
                        self._record.happened(event)
                self._cells[function] = made
            return self._cells[function]

    def cells(self) -> Mapping[str, Cell]:
        """All that there are, by name."""
        return dict(self._cells)

    def save(self) -> None:
        """Keep what was learned, for the next start.

        Raises:
            ImmuneError: the store can't be used now.
        """
        for name, one in self.cells().items():
            self.baselines.save_learned(name, learned_shown(one.learned_state()))
            self._stages.keep_what_is_due(one)

    def take_over_decisions(self) -> None:
        """Take over what operators decided in other processes since the last look, where anybody wrote."""
        with suppress(CloisterError):
            generation = self.store.generation()
            if generation == self._generation:
                return
            self._generation = generation
            for name, one in self.cells().items():
                event = self.anchors.refresh(name)
                if event is not None:
                    self._record.happened(event)
                self._stages.take_release(one)

    def save_when_due(self) -> None:
        """`save`, at most once a minute; what fails is tried again a minute later."""
        now = self._monotonic()
        if now - self._saved_at >= _SAVE_SECONDS:
            self._saved_at = now
            with suppress(CloisterError):
                self.save()

    def close(self) -> None:
        """Keep everything and close the store. What fails is counted, and takes no other step with it."""
        with ExitStack() as ending:
            for step in (self.store.close, self._stop_upkeep, self.save):
                ending.callback(counted, "close", step)

    def _stop_upkeep(self) -> None:
        for event in self.upkeep.stop():
            self._record.happened(event)

    def _changed(self, change: StageChange) -> None:
        cell = self._cells.get(change.function)
        if cell is not None:
            self._stages.changed(change, cell)
        self._tell_changed(change)

    def _sound(self) -> bool:
        return not self.store.alarms

    def _rules(self, function: str) -> CellRules:
        effect = self.settings.effector
        return CellRules(
            matches(function, effect.enforcing),
            self.settings.anomaly.candidate_score_threshold,
            effect.promotion == "policy",
        )

    def _learned(self, function: str) -> Detector:
        anomaly, base = self.settings.anomaly, self.settings.baseline
        rules = DetectorSettings(
            anomaly.alpha,
            float(base.half_life),
            base.min_samples,
            base.min_hours * 3600,
            anomaly.threshold_percentile,
        )
        made = new_detector(anomaly.detector, rules)
        try:
            kept = self.baselines.learned(function)
        except CloisterError:
            return made
        if kept is None or len(kept) > _MAX_LEARNED:
            return made
        try:
            found = read_detector(json.loads(kept), rules)
        except Exception as error:
            # Whatever was put in its place, the function is watched.
            why = error.code if isinstance(error, CloisterError) else type(error).__name__
            self.store.raise_alarm(Alarm("learned_unreadable", "", self.store.clock(), why))
            return made
        return found if isinstance(found, type(made)) else made


def observed_rates(detector: Detector) -> dict[str, JSON]:
    """Observed shares of rare calls by their nominal ones, where the detector keeps count."""
    calibration = getattr(detector, "calibration", None)
    rates: Mapping[float, float] = {} if calibration is None else calibration.observed()
    return {f"{nominal:g}": round(rate, 6) for nominal, rate in rates.items()}


def matches(function: str, patterns: Iterable[str]) -> bool:
    """Whether a function is named by one of the patterns, as in ``shop.orders:*``."""
    return any(fnmatchcase(function, one) for one in patterns)


def require_known(cells: Mapping[str, object], function: str) -> None:
    """Refuse a function that isn't watched.

    Raises:
        ImmuneError: ``immune.function_unknown``.
    """
    if function not in cells:
        raise ImmuneError("immune.function_unknown", f"{function} is not watched.")
