"""Figures about private records that may leave a site: counts, histograms, sums, means and accuracies.

Rules kept here:

1. A figure leaves only with noise, and only after its spend was reserved in the dataset's ledger. What is
   asked for wrongly is refused before anything is reserved; what fails afterwards stays spent.
2. Every value has declared bounds. A value outside of them is refused, or clamped where the schema says so;
   bounds are never taken from the records. A loss has no bound, so there is no release of losses.
3. Value and noise are whole steps of one grid (:mod:`cloister.privacy.noise`), so that no floating-point gap
   tells neighbours apart; the rounding is part of the sensitivity, hence of the noise.
4. The 95 % interval that comes with a figure includes the noise. Clamping to what is possible is
   post-processing.
5. Each entry of the values is one protected unit, and whoever asks says which; another than the ledger's is
   refused. Where a subject has several records, :func:`per_subject` makes one value of them first.
6. The number of units that a mean is divided by is public: a figure that everybody may know, declared.

Sources: Dwork and Roth 2014, section 3.5.3 (Gaussian mechanism) and Proposition 2.1 (post-processing).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cloister.core.errors import InputError
from cloister.evidence.transcript import Gaussian, Unit
from cloister.privacy.account import Account
from cloister.privacy.errors import PrivacyError
from cloister.privacy.ledger import Purpose
from cloister.privacy.noise import IntegerNoise, choose_grid

Values = npt.NDArray[np.float64]

MOST_UNITS: Final = 2**24
"""Largest number of units that one figure is taken over: sums of more could pass what the grid holds."""

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class NoisyValue:
    """One figure with its 95 % interval, which includes the noise.

    Args:
        value: The figure, clamped to what is possible.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Release:
    """Figures that were released together and paid for once.

    Args:
        kind: What was released.
        figures: By name.
        about: ``records``: the intervals are for these records. ``population``: for where they come from.
        event: What it cost.
        noise_generator: Name of the generator that made the noise.
    """

    kind: Literal["count", "histogram", "sum", "mean", "accuracy"]
    figures: Mapping[str, NoisyValue]
    about: Literal["records", "population"]
    event: Gaussian
    noise_generator: str

    @property
    def only(self) -> NoisyValue:
        """The figure of a release that has one."""
        (figure,) = self.figures.values()
        return figure


def release_count(
    count: int, *, unit: Unit, noise_multiplier: float, noise: IntegerNoise, account: Account
) -> Release:
    """Release how many units have a property.

    Args:
        count: The exact count, private.
        unit: What each is one of; the ledger has to protect it.
        noise_multiplier: Standard deviation of the noise.
        noise: Where the noise comes from.
        account: Who pays.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        PrivacyError: ``privacy.data_invalid`` for a negative or too large count.
    """
    return release_histogram(
        {"count": count},
        unit=unit,
        noise_multiplier=noise_multiplier,
        noise=noise,
        account=account,
        kind="count",
    )


def release_histogram(
    counts: Mapping[str, int],
    *,
    unit: Unit,
    noise_multiplier: float,
    noise: IntegerNoise,
    account: Account,
    kind: Literal["count", "histogram"] = "histogram",
) -> Release:
    """Release how many units fall into each of several bins; a unit falls into one bin at most.

    Args:
        counts: The exact count of every declared bin, private; bins are declared, also the empty ones.
        unit: What each is one of; the ledger has to protect it.
        noise_multiplier: Standard deviation of the noise on each count.
        noise: Where the noise comes from.
        account: Who pays.
        kind: How the release calls itself.

    Returns:
        Counts whose intervals hold all together with 95 %.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        PrivacyError: ``privacy.data_invalid`` for no bin, or an impossible count.
    """
    if not counts or min(counts.values()) < 0 or sum(counts.values()) > MOST_UNITS:
        raise PrivacyError(
            "privacy.data_invalid", f"Counts must lie between 0 and {MOST_UNITS}, all together."
        )
    exact = np.array(list(counts.values()), dtype=np.float64)
    noisy, spread, event = _charged(exact, 1.0, noise_multiplier, noise, account, unit)
    half = _normal_quantile(len(counts)) * spread
    figures = {
        name: NoisyValue(max(0.0, value), max(0.0, value - half), max(0.0, value + half))
        for name, value in zip(counts, noisy.tolist(), strict=True)
    }
    return Release(kind, MappingProxyType(figures), "records", event, noise.generator)


def release_sum(
    values: Values,
    bounds: tuple[float, float],
    *,
    unit: Unit,
    noise_multiplier: float,
    noise: IntegerNoise,
    account: Account,
    clamp: bool = False,
) -> Release:
    """Release a sum of bounded values, one of each unit.

    Args:
        values: float64 of shape [units], private.
        bounds: Declared lowest and highest value.
        unit: What each is one of; the ledger has to protect it.
        noise_multiplier: Standard deviation of the noise, divided by the largest possible value's size.
        noise: Where the noise comes from.
        account: Who pays.
        clamp: Whether the schema says that values outside the bounds are clamped; else they are refused.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        PrivacyError: ``privacy.data_invalid`` for values that are not finite or out of bounds.
    """
    within = _bounded(values, bounds, clamp)
    largest = max(abs(bounds[0]), abs(bounds[1]))
    exact = np.array([math.fsum(within.tolist())])
    noisy, spread, event = _charged(exact, largest, noise_multiplier, noise, account, unit)
    half = _normal_quantile(1) * spread
    value = float(noisy[0])
    figures = MappingProxyType({"sum": NoisyValue(value, value - half, value + half)})
    return Release("sum", figures, "records", event, noise.generator)


def release_mean(
    values: Values,
    bounds: tuple[float, float],
    units: int,
    *,
    unit: Unit,
    noise_multiplier: float,
    noise: IntegerNoise,
    account: Account,
    clamp: bool = False,
    kind: Literal["mean", "accuracy"] = "mean",
) -> Release:
    """Release a mean of bounded values, one of each unit.

    What is released is the sum of distances from the middle of the bounds, divided by a public number: a unit
    moves that sum by half the range at most, which is less than it moves the plain sum.

    Args:
        values: float64 of shape [units], private.
        bounds: Declared lowest and highest value.
        units: The public number to divide by.
        unit: What each is one of; the ledger has to protect it.
        noise_multiplier: Standard deviation of the noise, divided by half the range.
        noise: Where the noise comes from.
        account: Who pays.
        clamp: Whether the schema says that values outside the bounds are clamped; else they are refused.
        kind: How the release calls itself.

    Returns:
        The mean. Its interval is for the population that the units are a sample of: sampling and noise, with
        the largest variance that the bounds allow.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        PrivacyError: ``privacy.data_invalid`` for values that are not finite or out of bounds, or no units.
    """
    if not 1 <= units <= MOST_UNITS:
        raise PrivacyError("privacy.data_invalid", f"A mean is taken over one to {MOST_UNITS} units.")
    within = _bounded(values, bounds, clamp)
    middle, half_range = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
    exact = np.array([math.fsum((within - middle).clip(-half_range, half_range).tolist())])
    noisy, spread, event = _charged(exact, half_range, noise_multiplier, noise, account, unit)
    value = float(noisy[0]) / units + middle
    half = _normal_quantile(1) * math.hypot(half_range / math.sqrt(units), spread / units)

    def possible(figure: float) -> float:
        return min(bounds[1], max(bounds[0], figure))

    figure = NoisyValue(possible(value), possible(value - half), possible(value + half))
    return Release(kind, MappingProxyType({kind: figure}), "population", event, noise.generator)


def release_accuracy(
    correct: npt.NDArray[np.bool_] | Values,
    units: int,
    *,
    unit: Unit,
    noise_multiplier: float,
    noise: IntegerNoise,
    account: Account,
) -> Release:
    """Release the accuracy on private records.

    Args:
        correct: Of shape [units], private: whether each was classified rightly; of a subject with several
            records, the share of them (:func:`per_subject`).
        units: Their public number.
        unit: What each is one of; the ledger has to protect it.
        noise_multiplier: Standard deviation of the noise divided by one half, as in :func:`release_mean`.
        noise: Where the noise comes from.
        account: Who pays.

    Raises:
        BudgetExceeded: The spend would pass a limit; nothing is released.
        PrivacyError: ``privacy.data_invalid`` for shares outside [0, 1], or no units.
    """
    return release_mean(
        correct.astype(np.float64),
        (0.0, 1.0),
        units,
        unit=unit,
        noise_multiplier=noise_multiplier,
        noise=noise,
        account=account,
        kind="accuracy",
    )


def per_subject(values: Values, subjects: npt.NDArray[np.int64]) -> Values:
    """Make one value of each subject's records: their mean, which keeps the bounds.

    Args:
        values: float64 of shape [records].
        subjects: int64 of shape [records], whose record each is.

    Returns:
        float64 of shape [subjects], in ascending order of subject.

    Raises:
        PrivacyError: ``privacy.data_invalid`` when the shapes don't agree.
    """
    if values.ndim != 1 or values.shape != subjects.shape:
        raise PrivacyError("privacy.data_invalid", "Each value needs its subject.")
    _, place, records = np.unique(subjects, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=values) / records
    # Rounded, a mean may lie a last bit outside of what it is the mean of, and so outside the bounds.
    least, most = np.full(len(means), np.inf), np.full(len(means), -np.inf)
    np.minimum.at(least, place, values)
    np.maximum.at(most, place, values)
    return means.clip(least, most).astype(np.float64)


def _bounded(values: Values, bounds: tuple[float, float], clamp: bool) -> Values:  # noqa: FBT001
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PrivacyError("privacy.data_invalid", "Bounds must be two finite numbers, the lower one first.")
    if values.ndim != 1 or len(values) > MOST_UNITS or not np.isfinite(values).all():
        raise PrivacyError(
            "privacy.data_invalid", f"Values must be finite, one of each unit, {MOST_UNITS} at most."
        )
    within = values.astype(np.float64).clip(low, high)
    if not clamp and (within != values).any():
        raise PrivacyError(
            "privacy.data_invalid",
            "A value lies outside its declared bounds.",
            "Declare wider bounds, or say in the schema that values are clamped.",
        )
    return within


def _charged(
    exact: Values,
    sensitivity: float,
    noise_multiplier: float,
    noise: IntegerNoise,
    account: Account,
    unit: Unit,
) -> tuple[Values, float, Gaussian]:
    """Pay, then add noise on the grid; returns the noisy values and the noise's standard deviation."""
    try:
        event = Gaussian(noise_multiplier, 1)
    except InputError as error:
        raise PrivacyError("privacy.plan_invalid", error.message) from None
    grid = choose_grid(sensitivity, noise_multiplier, parameters=len(exact), units=MOST_UNITS, summands=1)

    def noisy() -> Values:
        steps = np.rint(exact / grid.step).astype(np.int64) + noise.draw(len(exact), grid.bits)
        return (steps * grid.step).astype(np.float64)

    # Rounding and the floor of the noise are two steps at most beside the noise.
    values = account.pay(event, Purpose.EVALUATION, noisy, unit=unit, noise_generator=noise.generator)
    return values, grid.deviation + 2 * grid.step, event


def _normal_quantile(figures: int) -> float:
    """Two-sided quantile that several independent normals keep within together (Sidak 1967)."""
    each: float = CONFIDENCE ** (1 / figures)
    return NormalDist().inv_cdf((1 + each) / 2)
