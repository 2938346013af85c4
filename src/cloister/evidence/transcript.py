"""The privacy transcript: what was done to a dataset, as events, and the epsilon anyone recomputes from them.

Rules kept here:

1. A transcript holds events (mechanism, parameters, number of steps), never an epsilon: epsilon is
   recomputed. Events and their strict codec are those of :mod:`cloister.evidence.privacy_events`.
2. Epsilon is composed in Renyi differential privacy on the fixed integer ``ORDERS``. At integer orders the
   sampled Gaussian's divergence is a finite sum, so no order can fail to converge and two machines agree.
   The best of the orders (:func:`epsilon`) holds for a plan that was fixed in advance. Against a limit on
   spends that follow one another's results the one order of :func:`order_for` counts (:func:`epsilon_held`):
   a Renyi filter is a filter for an order that was fixed before the first spend.
3. The figures hold for one unit, a record or all records of a subject, added or removed (``RELATION``), with
   Poisson sampling of units.
4. A pure mechanism is composed as randomised response, the worst of its epsilon. An approximate one is its
   pure part, and its delta is taken off the delta that the rest is composed at.
5. In the mode ``adaptive`` epsilon is a Renyi figure, in ``fixed_plan`` that of privacy loss distributions.
   The mode belongs to a dataset's ledger and is never chosen by which figure is smaller.
6. Only dp-accounting computes here. It is imported on first use, so reading a transcript needs nothing heavy.

Sources: Feldman and Zrnic 2021 (arXiv:2008.11193, Theorem 4.3) for the filter; Mironov, Talwar, Zhang 2019
(arXiv:1908.10530) for the sampled Gaussian; Canonne, Kamath, Steinke
2020 (arXiv:2004.00010, Proposition 12) for the step from Renyi divergence to (epsilon, delta); Kairouz, Oh,
Viswanath 2015 (arXiv:1311.0776, Theorem 2.1) for pure and approximate mechanisms; Papernot and Steinke 2022
(arXiv:2110.03620, Theorems 2 and 6) for the best of a random number of trials.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from cloister.core.errors import InputError
from cloister.evidence.privacy_events import (
    POISSON,
    Approximate,
    Event,
    Gaussian,
    Pure,
    RepeatAndSelect,
    SampledGaussian,
    coalesce,
    event_from_json,
    event_to_json,
    repeated,
    times,
)

if TYPE_CHECKING:
    from dp_accounting import DpEvent
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

__all__ = [
    "ACCOUNTANTS",
    "ADAPTIVE",
    "APPROXIMATE_SHARE",
    "FIXED_PLAN",
    "ORDERS",
    "PLD_GRID",
    "POISSON",
    "RELATION",
    "Approximate",
    "Event",
    "Gaussian",
    "Mode",
    "Pure",
    "RepeatAndSelect",
    "SampledGaussian",
    "Unit",
    "coalesce",
    "delta_left",
    "epsilon",
    "epsilon_by",
    "epsilon_held",
    "epsilon_pld",
    "event_from_json",
    "event_to_json",
    "order_for",
    "other_mode",
    "repeated",
    "times",
]

ORDERS: Final[tuple[int, ...]] = (*range(2, 65), 72, 80, 96, 128, 192, 256, 384, 512)
"""Renyi orders every epsilon in a receipt is taken over.

Whole numbers only: dp-accounting drops fractional orders that fail to converge. On the configurations in the
tests fractional orders would have lowered epsilon by 1.84 % at most.
"""

APPROXIMATE_SHARE: Final = 0.01
"""The part of delta that approximate mechanisms share in an adaptive ledger; the rest is for all others.

Were it not divided beforehand, an outcome of the first mechanism could decide which of the two uses delta up,
and together they would use almost twice of it.
"""

_GROWTH: Final = 1.2

PLD_GRID: Final = 1e-3
"""Discretisation interval of the privacy loss distribution behind :func:`epsilon_pld`."""

Unit: TypeAlias = Literal["record", "subject"]
"""What one neighbouring dataset has more or less than the other: one row, or all rows of one subject."""

RELATION: Final = "add_or_remove_one"

Mode: TypeAlias = Literal["adaptive", "fixed_plan"]
"""How the spends of a dataset are composed; fixed when its ledger is made.

``adaptive``: by Renyi divergences, at one order fixed with each limit, which keeps the limit also when each
job is chosen after seeing earlier results.
``fixed_plan``: by privacy loss distributions, tighter, valid where every plan was fixed in advance; nothing
that was planned and not done is given back.
"""

ADAPTIVE: Final[Mode] = "adaptive"
FIXED_PLAN: Final[Mode] = "fixed_plan"
ACCOUNTANTS: Final[Mapping[Mode, str]] = {ADAPTIVE: "RDP", FIXED_PLAN: "PLD"}

_LARGEST_PLD: Final = 50.0
"""Above this Renyi epsilon no loss distribution is computed: it would take long, and no limit is near."""


@contextmanager
def _quiet_absl() -> Iterator[None]:
    """Keep dp-accounting from writing a line per order it cannot use."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _gaussian_events(events: Iterable[Event]) -> DpEvent:
    """The part of the events that dp-accounting composes for one record added or removed."""
    import dp_accounting

    parts: list[DpEvent] = []
    for event in events:
        if isinstance(event, Gaussian):
            gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            parts.append(dp_accounting.SelfComposedDpEvent(gaussian, event.count))
        elif isinstance(event, SampledGaussian):
            gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
            sampled = dp_accounting.PoissonSampledDpEvent(event.sampling_probability, gaussian)
            parts.append(dp_accounting.SelfComposedDpEvent(sampled, event.steps))
        elif isinstance(event, RepeatAndSelect):
            trials = dp_accounting.dp_event.RepeatAndSelectDpEvent(
                _gaussian_events(event.trial), event.mean, event.shape
            )
            parts.append(dp_accounting.SelfComposedDpEvent(trials, event.count))
    return dp_accounting.ComposedDpEvent(parts)


def _randomised_responses(events: Iterable[Event]) -> DpEvent:
    """Randomised response of two answers for every pure and approximate mechanism.

    One answer is e**epsilon times as likely under one dataset as under its neighbour and the other the other
    way round: dp-accounting's replace-one relation, for this event only.
    """
    import dp_accounting

    parts: list[DpEvent] = []
    for event in events:
        if isinstance(event, Pure | Approximate):
            response = dp_accounting.RandomizedResponseDpEvent(2 / (1 + math.exp(event.epsilon)), 2)
            parts.append(dp_accounting.SelfComposedDpEvent(response, event.count))
    return dp_accounting.ComposedDpEvent(parts)


def delta_left(events: Iterable[Event], delta: float) -> float:
    """Return what approximate mechanisms leave of a delta; not above 0 where they use it up."""
    return delta - math.fsum(event.count * event.delta for event in events if isinstance(event, Approximate))


def _require_delta(delta: float) -> None:
    if not (math.isfinite(delta) and 0 < delta < 1):
        raise InputError("input.schema", "Delta must lie strictly between 0 and 1.")


def epsilon(events: Sequence[Event], delta: float) -> float:
    """Recompute epsilon from the events, by Renyi composition in dp-accounting, at the best of the orders.

    Valid for a plan that was fixed in advance. Where each job was chosen after seeing the results of earlier
    ones it is an odometer's reading, which no theorem covers; what is promised there is the limit that
    :func:`epsilon_held` is held against.

    Args:
        events: Everything that was done to the dataset. Order does not matter.
        delta: In (0, 1).

    Returns:
        Epsilon for one record added or removed; 0.0 for no events, possibly infinite.

    Raises:
        InputError: ``input.schema`` when delta is out of range.
    """
    _require_delta(delta)
    if not events:
        return 0.0
    merged = coalesce(events)
    left = delta_left(merged, delta)
    if not left > 0:
        return math.inf
    from dp_accounting import rdp

    with _quiet_absl():
        return float(rdp.compute_epsilon(list(ORDERS), list(_divergences(merged)), left)[0])


def order_for(limit: float, delta: float) -> int:
    """Return the Renyi order that spends are held against a limit at: a function of the limit alone.

    It is the order at which the most fits under the limit of a mechanism whose divergence grows with the
    1.2th power of the order. A Gaussian's grows in proportion to it, that of training on samples a little
    faster: so chosen, training needs 0.4 to 1.3 % more noise on the average than by the best order afterwards
    where a step takes a tenth of the units or more, and 4 to 7 % over all settings of ADR 0018.

    Args:
        limit: The ceiling on epsilon.
        delta: At which the ceiling is stated, in (0, 1).

    Returns:
        One of ``ORDERS``; the smaller of equals.
    """

    def room(order: int) -> float:
        return (limit - _conversion(order, (1 - APPROXIMATE_SHARE) * delta)) / math.pow(order, _GROWTH)

    return max(ORDERS, key=room)


def _conversion(order: int, delta: float) -> float:
    """What turns a divergence into epsilon (Canonne, Kamath, Steinke 2020, Proposition 12)."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def epsilon_held(mode: Mode, events: Sequence[Event], delta: float, limit: float) -> float:
    """Recompute the figure that is held against a limit.

    Args:
        mode: of the dataset's ledger. In ``adaptive`` the figure is composed at the limit's own order, with
            ``APPROXIMATE_SHARE`` of delta for approximate mechanisms and the rest for all others. Spends of
            which this figure never passes the limit are (limit, delta)-private, each chosen however after
            seeing the results of those before (Feldman and Zrnic 2021).
        events: everything the limit is about.
        delta: in (0, 1).
        limit: the ceiling on epsilon.

    Returns:
        Epsilon; infinite where approximate mechanisms pass their share. In ``adaptive`` it says little below
        the limit: one step may read as half of it, and a hundred as all.

    Raises:
        InputError: ``input.schema`` when delta is out of range.
    """
    if mode != ADAPTIVE:
        return epsilon_by(mode, events, delta)
    _require_delta(delta)
    merged = coalesce(events)
    if not merged:
        return 0.0
    if not shares_delta(delta - delta_left(merged, delta), delta):
        return math.inf
    from dp_accounting import rdp

    order = order_for(limit, delta)
    divergence = _divergences(merged)[ORDERS.index(order)]
    with _quiet_absl():
        return float(rdp.compute_epsilon([order], [divergence], (1 - APPROXIMATE_SHARE) * delta)[0])


def shares_delta(used: float, delta: float) -> bool:
    """Whether approximate mechanisms that use so much of delta keep within their share, but for rounding."""
    return used <= APPROXIMATE_SHARE * delta * (1 + 1e-9)


@lru_cache(maxsize=256)
def _divergences(merged: tuple[Event, ...]) -> tuple[float, ...]:
    """What all events add up to at each of ``ORDERS``."""
    from dp_accounting import NeighboringRelation, rdp

    with _quiet_absl():
        accountant = rdp.RdpAccountant(orders=list(ORDERS))
        accountant.compose(_gaussian_events(merged))
        responses = rdp.RdpAccountant(list(ORDERS), NeighboringRelation.REPLACE_ONE)
        responses.compose(_randomised_responses(merged))
        # Hardly anything told apart may round to a little less than nothing.
        return tuple((accountant.rdp + responses.rdp.clip(min=0.0)).tolist())


def epsilon_pld(events: Sequence[Event], delta: float) -> float:
    """Recompute epsilon by privacy loss distributions: tighter, but valid only for a plan fixed in advance.

    The best of a random number of trials has a Renyi bound only. It is taken as the (epsilon, delta) that
    this bound gives at a tenth of delta, and composed as such.

    Args:
        events: Everything that was done to the dataset.
        delta: In (0, 1).

    Returns:
        A pessimistic epsilon on a grid of ``PLD_GRID``. Time and memory grow with epsilon, so
        bound events that come from elsewhere by :func:`epsilon` first.

    Raises:
        InputError: ``input.schema`` when delta is out of range.
    """
    _require_delta(delta)
    if not events:
        return 0.0
    merged = coalesce(events)
    selections = [event for event in merged if isinstance(event, RepeatAndSelect)]
    others = [event for event in merged if not isinstance(event, RepeatAndSelect)]
    if selections:
        bound = epsilon(selections, delta / 10)
        if not bound <= 100:
            return math.inf
        others.append(Approximate(max(bound, 1e-6), delta / 10, 1))
    left = delta_left(others, delta)
    if not left > 0:
        return math.inf
    from dp_accounting.pld import privacy_loss_distribution

    with _quiet_absl():
        total = privacy_loss_distribution.identity(PLD_GRID)
        for event in others:
            total = total.compose(_privacy_losses(event))
        return float(total.get_epsilon_for_delta(left))


def epsilon_by(mode: Mode, events: Sequence[Event], delta: float) -> float:
    """Recompute epsilon as a ledger's mode says.

    Args:
        mode: of the dataset's ledger.
        events: everything that was done to the dataset.
        delta: in (0, 1).

    Returns:
        The Renyi figure at the best order in ``adaptive``; in ``fixed_plan`` that of privacy loss
        distributions, or the Renyi one where that is above 50, which bounds it too.

    Raises:
        InputError: ``input.schema`` when delta is out of range.
    """
    bound = epsilon(events, delta)
    return bound if mode == ADAPTIVE or not bound <= _LARGEST_PLD else epsilon_pld(events, delta)


def other_mode(mode: Mode) -> Mode:
    """The mode whose figure is reported beside."""
    return FIXED_PLAN if mode == ADAPTIVE else ADAPTIVE


@lru_cache(maxsize=128)
def _privacy_losses(event: Event) -> PrivacyLossDistribution:
    from dp_accounting.pld import common, privacy_loss_distribution

    if isinstance(event, Pure | Approximate):
        one = privacy_loss_distribution.from_privacy_parameters(
            common.DifferentialPrivacyParameters(event.epsilon, 0.0), PLD_GRID
        )
        return one.self_compose(event.count)
    if isinstance(event, Gaussian):
        return privacy_loss_distribution.from_gaussian_mechanism(
            event.noise_multiplier / math.sqrt(event.count), value_discretization_interval=PLD_GRID
        )
    if isinstance(event, SampledGaussian):
        step = privacy_loss_distribution.from_gaussian_mechanism(
            event.noise_multiplier,
            value_discretization_interval=PLD_GRID,
            sampling_prob=event.sampling_probability,
        )
        return step.self_compose(event.steps)
    raise InputError("input.schema", "This privacy event has no privacy loss distribution.")
