"""One observed call: counted, judged before it runs, measured while it does.

Rules kept here:

* An exception inside the instrumentation is counted in `FAULTS` and dropped; the call goes on. Of a sensor's
  exceptions only `CallBlocked` passes, and only before the call. What isn't an `Exception` passes:
  KeyboardInterrupt and its like come from outside, through a signal.
* The application's exceptions pass as they are.
* What a sensor calls isn't observed: a thread inside a sensor passes straight.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from sys import _getframe
from threading import get_ident
from types import FrameType
from typing import Final, NoReturn

from cloister.immune.errors import CallBlocked
from cloister.immune.observation import Action, Decision, Entered, Observed, Sensor
from cloister.immune.wrapping.arguments import ArgumentMetadata
from cloister.immune.wrapping.calls import CHANCE, CHECKED, Choice
from cloister.immune.wrapping.entering import caller_of, size_of
from cloister.immune.wrapping.faults import FAULTS
from cloister.immune.wrapping.gate import Gate

INSIDE: Final[set[int]] = set()
"""Threads that are inside a sensor."""

Named = Mapping[str, object]


# Plain tuples, for they are made in every observed call.
Seen = tuple[float, Choice, int, str, int, int, ArgumentMetadata | None]
"""A call to be observed: when, why, size, caller, calls and errors since the last one, arguments in words."""
Running = tuple[Sensor, Seen, Entered, float]
"""A call that a sensor has let in: by which, as what, and when it started."""


class Blocked(Enum):
    """What takes the place of a call that may not run."""

    BLOCKED = "blocked"


BLOCKED: Final = Blocked.BLOCKED
_BLOCK: Final = Action.BLOCK


def _own_frames() -> int:
    """How many frames a function of this module has: one, and none where it is compiled."""
    return int(_getframe(0).f_code.co_name == "_own_frames")


_CALLER: Final = 1 + _own_frames()
"""Frames from `call` to the code that called the wrapper."""


def look(gate: Gate, positional: tuple[object, ...], named: Named, caller: FrameType | None) -> Seen | None:
    """Count a call, and see whether it is to be observed.

    Without a frame nobody is known to have called: a thread of C code did, or the end of the interpreter.
    """
    try:
        choice = gate.tick()
        if gate.sensor is None or (INSIDE and get_ident() in INSIDE):
            return None
        at = gate.clock()
        arguments = (*positional, *named.values()) if named else positional
        size, name = size_of(arguments), "" if caller is None else caller_of(caller)
        if choice is CHECKED:
            bounds = gate.bounds
            if bounds is None:
                return None
            if size <= bounds.size and name in bounds.callers:
                if caller is not None and gate.bounds is bounds:
                    gate.usual(caller.f_code, at)
                return None
        recorder = gate.recorder
        described = recorder.describe(arguments) if recorder is not None else None
        calls, errors = gate.since()
    except Exception as fault:
        FAULTS.note("look", fault)
        return None
    return at, choice, size, name, calls, errors, described


def begin(gate: Gate, seen: Seen, began: float | None = None) -> Running | Blocked | None:
    """Have a call judged: let in, let in by an instrumentation that failed, or to be replaced.

    Args:
        gate: of the function.
        seen: the call.
        began: when it began; now, without it.

    Raises:
        CallBlocked: it may not run, and nothing takes its place.
    """
    thread = get_ident()
    try:
        INSIDE.add(thread)
        sensor = gate.sensor
        if sensor is None:
            return None
        _, choice, size, caller, calls, errors, _ = seen
        entered = Entered(
            gate.clock() if began is None else began, size, caller, calls, errors, choice is CHANCE
        )
        decision = sensor.enter(entered)
        if decision is not None and decision.action is _BLOCK:
            _refuse(gate.name, decision)
        return sensor, seen, entered, gate.clock()
    except CallBlocked:
        gate.stopped()
        if gate.substitute is None:
            raise
        return BLOCKED
    except Exception as fault:
        FAULTS.note("enter", fault)
        return None
    finally:
        INSIDE.discard(thread)


def _refuse(name: str, decision: Decision) -> NoReturn:
    raise CallBlocked(name, decision.reason, decision.event_id)


def end(gate: Gate, running: Running, duration: float | None, *, failed: bool) -> None:
    """Tell the sensor how a call ended; without a duration it is the time since it started."""
    thread = get_ident()
    try:
        INSIDE.add(thread)
        stopped = gate.clock()
        sensor, seen, entered, started = running
        duration = stopped - started if duration is None else duration
        observed = Observed(entered, duration, failed)
        sensor.leave(observed)
        described = seen[6]
        if described is not None and gate.recorder is not None:
            gate.recorder.record(gate.name, described, observed, gate.rate)
        if gate.counted():
            now = gate.clock()
            gate.learn(started - entered.at + now - stopped, duration, seen[1], now)
    except Exception as fault:
        FAULTS.note("leave", fault)
    finally:
        INSIDE.discard(thread)


def instead(gate: Gate, positional: tuple[object, ...], named: Named) -> object:
    """What a blocked call gives."""
    return None if gate.substitute is None else gate.substitute(*positional, **named)


def call(gate: Gate, positional: tuple[object, ...], named: Named) -> object:
    """Call a plain function."""
    try:
        caller = _getframe(_CALLER)
    except ValueError:
        caller = None
    seen = look(gate, positional, named, caller)
    running = None if seen is None else begin(gate, seen, seen[0])
    if running is BLOCKED:
        return instead(gate, positional, named)
    try:
        result = gate.function(*positional, **named)
    except BaseException:
        gate.failed(told=running is not None)
        if running is not None:
            end(gate, running, None, failed=True)
        raise
    if running is not None:
        end(gate, running, None, failed=False)
    return result
