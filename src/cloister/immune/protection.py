"""The immune system of one process: what is switched on by `protect`, and off by closing it.

It ties the wrappers to the brain, the guard of egress, the kill switch, the audit and the sender. One at a
time is on in a process; a second `protect` is refused rather than mixed with the first.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Final, Self

from cloister.core.canonical import JSON
from cloister.core.closing import Closing
from cloister.core.redaction import Redactor
from cloister.immune.acting.containment import Stage
from cloister.immune.acting.effector import StageChange
from cloister.immune.acting.egress import EgressGuard, NewReach
from cloister.immune.acting.reach import Places
from cloister.immune.acting.reached import GuardMode
from cloister.immune.acting.switch import KillSwitch, ThrownBy, on_signal
from cloister.immune.audit_event import AuditKind
from cloister.immune.brain import Brain, matches
from cloister.immune.code_names import name_shown
from cloister.immune.errors import ImmuneError
from cloister.immune.folder_upkeep import FolderUpkeep
from cloister.immune.heartbeat import Heartbeat
from cloister.immune.keeping.approval import Standing
from cloister.immune.kept_state import open_kept_state
from cloister.immune.notes import IncidentSink, Notes, tell_nobody
from cloister.immune.observation import Action, Score, Sensor
from cloister.immune.process_status import ProcessStatus
from cloister.immune.settings import ImmuneSettings
from cloister.immune.telemetry import Telemetry
from cloister.immune.wrapping.calls import Bounds
from cloister.immune.wrapping.faults import FAULTS, counted
from cloister.immune.wrapping.importing import Instrumented, instrument
from cloister.immune.wrapping.monitor import Watch, gates, use
from cloister.immune.wrapping.sampling import Mode, Sampling

if TYPE_CHECKING:
    from cloister.immune.wrapping.gate import Gate

SETTINGS: Final = "pic.yaml"
_STATUS_SECONDS: Final = 2.0
_BEATS_TO_SAVE: Final = 30
_REACH_SCORE: Final = 90.0
MOST_FUNCTIONS: Final = 10_000
"""Watched in one process; further ones run unwatched, and are counted as faults."""


class Protection(Closing):
    """The immune system of this process; use `protect`.

    Args:
        settings: what a person set.
        on_incident: told of blocks, drift and damage.
        monotonic: seconds; dates calls.
    """

    def __init__(
        self,
        settings: ImmuneSettings,
        *,
        on_incident: IncidentSink = tell_nobody,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings, self._monotonic = settings, monotonic
        self._folder = None if settings.storage.directory is None else Path(settings.storage.directory)
        self._redact = Redactor().clean
        kept = open_kept_state(settings.storage, self._redact)
        self._telemetry = Telemetry(settings)
        self.notes = Notes(
            kept.trail, on_incident=on_incident, on_decision=self._telemetry.decided, monotonic=monotonic
        )
        self.switch = KillSwitch(self._folder, changed=self._switched)
        self.guard = EgressGuard(
            self._new_reach,
            switched_off=self.switch,
            places=Places.of_this_interpreter(self._folder),
            refuses=self._may_refuse,
        )
        folder = None if kept.folder is None else str(kept.folder)
        storage = settings.storage.model_copy(update={"directory": folder})
        self.brain = Brain(
            settings.model_copy(update={"storage": storage}),
            kept.signer,
            self.notes,
            redact=self._redact,
            switched_off=self.switch,
            changed=self._changed,
            matured=self._matured,
            monotonic=monotonic,
            stopwatch=monotonic,
        )
        for alarm in kept.alarms:
            self.brain.store.raise_alarm(alarm)
        self._upkeep = FolderUpkeep(kept, settings.storage, self.guard, self.brain.store)
        self._egress_since: dict[str, int] = {}
        self._beats = 0
        self._watched: set[str] = set()
        self._relearning: set[str] = set()
        # What functions are called in code, where that isn't what they are known by.
        self._also_named: dict[str, set[str]] = {}
        self._instrumented: list[Instrumented] = []
        self._status = ProcessStatus(
            self._folder,
            self.brain,
            self.guard,
            self.switch,
            self.notes,
            self._telemetry,
            gates=self._gates,
            monotonic=monotonic,
        )
        self._unhandle: Callable[[], None] = _nothing
        self._closing = threading.RLock()
        self._heartbeat = Heartbeat(self._beat, _STATUS_SECONDS)

    def start(self, targets: Sequence[str] = ()) -> Self:
        """Switch on.

        Args:
            targets: functions to wrap beside those of the settings and the decorated ones, ``module:glob``.

        Raises:
            ImmuneError: ``immune.target_unknown``; ``immune.setting_invalid`` where one is on already.
        """
        cell = self.settings.cellagent
        with _ON.lock:
            if _ON.protection is not None:
                raise ImmuneError(
                    "immune.setting_invalid",
                    "An immune system is on in this process already.",
                    "Close it first, or give it all targets at once.",
                )
            _ON.protection = self
        if not cell.enabled:
            return self
        try:
            self._upkeep.restore_egress()
            self._upkeep.take_approvals()
            if self.settings.effector.kill_signal is not None:
                number = signal.Signals[self.settings.effector.kill_signal]
                self._unhandle = on_signal(self.switch, number)
            _ = self.switch.thrown_by  # where it is thrown already, that is told now
            sampling = Sampling(
                Mode(cell.sampling), cell.sampling_rate, cell.overhead_budget, cell.cpu_threshold
            )
            watch = Watch(self, sampling, clock=self._monotonic, recorder=self._telemetry.open())
            self._telemetry.follow(watch.pace)
            use(watch)
            if self.settings.egress.enabled:
                self.guard.arm()
            for target in (*cell.watch, *targets):
                self._instrumented.append(instrument(target))
        except BaseException:
            self.close()
            raise
        return self

    def watch(self, function_name: str, gate: Gate) -> Sensor | None:
        """See `cloister.immune.wrapping.monitor.Watcher`."""
        given, function_name = function_name, name_shown(function_name)
        also = self._also_named.get(function_name, set())
        if len(also) >= MOST_FUNCTIONS or (
            function_name not in self._watched and len(self._watched) >= MOST_FUNCTIONS
        ):
            FAULTS.note("watch", LookupError("more functions than are watched"))
            return None
        self._watched.add(function_name)
        if given != function_name:
            self._also_named.setdefault(function_name, set()).add(given)
        if isinstance(gate.function, FunctionType):
            self.guard.register(gate.function, function_name)
        cell = self.brain.cell(function_name)
        cell.look_closer = partial(self._look_closer, function_name)
        if self._wants_every_call(function_name):
            gate.arm()
        known = self.guard.mode(function_name) is not GuardMode.LEARN
        self._egress_since.setdefault(function_name, 0 if known else cell.detector.learned)
        self._matured(function_name, cell.detector.learned)
        return cell

    def status(self) -> dict[str, JSON]:
        """What is on, and how each function stands."""
        return self._status.now()

    def close(self) -> None:
        """Switch off: functions are themselves again, what was learned is kept. Again, it does nothing.

        Every step is taken, whatever fails in another one and wherever an interrupt comes; what fails is
        counted.
        """
        with self._closing:
            if _ON.protection is not self:
                return
            steps: tuple[Callable[[], object], ...] = (
                self._heartbeat.close,
                partial(use, None),
                self._unhandle,
                self.guard.disarm,
                *(one.undo for one in reversed(self._instrumented)),
                self._telemetry.close,
                self._upkeep.save_egress,
                self.brain.close,
                self.notes.close,
                self._status.remove,
                self._let_another_on,
            )
            with ExitStack() as ending:
                for step in reversed(steps):
                    ending.callback(counted, "close", step)

    def _let_another_on(self) -> None:
        with _ON.lock:
            _ON.protection = None

    def _may_refuse(self, function: str) -> bool:
        return matches(function, self.settings.effector.enforcing) and not self.brain.alarms

    def _matured(self, function: str, learned: int) -> None:
        """A function learned another hundred calls, or is watched from now on."""
        base, egress = self.settings.baseline, self.settings.egress
        if learned >= base.retrain_every:
            bounds = Bounds(*self.brain.cell(function).usual())
            for gate in self._gates(function):
                # Of a function whose calls may be stopped no unusual one goes by unjudged.
                gate.expect(bounds, sparing=not matches(function, self.settings.effector.enforcing))
        # What a function reaches for may have been lost where what it learned was not.
        fresh = learned - self._egress_since.get(function, 0)
        if learned >= base.block_after and fresh >= egress.learn_calls:
            enforcing = matches(function, self.settings.effector.enforcing)
            may = enforcing and not self.brain.alarms and self.brain.anchors.may_block(function)
            self.guard.set_mode(function, GuardMode.ENFORCE if may else GuardMode.OBSERVE)
        if learned and self._folder is not None:
            # Not before the first call: a server that forks does so before, and has one thread.
            self._heartbeat.start()

    def _switched(self, by: ThrownBy) -> None:
        """This process sees the kill switch change, whoever did it."""
        if by is ThrownBy.NOTHING:
            action, reason = "seen-restored", f"process {os.getpid()} sees it taken back"
        else:
            action, reason = "seen-thrown", f"process {os.getpid()} sees it thrown by: {by.value}"
        self.notes.note(AuditKind.KILL_SWITCH, action, "", reason)

    def _beat(self) -> None:
        self.brain.take_over_decisions()
        self._learn_again()
        _ = self.switch.thrown_by
        self.brain.store.look_for_damage()
        self.brain.save_when_due()
        self._beats += 1
        if self._beats % _BEATS_TO_SAVE == 0:
            self._upkeep.save_egress()
            self._upkeep.tidy_audit()
        self._upkeep.take_approvals()
        self._status.write()

    def _gates(self, function: str) -> list[Gate]:
        return [gate for one in (function, *self._also_named.get(function, ())) for gate in gates(one)]

    def _learn_again(self) -> None:
        """Look more closely at functions of which a person asked for a baseline, as at new ones."""
        standings = {name: self.brain.anchors.standing(name) for name in self.brain.cells()}
        relearning = {name for name, one in standings.items() if one is Standing.RELEARNING}
        for name in relearning - self._relearning:
            for gate in self._gates(name):
                gate.learn_again()
        self._relearning = relearning

    def _look_closer(self, function: str) -> None:
        for gate in self._gates(function):
            gate.once()

    def _wants_every_call(self, function: str) -> bool:
        """Whether no call may pass unjudged: in a suspicion, and where a contained function's can be stopped.

        What would be stopped, were the function one whose calls may be, is marked where chance or a bound
        finds it: a minute and more of every call would cost many times the budget, and stop nothing.
        """
        if not self.brain.effector.wants_every_call(function):
            return False
        suspect = self.brain.effector.state(function).stage is Stage.SUSPECT
        return suspect or self.brain.cell(function).rules.enforcing

    def _changed(self, change: StageChange) -> None:
        wanted = self._wants_every_call(change.function)
        for gate in self._gates(change.function):
            (gate.arm if wanted else gate.disarm)()
        if change.after is Stage.HALF_OPEN:
            self.brain.cell(change.function).rest()
        if {change.before, change.after} <= {Stage.LEARNING, Stage.OBSERVE}:
            return
        lasts = f" for {change.seconds:.0f} s" if change.seconds else ""
        reason = f"from {change.before.value} to {change.after.value}{lasts}"
        self.notes.stage_changed(change.function, change.after.value, reason)
        self._status.write()

    def _new_reach(self, reach: NewReach) -> None:
        action = Action.BLOCK if reach.refused else Action.ALLOW
        reason = f"{reach.operation.value} of something new ({reach.target_id}), time {reach.times}"
        self.notes.note(AuditKind.EGRESS, action.value, reach.function, reason, _REACH_SCORE)
        self.brain.cell(reach.function).reached(
            reach.operation.value, Score(_REACH_SCORE, self.settings.anomaly.alpha / 10, "egress target")
        )


def _nothing() -> None:
    """No signal is handled."""


class _On:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.protection: Protection | None = None


_ON: Final = _On()


def protect(
    *targets: str, settings: ImmuneSettings | None = None, on_incident: IncidentSink = tell_nobody
) -> Protection:
    """Switch on the immune system of this process.

    Args:
        targets: functions to watch, ``module:glob``, beside those that are decorated with ``@monitor`` and
            those that the settings name.
        settings: what a person set; by default from ``pic.yaml`` and the environment.
        on_incident: told of blocks, drift and damage.

    Returns:
        What is on; close it to switch off.

    Raises:
        ImmuneError: a target that isn't there, a setting that can't be; nothing is on.
    """
    if not all(isinstance(one, str) for one in targets):
        raise ImmuneError(
            "immune.target_unknown",
            "A target is text, module:glob.",
            'Write protect("shop.orders:*", settings=settings).',
        )
    if settings is None:
        from cloister.immune.settings_file import load_immune_settings

        file = Path(SETTINGS)
        settings = load_immune_settings({}, environment=os.environ, file=file if file.exists() else None)
    return Protection(settings, on_incident=on_incident).start(targets)


def present() -> Protection | None:
    """What is on in this process."""
    return _ON.protection
