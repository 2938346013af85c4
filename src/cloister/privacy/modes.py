"""The two ways to compose a dataset's spends, as one set of functions over the mode.

Rules kept here:

1. ``adaptive`` calibrates and admits by Renyi composition at one order, fixed with the limit: a valid filter
   where each job is chosen after seeing the results of earlier ones (Feldman and Zrnic 2021,
   arXiv:2008.11193), so unused steps may be given back. What is held against a limit (:func:`held_in`) and
   what is reported of a plan (:func:`epsilon_in`, the best of all orders) are two figures.
2. ``fixed_plan`` calibrates and admits by privacy loss distributions, pessimistic on a grid of ``PLD_GRID``:
   valid where every plan was fixed in advance, so nothing is given back. That it was is the hospital's own
   statement: a ledger can't know when a plan was made.
3. A mode is chosen once, when a ledger is made, and never by which figure is smaller: the better of two
   filters, taken job by job, is no filter. The other figure is only reported.
4. Central-limit accounting (GDP) is refused by name: it understates epsilon, by up to 27 % on the
   configurations it was held against.

Sources: Koskela, Jaelkoe, Honkela 2020 (arXiv:1906.03049) and Doroshenko et al. 2022 (arXiv:2207.04380) for
privacy loss distributions; Dong, Roth, Su 2022 (arXiv:1905.02383) for GDP.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from cloister.evidence.transcript import (
    ADAPTIVE,
    FIXED_PLAN,
    Event,
    Mode,
    SampledGaussian,
    coalesce,
    delta_left,
    epsilon_by,
)
from cloister.privacy.accountant import (
    AGREEMENT,
    NOISE_STEP,
    calibrate_noise,
    calibrate_noise_in_advance,
    epsilon_of,
    held_of,
    max_steps,
    max_steps_in_advance,
)
from cloister.privacy.errors import PrivacyError

_LARGEST_STEPS = 10**9


def require_mode(name: str) -> Mode:
    """Return the mode of this name.

    Args:
        name: ``adaptive`` or ``fixed_plan``.

    Raises:
        PrivacyError: ``privacy.accountant_refused``, for GDP with the reason.
    """
    if name == ADAPTIVE:
        return ADAPTIVE
    if name == FIXED_PLAN:
        return FIXED_PLAN
    if name.lower() in {"gdp", "clt", "f-dp"}:
        raise PrivacyError(
            "privacy.accountant_refused",
            "Central-limit accounting (GDP) understates epsilon, so no budget is kept by it.",
            "Use adaptive (Renyi) or fixed_plan (privacy loss distributions).",
        )
    raise PrivacyError(
        "privacy.accountant_refused",
        "There is no such way to compose a budget's spends.",
        "Use adaptive (Renyi) or fixed_plan (privacy loss distributions).",
    )


def epsilon_in(mode: Mode, events: Sequence[Event], delta: float) -> float:
    """Return the composed epsilon of the events as a ledger's mode says; 0.0 for none.

    In ``adaptive`` it holds for a plan fixed in advance. Of spends that followed one another's results it is
    an odometer's reading: what is promised is the limit they were held against by :func:`held_in`.
    """
    if mode == ADAPTIVE:
        return epsilon_of(events, delta)
    return _fixed_epsilon(coalesce(events), delta) if events else 0.0


def held_in(mode: Mode, events: Sequence[Event], delta: float, limit: float) -> float:
    """Return the figure of the events that is held against a limit, as a ledger's mode says; 0.0 for none.

    Args:
        mode: Of the dataset's ledger.
        events: Everything the limit is about.
        delta: In (0, 1).
        limit: The ceiling on epsilon; in ``adaptive`` it fixes the order.
    """
    return held_of(events, delta, limit) if mode == ADAPTIVE else epsilon_in(mode, events, delta)


@lru_cache(maxsize=512)
def _fixed_epsilon(events: tuple[Event, ...], delta: float) -> float:
    return epsilon_by(FIXED_PLAN, events, delta)


def calibrate(
    mode: Mode,
    target_epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    *,
    spent: Sequence[Event] = (),
) -> float:
    """Find the smallest noise multiplier, to three decimals, with which a plan keeps its target.

    Args:
        mode: Of the dataset's ledger.
        target_epsilon: Above 0.
        delta: In (0, 1).
        sampling_probability: In (0, 1].
        steps: Of the whole plan, all rounds together.
        spent: What was done to the dataset before, which the target has to hold too.

    Raises:
        PrivacyError: ``privacy.unreachable_target`` or ``privacy.budget_invalid``.
    """
    if mode == ADAPTIVE:
        return calibrate_noise(target_epsilon, delta, sampling_probability, steps, spent=spent)
    least_by_renyi = calibrate_noise_in_advance(
        target_epsilon, delta, sampling_probability, steps, spent=spent
    )

    def fits(thousandths: int) -> bool:
        plan = SampledGaussian(sampling_probability, thousandths * NOISE_STEP, steps)
        return epsilon_in(mode, [*spent, plan], delta) + AGREEMENT <= target_epsilon

    low, high = 0, round(least_by_renyi / NOISE_STEP)
    while not fits(high):  # where the grid's pessimism outweighs what is gained
        low, high = high, high + high // 20 + 1
    while high - low > 1:
        # The gain is rarely above a quarter, so the first look is there.
        middle = max(low + 1, 3 * high // 4) if low == 0 else (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high * NOISE_STEP


def steps_within(
    mode: Mode,
    limit_epsilon: float,
    delta: float,
    sampling_probability: float,
    noise_multiplier: float,
    *,
    spent: Sequence[Event] = (),
) -> int:
    """Return how many more steps fit under a limit, so that the check per step is a comparison of integers.

    Args:
        mode: Of the dataset's ledger.
        limit_epsilon: The ceiling.
        delta: In (0, 1).
        sampling_probability: In (0, 1].
        noise_multiplier: Above 0.
        spent: What was done to the dataset before.

    Returns:
        A count of 0 or more, capped at 10**9.
    """
    if mode == ADAPTIVE:
        return max_steps(limit_epsilon, delta, sampling_probability, noise_multiplier, spent=spent)
    if not delta_left(spent, delta) > 0:
        return 0
    by_renyi = max_steps_in_advance(limit_epsilon, delta, sampling_probability, noise_multiplier, spent=spent)

    def fits(count: int) -> bool:
        step = SampledGaussian(sampling_probability, noise_multiplier, count)
        return epsilon_in(mode, [*spent, step], delta) + AGREEMENT <= limit_epsilon

    low = by_renyi
    while low and not fits(low):
        low = low * 19 // 20
    high = low + 1
    while high <= _LARGEST_STEPS and fits(high):
        low, high = high, high + high // 4 + 1
    high = min(high, _LARGEST_STEPS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
