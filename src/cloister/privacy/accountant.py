"""The accountant used while training: Renyi composition as one cached vector per mechanism.

Rules kept here:

1. The figures equal dp-accounting's on the same ``ORDERS`` (tested to 1e-6); receipts are always recomputed
   with dp-accounting itself (:mod:`cloister.evidence.transcript`), never copied from here.
2. Composition adds Renyi divergences. What is held against a limit (:func:`held_from_rdp`) is composed at
   the one order that was fixed with the limit, which makes admission by it a valid filter for jobs chosen
   adaptively (Feldman and Zrnic 2021); the best of all orders (:func:`epsilon_of`) is none, and is reported
   alone. Central-limit (GDP) accounting is not offered: it understates epsilon.
3. A pure mechanism is composed as randomised response; an approximate one's delta is taken off the total.
4. Calibration rounds the noise up, so that the plan it is made for always fits.

Sources: Mironov, Talwar, Zhang 2019 (arXiv:1908.10530, equation 5 of section 3.3: integer orders);
Canonne, Kamath, Steinke 2020 (arXiv:2004.00010, Proposition 12); Kairouz, Oh, Viswanath 2015
(arXiv:1311.0776, Theorem 2.1); Papernot and Steinke 2022 (arXiv:2110.03620, Theorems 2 and 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from cloister.evidence.transcript import (
    APPROXIMATE_SHARE,
    ORDERS,
    POISSON,
    Approximate,
    Event,
    Gaussian,
    Pure,
    RepeatAndSelect,
    SampledGaussian,
    coalesce,
    delta_left,
    order_for,
    shares_delta,
)
from cloister.privacy.errors import PrivacyError

Vector = npt.NDArray[np.float64]

AGREEMENT: Final = 1e-6
"""Margin kept below every limit: our figure and dp-accounting's differ by less, so a recomputation never
passes it."""

NOISE_STEP: Final = 1e-3
"""Noise multipliers are calibrated to multiples of this."""

_LARGEST_NOISE: Final = 1e4


@lru_cache(maxsize=1)
def _binomials() -> tuple[Vector, Vector, Vector, npt.NDArray[np.int64]]:
    """Terms of the finite sums at all orders: order, index, log binomial coefficient, row starts."""
    log_factorial = np.concatenate(
        ([0.0], np.cumsum(np.log(np.arange(1, max(ORDERS) + 1, dtype=np.float64))))
    )
    alpha = np.concatenate([np.full(order + 1, order) for order in ORDERS])
    index = np.concatenate([np.arange(order + 1) for order in ORDERS])
    coefficient = log_factorial[alpha] - log_factorial[index] - log_factorial[alpha - index]
    starts = np.concatenate(([0], np.cumsum([order + 1 for order in ORDERS])[:-1]))
    return alpha.astype(np.float64), index.astype(np.float64), coefficient, starts


_ALPHA: Final[Vector] = np.array(ORDERS, dtype=np.float64)


@lru_cache(maxsize=4096)
def _step_vector(sampling_probability: float, noise_multiplier: float) -> Vector:
    q, sigma = sampling_probability, noise_multiplier
    if q == 1.0:
        vector = _ALPHA / (2 * sigma**2)
    else:
        alpha, index, coefficient, starts = _binomials()
        terms = coefficient + index * math.log(q) + (alpha - index) * math.log1p(-q)
        terms = terms + (index * index - index) / (2 * sigma**2)
        top = np.maximum.reduceat(terms, starts)
        lengths = _ALPHA.astype(np.int64) + 1
        total = np.add.reduceat(np.exp(terms - np.repeat(top, lengths)), starts)
        vector = np.maximum((top + np.log(total)) / (_ALPHA - 1), 0.0)
    vector.flags.writeable = False
    return vector


@lru_cache(maxsize=1024)
def _response_vector(epsilon: float) -> Vector:
    """Randomised response of two answers: the worst of all epsilon-private mechanisms."""
    both = np.logaddexp(_ALPHA * epsilon, (1 - _ALPHA) * epsilon) - np.logaddexp(epsilon, 0.0)
    vector: Vector = np.maximum(both / (_ALPHA - 1), 0.0)
    vector.flags.writeable = False
    return vector


def log_halting(shape: float, mean: float) -> float:
    """Return the log of the halting probability of a truncated negative binomial law with this mean.

    Args:
        shape: 0 (logarithmic), 1 (geometric) or any other value above 0.
        mean: At least 1; the mean falls as the probability grows, from infinity at 0 to 1 at 1.

    Returns:
        The log of a probability in (0, 1], found to a few last bits and rounded down.
    """
    if shape == 1 or mean == 1:
        return -math.log(mean)
    low, high = -math.log(mean) * 4 - 100, 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        low, high = (low, middle) if _trials_mean(shape, middle) < mean else (middle, high)
    return low


def _trials_mean(shape: float, log_gamma: float) -> float:
    """Papernot and Steinke 2022, Definition 1."""
    odds = math.expm1(-log_gamma)  # 1 / gamma - 1
    if odds == 0:
        return 1.0
    if shape == 0:
        return odds / -log_gamma
    return shape * odds / -math.expm1(shape * log_gamma)


@lru_cache(maxsize=256)
def _selection_vector(event: RepeatAndSelect) -> Vector:
    trial = rdp_vector(event.trial[0]) + rdp_vector(event.trial[1])
    if event.shape == POISSON:
        epsilon = np.log1p(1 / (_ALPHA - 1))
        vector = trial + event.mean * _delta_from_rdp(trial, epsilon) + math.log(event.mean) / (_ALPHA - 1)
    else:
        gamma = log_halting(event.shape, event.mean)
        constant = (1 + event.shape) * float(np.min((1 - 1 / _ALPHA) * trial - gamma / _ALPHA))
        vector = trial + math.log(event.mean) / (_ALPHA - 1) + constant
        # A divergence never falls with its order.
        vector = np.minimum.accumulate(vector[::-1])[::-1]
    vector = np.array(vector)
    vector.flags.writeable = False
    return vector


def _delta_from_rdp(vector: Vector, epsilon: Vector) -> Vector:
    """Canonne, Kamath, Steinke 2020, Proposition 12, at several epsilons; and the total variation."""
    total_variation = float(np.min(0.5 * np.log(np.maximum(-np.expm1(-vector), 1e-320))))
    by_order = (_ALPHA - 1) * (vector - epsilon[:, None] + np.log1p(-1 / _ALPHA)) - np.log(_ALPHA)
    best: Vector = np.exp(np.minimum(np.min(by_order, axis=1), min(total_variation, 0.0)))
    return best


def rdp_vector(event: Event) -> Vector:
    """Return the Renyi divergence of the whole event at each of ``ORDERS``.

    Args:
        event: A mechanism with its number of steps. Of an approximate one, the pure part.

    Returns:
        float64 of shape [len(ORDERS)], finite and non-negative.
    """
    match event:
        case SampledGaussian():
            return event.steps * _step_vector(event.sampling_probability, event.noise_multiplier)
        case Gaussian():
            return event.count * _step_vector(1.0, event.noise_multiplier)
        case Pure() | Approximate():
            return event.count * _response_vector(event.epsilon)
        case RepeatAndSelect():
            return event.count * _selection_vector(event)


def composed(events: Sequence[Event]) -> Vector:
    """Return the Renyi divergence of all events together, shape [len(ORDERS)]."""
    total = np.zeros(len(ORDERS))
    for event in coalesce(events):
        total += rdp_vector(event)
    return total


def epsilon_from_rdp(vector: Vector, delta: float) -> float:
    """Turn a composed Renyi divergence into epsilon (Canonne, Kamath, Steinke 2020, Proposition 12).

    Args:
        vector: Shape [len(ORDERS)].
        delta: In (0, 1).

    Returns:
        The smallest epsilon over all orders, at least 0; infinite where no delta is left.
    """
    return float(np.min(_by_order(vector, delta))) if delta > 0 else math.inf


def _by_order(vector: Vector, delta: float) -> Vector:
    epsilons = vector + np.log1p(-1 / _ALPHA) - np.log(delta * _ALPHA) / (_ALPHA - 1)
    # Where the total variation bound sqrt(1 - exp(-KL)) is below delta already, epsilon is 0.
    epsilons = np.where(delta**2 + np.expm1(-vector) > 0, 0.0, epsilons)
    kept: Vector = np.maximum(0.0, epsilons)
    return kept


_order_for = lru_cache(maxsize=1024)(order_for)


def held_from_rdp(vector: Vector, used_delta: float, delta: float, limit: float) -> float:
    """Return the figure that is held against a limit, as :func:`cloister.evidence.transcript.epsilon_held`.

    Args:
        vector: Composed Renyi divergence, shape [len(ORDERS)].
        used_delta: What approximate mechanisms use of delta.
        delta: In (0, 1).
        limit: The ceiling on epsilon, which fixes the order.

    Returns:
        Epsilon at the limit's order, at least 0; infinite where approximate mechanisms pass their share.
    """
    if not shares_delta(used_delta, delta):
        return math.inf
    at = ORDERS.index(_order_for(limit, delta))
    return float(_by_order(vector, (1 - APPROXIMATE_SHARE) * delta)[at])


def epsilon_of(events: Sequence[Event], delta: float) -> float:
    """Return the composed epsilon of the events at the best of all orders; 0.0 for none.

    It holds for a plan that was fixed in advance.
    """
    return epsilon_from_rdp(composed(events), delta_left(events, delta)) if events else 0.0


def epsilon_after(events: Sequence[Event], following: Event, delta: float) -> float:
    """Return what epsilon would be once ``following`` had happened too."""
    return epsilon_of([*events, following], delta)


def held_of(events: Sequence[Event], delta: float, limit: float) -> float:
    """Return the figure of the events that is held against a limit; 0.0 for none."""
    if not events:
        return 0.0
    return held_from_rdp(composed(events), delta - delta_left(events, delta), delta, limit)


def calibrate_noise(
    target_epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    *,
    spent: Sequence[Event] = (),
) -> float:
    """Find the smallest noise multiplier, to three decimals, with which a ledger admits a plan to its target.

    Args:
        target_epsilon: The limit, above 0.
        delta: In (0, 1).
        sampling_probability: In (0, 1].
        steps: Steps of the whole plan, all rounds together.
        spent: What was done to the dataset before, which the target has to hold too.

    Returns:
        The noise multiplier; ``held_of`` of what was spent and the plan with it is at most the target.

    Raises:
        PrivacyError: ``privacy.unreachable_target`` when even a noise of 10,000 is too little;
            ``privacy.budget_invalid`` for an impossible target.
    """
    before, used = composed(spent), delta - delta_left(spent, delta)

    def figure(plan: Vector) -> float:
        return held_from_rdp(before + plan, used, delta, target_epsilon)

    return _least_noise(figure, target_epsilon, delta, sampling_probability, steps)


def calibrate_noise_in_advance(
    target_epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    *,
    spent: Sequence[Event] = (),
) -> float:
    """As :func:`calibrate_noise`, at the best of all orders: where every plan was fixed in advance."""
    before, left = composed(spent), delta_left(spent, delta)

    def figure(plan: Vector) -> float:
        return epsilon_from_rdp(before + plan, left)

    return _least_noise(figure, target_epsilon, delta, sampling_probability, steps)


def _least_noise(
    figure: Callable[[Vector], float],
    target_epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
) -> float:
    if not (math.isfinite(target_epsilon) and target_epsilon > 0 and 0 < delta < 1):
        raise PrivacyError("privacy.budget_invalid", "Epsilon must be above 0 and delta between 0 and 1.")

    def fits(thousandths: int) -> bool:
        plan = SampledGaussian(sampling_probability, thousandths * NOISE_STEP, steps)
        return figure(rdp_vector(plan)) + AGREEMENT <= target_epsilon

    low, high = 0, 1000
    while not fits(high):
        low, high = high, high * 2
        if high * NOISE_STEP > _LARGEST_NOISE:
            raise PrivacyError(
                "privacy.unreachable_target",
                "No usable amount of noise keeps this plan within the target epsilon.",
                "Ask for a larger epsilon or delta, or for fewer steps.",
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high * NOISE_STEP


def max_steps(
    limit_epsilon: float,
    delta: float,
    sampling_probability: float,
    noise_multiplier: float,
    *,
    spent: Sequence[Event] = (),
) -> int:
    """Return how many more steps fit under a limit, so that the check per step is a comparison of integers.

    Args:
        limit_epsilon: The ceiling.
        delta: In (0, 1).
        sampling_probability: In (0, 1].
        noise_multiplier: Above 0.
        spent: What was done to the dataset before.

    Returns:
        A count of 0 or more, capped at 10**9, by ``held_of``.
    """
    before, used = composed(spent), delta - delta_left(spent, delta)
    step = _step_vector(float(sampling_probability), float(noise_multiplier))

    def fits(count: int) -> bool:
        return held_from_rdp(before + count * step, used, delta, limit_epsilon) + AGREEMENT <= limit_epsilon

    return _most_steps(fits)


def max_steps_in_advance(
    limit_epsilon: float,
    delta: float,
    sampling_probability: float,
    noise_multiplier: float,
    *,
    spent: Sequence[Event] = (),
) -> int:
    """As :func:`max_steps`, at the best of all orders: where every plan was fixed in advance."""
    before, left = composed(spent), delta_left(spent, delta)
    step = _step_vector(float(sampling_probability), float(noise_multiplier))

    def fits(count: int) -> bool:
        return epsilon_from_rdp(before + count * step, left) + AGREEMENT <= limit_epsilon

    return _most_steps(fits)


def _most_steps(fits: Callable[[int], bool]) -> int:
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= 10**9 and fits(high):
        low, high = high, high * 2
    high = min(high, 10**9 + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
