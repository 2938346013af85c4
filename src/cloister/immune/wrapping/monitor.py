"""``@monitor``: have a function watched, by whoever `use` names.

Without a watcher, after ``use(None)``, and with ``PIC_DISABLED=1`` when a function is decorated or a watcher
named, calls pass straight. No thread is started here. The child of a fork counts from nothing and keeps no
event of its parent.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, ParamSpec, Protocol, TypeVar, cast, overload
from weakref import WeakSet

from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Sensor
from cloister.immune.wrapping import observing
from cloister.immune.wrapping.build import build, gate_of
from cloister.immune.wrapping.calls import Kind
from cloister.immune.wrapping.faults import FAULTS
from cloister.immune.wrapping.gate import Gate
from cloister.immune.wrapping.recording import Recorder
from cloister.immune.wrapping.sampling import Pace, Sampling, Ticks
from cloister.immune.wrapping.shapes import reshape
from cloister.immune.wrapping.spare import SpareTime

P = ParamSpec("P")
R = TypeVar("R")
D = TypeVar("D")

_WRAPPERS: Final[dict[str, WeakSet[Callable[..., object]]]] = {}
"""All wrappers that there are; each holds its gate."""


class _Raise:
    """The default of ``on_block``; a class, so that every value may be a substitute."""


class Watcher(Protocol):
    """Who watches: gives each function its sensor."""

    def watch(self, function_name: str, gate: Gate) -> Sensor | None:
        """The sensor of a function; None leaves the function unwatched.

        Args:
            function_name: ``module:qualname``.
            gate: of the function, to be armed and asked for counts.
        """
        ...


def _any_chance(_name: str) -> Callable[[], float]:
    return random.Random().random  # noqa: S311 - which call is looked at is no secret


@dataclass(frozen=True, slots=True)
class Watch:
    """A watcher, and how calls are chosen for it.

    Attributes:
        watcher: who watches.
        sampling: how many calls are observed.
        chance: makes the source of chance of one function, from its name.
        clock: monotonic time, seconds.
        recorder: keeps telemetry events; without one none is made.
        spare: share of the time that this process leaves to nobody, 0 to 1.
        pace: the process's factor of all rates.
    """

    watcher: Watcher
    sampling: Sampling = field(default_factory=Sampling)
    chance: Callable[[str], Callable[[], float]] = _any_chance
    clock: Callable[[], float] = time.perf_counter
    recorder: Recorder | None = None
    spare: Callable[[], float] = field(default_factory=SpareTime)
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pace", Pace(self.sampling.cpu_threshold, self.spare))


class _Present:
    watch: Watch | None = None


def use(watch: Watch | None) -> None:
    """Have all wrapped functions watched from now on, those wrapped later as well.

    Args:
        watch: by whom; None has nobody watch.
    """
    _Present.watch = None if _is_disabled() else watch
    for gate in gates():
        _attach(gate)


def gates(name: str | None = None) -> list[Gate]:
    """The gates of all wrapped functions that there are.

    Args:
        name: those of this name alone; there are several where a factory makes them, or a module is loaded
            again.
    """
    sets = list(_WRAPPERS.values()) if name is None else [_WRAPPERS.get(name, ())]
    return [gate for one in sets for wrapper in list(one) if (gate := gate_of(wrapper)) is not None]


@overload
def monitor(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def monitor(function: D, /) -> D: ...
@overload
def monitor(*, on_block: object = ..., name: str | None = None) -> Callable[[D], D]: ...
def monitor(function: object = _Raise, /, *, on_block: object = _Raise, name: str | None = None) -> object:
    """Have a function watched; stands bare or with arguments above a function, method or property.

    Args:
        function: a function of any kind, class or static method, property, partial or other callable. One
            that is wrapped already, through other wraps as well, is returned as it is.
        on_block: what a blocked call gives instead of `CallBlocked`: a value, or a function that gets the
            call's arguments. A generator yields from it; a coroutine awaits what can be awaited. Chosen per
            function, never by its annotation: for ``is_revoked`` False would be the wrong one.
        name: ``module:qualname`` by which it is known; its own without it.

    Returns:
        An object of the same kind.

    Raises:
        ImmuneError: it is a class or can't be called, or a generator's substitute can't be iterated.
    """
    if function is _Raise:
        return lambda one: wrap(one, on_block=on_block, name=name)
    return wrap(function, on_block=on_block, name=name)


def wrap(one: object, *, on_block: object = _Raise, name: str | None = None) -> object:
    """`monitor` as a plain function of an object, with the same arguments."""
    if _is_disabled():
        return one

    def one_function(function: Callable[..., object]) -> Callable[..., object]:
        if gate_of(function) is not None:
            return function
        wrapper, gate = build(function, name=name, substitute=_substitute(on_block))
        if gate.kind in {Kind.GENERATOR, Kind.ITERABLE_COROUTINE, Kind.ASYNC_GENERATOR}:
            _refuse_unless_iterable(gate, on_block)
        _WRAPPERS.setdefault(gate.name, WeakSet()).add(wrapper)
        _attach(gate)
        return wrapper

    return reshape(one, one_function)


def _substitute(on_block: object) -> Callable[..., object] | None:
    if on_block is _Raise:
        return None
    if callable(on_block):
        return cast("Callable[..., object]", on_block)
    return lambda *_args, **_named: on_block


def _refuse_unless_iterable(gate: Gate, on_block: object) -> None:
    if (
        on_block is _Raise
        or callable(on_block)
        or hasattr(on_block, "__iter__")
        or hasattr(on_block, "__aiter__")
    ):
        return
    raise ImmuneError(
        "immune.target_unknown",
        f"{gate.name} is a generator, and its substitute can't be iterated.",
        "Give an iterable such as an empty tuple, or a function that returns one.",
    )


def _is_disabled() -> bool:
    return os.environ.get("PIC_DISABLED", "").strip().lower() in {"1", "true", "yes", "on"}


def _attach(gate: Gate) -> None:
    watch = _Present.watch
    try:
        sensor = watch.watcher.watch(gate.name, gate) if watch is not None else None
        if watch is None or sensor is None:
            gate.detach()
            return
        gate.attach(
            sensor, watch.sampling, watch.pace, Ticks(watch.chance(gate.name)), watch.clock, watch.recorder
        )
    except Exception as fault:
        FAULTS.note("watch", fault)
        gate.detach()


def _after_fork_in_child() -> None:
    observing.INSIDE.clear()
    FAULTS.forget()
    for gate in gates():
        gate.forget()
    watch = _Present.watch
    if watch is not None and watch.recorder is not None:
        watch.recorder.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
