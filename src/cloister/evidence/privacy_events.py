"""What can be done to a dataset, as events, and their strict codec. Pure: nothing is computed here.

Rules kept here:

1. An event names a mechanism, its parameters and how many times it ran; never an epsilon that was composed.
2. The codec is strict: unknown types, missing or extra fields, wrong types and impossible values are refused.
   Types are never given another meaning; a new mechanism is a new type, which an older reader refuses.
3. Events are flat JSON objects of strings and numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast

from cloister.core.errors import InputError

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

POISSON: Final = math.inf
"""The shape that stands for a Poisson number of trials; in JSON it is the word ``poisson``."""

_LARGEST_STEPS = 10**9
# Less noise protects nobody and would only overflow the accountant; more drowns any result.
_NOISE_RANGE = (1e-3, 1e6)
_PROBABILITY_RANGE = (1e-9, 1.0)
_EPSILON_RANGE = (1e-6, 100.0)
_DELTA_RANGE = (1e-30, 0.5)
_MEAN_RANGE = (1.0, 1e4)
_SHAPE_RANGE = (0.0, 100.0)


def _require_between(value: float, name: str, bounds: tuple[float, float]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("input.schema", f"A privacy event's {name} must be a number.")
    if not bounds[0] <= value <= bounds[1]:
        raise InputError(
            "input.schema", f"A privacy event's {name} must lie between {bounds[0]:g} and {bounds[1]:g}."
        )


def _require_steps(value: int, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError("input.schema", f"A privacy event's {name} must be a whole number.")
    if not 1 <= value <= _LARGEST_STEPS:
        raise InputError("input.schema", f"A privacy event's {name} must lie between 1 and {_LARGEST_STEPS}.")


@dataclass(frozen=True, slots=True)
class SampledGaussian:
    """Steps of a Gaussian mechanism, each on a fresh Poisson sample of the records.

    Args:
        sampling_probability: Chance of one record to be in one step's batch, from 1e-9 to 1.
        noise_multiplier: Noise standard deviation divided by the L2 sensitivity (the clip norm), 1e-3 to 1e6.
        steps: How many times the mechanism ran.

    Raises:
        InputError: ``input.schema`` when a value is impossible.
    """

    sampling_probability: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        _require_between(self.sampling_probability, "sampling probability", _PROBABILITY_RANGE)
        _require_between(self.noise_multiplier, "noise multiplier", _NOISE_RANGE)
        _require_steps(self.steps, "steps")
        object.__setattr__(self, "sampling_probability", float(self.sampling_probability))
        object.__setattr__(self, "noise_multiplier", float(self.noise_multiplier))


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Gaussian mechanisms on the whole dataset, without sampling.

    Args:
        noise_multiplier: Noise standard deviation divided by the L2 sensitivity, 1e-3 to 1e6.
        count: How many such releases were made.

    Raises:
        InputError: ``input.schema`` when a value is impossible.
    """

    noise_multiplier: float
    count: int

    def __post_init__(self) -> None:
        _require_between(self.noise_multiplier, "noise multiplier", _NOISE_RANGE)
        _require_steps(self.count, "count")
        object.__setattr__(self, "noise_multiplier", float(self.noise_multiplier))


@dataclass(frozen=True, slots=True)
class Pure:
    """Mechanisms known only to be epsilon-differentially private, e.g. output perturbation.

    Accounted as the worst of them all, randomised response (Kairouz, Oh, Viswanath 2015, Theorem 2.1).

    Args:
        epsilon: Of each, from 1e-6 to 100.
        count: How many ran.

    Raises:
        InputError: ``input.schema`` when a value is impossible.
    """

    epsilon: float
    count: int

    def __post_init__(self) -> None:
        _require_between(self.epsilon, "epsilon", _EPSILON_RANGE)
        _require_steps(self.count, "count")
        object.__setattr__(self, "epsilon", float(self.epsilon))


@dataclass(frozen=True, slots=True)
class Approximate:
    """Mechanisms known only to be (epsilon, delta)-differentially private.

    Such a mechanism lies within ``delta`` of a pure one, so the deltas of all of them are taken off the delta
    that the rest is composed at.

    Args:
        epsilon: Of each, from 1e-6 to 100.
        delta: Of each, from 1e-30 to 0.5.
        count: How many ran.

    Raises:
        InputError: ``input.schema`` when a value is impossible.
    """

    epsilon: float
    delta: float
    count: int

    def __post_init__(self) -> None:
        _require_between(self.epsilon, "epsilon", _EPSILON_RANGE)
        _require_between(self.delta, "delta", _DELTA_RANGE)
        _require_steps(self.count, "count")
        object.__setattr__(self, "epsilon", float(self.epsilon))
        object.__setattr__(self, "delta", float(self.delta))


@dataclass(frozen=True, slots=True)
class RepeatAndSelect:
    """A random number of trials, of which only the one with the best noisy score is released.

    One trial is a training by :class:`SampledGaussian` steps and one :class:`Gaussian` score. The number of
    trials is drawn independently of the records and never released.

    Args:
        sampling_probability: Of a trial's steps.
        noise_multiplier: Of a trial's steps.
        steps: Of one trial.
        score_noise_multiplier: Standard deviation of the score's noise, divided by the score's sensitivity.
        mean: Mean number of trials, 1 to 10,000.
        shape: Of the truncated negative binomial law: 0 logarithmic, 1 geometric, up to 100; or ``POISSON``.
        count: How many such tunings were made.

    Raises:
        InputError: ``input.schema`` when a value is impossible.
    """

    sampling_probability: float
    noise_multiplier: float
    steps: int
    score_noise_multiplier: float
    mean: float
    shape: float
    count: int

    def __post_init__(self) -> None:
        _require_between(self.sampling_probability, "sampling probability", _PROBABILITY_RANGE)
        _require_between(self.noise_multiplier, "noise multiplier", _NOISE_RANGE)
        _require_steps(self.steps, "steps")
        _require_between(self.score_noise_multiplier, "score noise multiplier", _NOISE_RANGE)
        _require_between(self.mean, "mean", _MEAN_RANGE)
        if self.shape != POISSON:
            _require_between(self.shape, "shape", _SHAPE_RANGE)
        _require_steps(self.count, "count")
        for name in (
            "sampling_probability",
            "noise_multiplier",
            "score_noise_multiplier",
            "mean",
            "shape",
        ):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def trial(self) -> tuple[Event, Event]:
        """What one trial does: the training and the score."""
        training = SampledGaussian(self.sampling_probability, self.noise_multiplier, self.steps)
        return training, Gaussian(self.score_noise_multiplier, 1)


Event = SampledGaussian | Gaussian | Pure | Approximate | RepeatAndSelect

_TYPES: Final[Mapping[str, type[Event]]] = {
    "gaussian": Gaussian,
    "sampled_gaussian": SampledGaussian,
    "pure": Pure,
    "approximate": Approximate,
    "repeat_and_select": RepeatAndSelect,
}
_NAMES: Final = {kind: name for name, kind in _TYPES.items()}
_RANKS: Final = {kind: rank for rank, kind in enumerate(_TYPES.values())}
_FIELDS: Final = {kind: tuple(kind.__dataclass_fields__) for kind in _TYPES.values()}
_WHOLE: Final = frozenset({"steps", "count"})


def event_to_json(event: Event) -> dict[str, JSON]:
    """Return the event as a JSON object that :func:`event_from_json` reads back to an equal event."""
    kind = type(event)
    value: dict[str, JSON] = {"type": _NAMES[kind]}
    for name in _FIELDS[kind]:
        held = getattr(event, name)
        value[name] = "poisson" if name == "shape" and held == POISSON else held
    return value


def event_from_json(value: JSON) -> Event:
    """Read one event.

    Args:
        value: A JSON object as :func:`event_to_json` writes it. Whole numbers are accepted where a real
            number is meant, because canonical JSON writes 1.0 as 1.

    Raises:
        InputError: ``input.schema`` when type, fields or values are not exactly those of an event.
    """
    if not isinstance(value, dict):
        raise InputError("input.schema", "A privacy event must be a JSON object.")
    name = value.get("type")
    if not isinstance(name, str) or name not in _TYPES:
        raise InputError("input.schema", "A privacy event has an unknown type.")
    kind = _TYPES[name]
    if set(value) != {"type", *_FIELDS[kind]}:
        raise InputError("input.schema", f"A {name} event must have exactly its own fields.")
    make = cast(Callable[..., Event], kind)
    return make(*(_read(field, value[field]) for field in _FIELDS[kind]))


def _read(field: str, value: JSON) -> int | float:
    if field == "shape" and value == "poisson":
        return POISSON
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("input.schema", "A privacy event holds something that is not a number.")
    if field in _WHOLE:
        if not isinstance(value, int):
            raise InputError("input.schema", "A privacy event holds a count that is not a whole number.")
        return value
    if value == POISSON:
        raise InputError("input.schema", "A privacy event holds a number that is not finite.")
    return float(value)


def times(event: Event) -> int:
    """Return how many times the event's mechanism ran."""
    return event.steps if isinstance(event, SampledGaussian) else event.count


def repeated(event: Event, number: int) -> Event:
    """Return the event's mechanism, run another number of times.

    Raises:
        InputError: ``input.schema`` when the number is impossible.
    """
    match event:
        case SampledGaussian():
            return SampledGaussian(event.sampling_probability, event.noise_multiplier, number)
        case Gaussian():
            return Gaussian(event.noise_multiplier, number)
        case Pure():
            return Pure(event.epsilon, number)
        case Approximate():
            return Approximate(event.epsilon, event.delta, number)
        case RepeatAndSelect():
            return replace(event, count=number)


def _mechanism(event: Event) -> tuple[int, tuple[float, ...]]:
    match event:
        case SampledGaussian():
            values: tuple[float, ...] = (event.sampling_probability, event.noise_multiplier)
        case Gaussian():
            values = (event.noise_multiplier,)
        case Pure():
            values = (event.epsilon,)
        case Approximate():
            values = (event.epsilon, event.delta)
        case RepeatAndSelect():
            values = (
                event.sampling_probability,
                event.noise_multiplier,
                event.steps,
                event.score_noise_multiplier,
                event.mean,
                event.shape,
            )
    return _RANKS[type(event)], values


def coalesce(events: Iterable[Event]) -> tuple[Event, ...]:
    """Merge equal mechanisms by adding their steps; the result is sorted, so that order does not matter.

    Composing 50 equal rounds one by one costs 50 times as much as composing them once merged.
    """
    totals: dict[tuple[int, tuple[float, ...]], tuple[Event, int]] = {}
    for event in events:
        key = _mechanism(event)
        known = totals.get(key)
        totals[key] = (event, times(event) + (known[1] if known else 0))
    return tuple(
        repeated(event, total) for _, (event, total) in sorted(totals.items(), key=lambda item: item[0])
    )
