"""Noise for mechanisms that are epsilon-private without a delta.

Two kinds:

- :func:`radial_noise` has a density proportional to ``exp(-rate * |b|)`` on real vectors: what Chaudhuri et
  al. add to a minimiser or to its objective. Its values are known to within a stated error only.
- :func:`discrete_laplace` is exact on whole numbers, with weights proportional to ``exp(-|x| / scale)``:
  no floating-point arithmetic at all. It hides errors like the one above (:func:`finish`).

The radius of a radial vector is half a sum of squared normals (a Gamma law), its direction that of a normal
vector. Redrawing a short normal vector leaves the direction uniform.

What is not claimed: the normals' laws lie within ``SAMPLER_DISTANCE`` of the stated ones
(:mod:`cloister.privacy.noise`) and a radius passes its bound with a chance below ``2**-80``: together they
add about ``3 * dimensions * 2**-50`` times ``1 + exp(epsilon)`` to the delta at which epsilons are composed.

Sources: Chaudhuri, Monteleoni, Sarwate 2011 (JMLR 12, algorithms 1 and 2); Canonne, Kamath, Steinke 2020
(arXiv:2004.00010, algorithms 1 and 2); Iyengar et al. 2019 (S&P, approximate minima perturbation: noise that
hides how far a minimiser is off).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from cloister.privacy.errors import PrivacyError
from cloister.privacy.noise import IntegerNoise
from cloister.privacy.randomness import RandomSource

Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NORMAL_ERROR: Final = 2.0**-41
"""How far a normal value made of whole steps may be from the ideal one it stands for."""

_BITS: Final = 40
_SHORT: Final = 1 / 16
_RADIAL_ERROR: Final = 2.0**-34
_WORD: Final = 2**64


def normals(count: int, noise: IntegerNoise) -> Vector:
    """Return standard normal values, each within ``NORMAL_ERROR`` of an ideal one."""
    return ((noise.draw(count, _BITS) + 0.5) * 2.0**-_BITS).astype(np.float64)


def radial_noise(dimensions: int, rate: float, noise: IntegerNoise) -> tuple[Vector, float]:
    """Draw a vector with density proportional to ``exp(-rate * |b|)``.

    Args:
        dimensions: At least 1.
        rate: Above 0; the mean norm is ``dimensions / rate``.
        noise: Where the normals come from.

    Returns:
        The vector, float64 of shape [dimensions], and a bound, the same for every draw, on its distance from
        the ideal vector that it stands for.
    """
    # Gamma(d, 1) passes this with a chance below exp(-(3d + 80 - d log(4 + 80 / d))) < 2**-80.
    largest = 4 * dimensions + 80
    radius = min(float((normals(2 * dimensions, noise) ** 2).sum()) / 2, largest)
    direction = normals(dimensions, noise)
    while (length := math.sqrt(float((direction**2).sum()))) < _SHORT * math.sqrt(dimensions):
        direction = normals(dimensions, noise)
    # Off by 2 * sqrt(d) * NORMAL_ERROR / length <= 2**-36 in direction, 2**-40 * largest in radius.
    vector: Vector = direction * (radius / (rate * length))
    return vector, _RADIAL_ERROR * largest / rate


def finish(values: Vector, error: float, epsilon: float, source: RandomSource) -> Vector:
    """Round computed values to a grid and hide by discrete Laplace noise how far they are off.

    Values that stand for the same ideal vector differ by ``2 * error`` at most between neighbours; in grid
    steps, by ``sqrt(d) * 2 * error / step + d`` in L1 norm. The noise makes that epsilon-private, given the
    ideal vector: composed with the mechanism that releases the ideal one, nothing else is told.

    Args:
        values: float64 of shape [d].
        error: Bound on the L2 distance from the ideal vector, fixed before the records were looked at.
        epsilon: What the hiding costs.
        source: Where the words come from.

    Returns:
        Points of the grid, float64 of shape [d].

    Raises:
        PrivacyError: ``privacy.plan_invalid`` when the values are too large for their grid.
    """
    dimensions = len(values)
    step = 2.0 ** math.floor(math.log2(2 * error / math.sqrt(dimensions)))
    moved = math.ceil(math.sqrt(dimensions) * 2 * error / step * (1 + 2**-40)) + dimensions
    scaled = values / step
    if not (np.abs(scaled) < 2.0**52).all():
        raise PrivacyError("privacy.plan_invalid", "The grid holds no values this large beside this error.")
    noise = discrete_laplace(dimensions, math.ceil(moved / epsilon), source)
    return ((np.rint(scaled).astype(np.int64) + noise) * step).astype(np.float64)


def discrete_laplace(count: int, scale: int, source: RandomSource) -> Integers:
    """Draw whole numbers with weights proportional to ``exp(-|x| / scale)``, exactly.

    Args:
        count: How many.
        scale: At least 1.
        source: Where the words come from.

    Returns:
        int64 of shape [count].
    """
    return np.array([_one_laplace(scale, source) for _ in range(count)], dtype=np.int64)


def _one_laplace(scale: int, source: RandomSource) -> int:
    while True:
        within = _below(scale, source)
        if not _happens(within, scale, source):
            continue
        beyond = 0
        while _happens(1, 1, source):
            beyond += 1
        size, negative = within + scale * beyond, _below(2, source) == 1
        if size or not negative:
            return -size if negative else size


def _happens(numerator: int, denominator: int, source: RandomSource) -> bool:
    """True with probability ``exp(-numerator / denominator)``, for a fraction of at most 1."""
    turn = 1
    while _below(denominator * turn, source) < numerator:
        turn += 1
    return turn % 2 == 1


def _below(bound: int, source: RandomSource) -> int:
    """A uniform whole number below the bound, unbiased by rejection."""
    while (word := int(source.words(1)[0])) >= _WORD - _WORD % bound:
        pass
    return word % bound
