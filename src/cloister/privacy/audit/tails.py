"""How unlikely an observation is in an honest trainer: exact tails, or bounds for every sample size.

Each function returns an upper bound on a probability, so that the false-alarm rate of a check is never larger
than stated. Only :func:`dispersion` rests on an approximation and says so.

Sources: Chernoff 1952 and Hoeffding 1963 (binomial tails by relative entropy); Massart 1990 (the constant of
the Dvoretzky-Kiefer-Wolfowitz inequality); Ball 1997, lemma 2.2 (caps of the sphere).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch


def chi_square(total: float, draws: int) -> float:
    """Chance that a sum of ``draws`` squared standard normals is as far out as ``total``, on either side.

    Args:
        total: The sum.
        draws: Degrees of freedom, at least 1.
    """
    if not math.isfinite(total):
        return 0.0
    shape, half = torch.tensor(draws / 2, dtype=torch.float64), torch.tensor(total / 2, dtype=torch.float64)
    below = float(torch.special.gammainc(shape, half))
    above = float(torch.special.gammaincc(shape, half))
    return min(1.0, 2 * min(below, above))


def binomial(successes: int, trials: int, probability: float) -> float:
    """Bound on the chance that a binomial count is as far out as ``successes``, on either side.

    Args:
        successes: The count.
        trials: At least 1.
        probability: In (0, 1).
    """
    share = successes / trials
    entropy = 0.0
    if share > 0:
        entropy += share * math.log(share / probability)
    if share < 1:
        entropy += (1 - share) * math.log((1 - share) / (1 - probability))
    return min(1.0, 2 * math.exp(-trials * entropy))


def normal_shape(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Compare the empirical law of values with the standard normal.

    Returns:
        The largest distance of the two distribution functions, and the bound on its chance.
    """
    ordered = np.sort(values)
    exact = torch.special.ndtr(torch.from_numpy(ordered)).numpy()
    count = len(ordered)
    above = float((np.arange(1, count + 1) / count - exact).max())
    below = float((exact - np.arange(count) / count).max())
    distance = max(above, below)
    return distance, min(1.0, 2 * math.exp(-2 * count * distance**2))


def cosine(value: float, dimensions: int, tries: int) -> float:
    """Bound on the chance that the largest of ``tries`` cosines of independent directions is this large.

    Args:
        value: The largest absolute cosine that was seen.
        dimensions: Of the directions; one of each pair is uniform on the sphere.
        tries: Number of pairs looked at, by the union bound.
    """
    return min(1.0, 2 * tries * math.exp(-dimensions * value**2 / 2))


def dispersion(sizes: npt.NDArray[np.int64], units: int, probability: float) -> tuple[float, float]:
    """Compare how batch sizes scatter with the binomial law.

    The standardised squares are treated as chi-square, which is close for batches of twenty units or more.

    Returns:
        The variance over the binomial's, and about the chance of it.
    """
    mean, variance = units * probability, units * probability * (1 - probability)
    total = float(np.square(sizes - mean).sum() / variance)
    return total / len(sizes), chi_square(total, len(sizes))
