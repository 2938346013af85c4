"""Gaussian noise as whole numbers on one fixed grid, so that no floating-point gap can tell neighbours apart.

Rules kept here:

1. A clipped sum is rounded to the grid first; noise is a whole number of grid steps; the two are added as
   64-bit integers. Every output is a point of one grid, whatever the records were.
2. The noise is ``floor(2**bits * N)`` with N standard normal. Since the sum is a whole number,
   ``sum + floor(x) = floor(sum + x)``: the release is a function of the Gaussian mechanism on the rounded
   sum, so every guarantee of that mechanism holds, amplification by Poisson sampling included
   (post-processing, Dwork and Roth 2014, Proposition 2.1). No theorem on discrete Gaussians is needed.
3. Rounding the sum and adding it up in float64 can move it by a bounded amount. This slack is part of the
   sensitivity: the noise is made larger by it, so that the accounted noise multiplier is the true one.
4. N is drawn without floating-point steps that shape its law: a cell by Walker's alias method with integer
   thresholds, a position in the cell, and von Neumann's rejection. The law of one value lies within
   :data:`SAMPLER_DISTANCE` of the stated one in total variation; one step with d parameters within d times
   that, which adds at most ``(1 + exp(epsilon)) * d * steps * SAMPLER_DISTANCE`` to delta.

What this rests on: each unit's clipped gradient is a function of the unit and the weights, bit for bit.
``blocks`` sees to it. Without it no slack would do: ReLU's gradient jumps with the last bit of its input.

Sources: Mironov 2012 (CCS, "On significance of the least significant bits for differential privacy");
Casacuberta et al. 2022 (arXiv:2207.10635: sums in floating point need a slack); Walker 1977 (alias method).
"""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from cloister.privacy.errors import PrivacyError
from cloister.privacy.randomness import RandomSource

Integers = npt.NDArray[np.int64]

SAMPLER_DISTANCE: Final = 2.0**-50
"""Bound on the total variation distance of one value's law from the stated one: float64 weights of the cells
(2**-52), their rounding to multiples of 2**-64, the position's 2**-32 of a cell, float64 in the rejection."""

GRID_SLACK: Final = 2.0**-14
"""Largest share of the clip norm that rounding to the grid may add to the sensitivity."""

SUM_SLACK: Final = 2.0**-8
"""Largest share of the clip norm that adding up in float64 may add to the sensitivity; refused beyond it."""

NORM_ERROR: Final = 2.0**-16
"""Bound on the relative error of a computed gradient norm: rows of 256 squares are added up in float32, which
is off by ``257 * 2**-24`` at most and halves under the root; the rest is float64."""

_CELL_BITS: Final = 8  # cells per standard deviation, as a power of two
_CELLS: Final = 4096  # one column of the alias table each: 16 standard deviations on either side
_COLUMN_SHIFT: Final = np.uint64(52)  # 12 bits choose the column, 52 are compared
_LOW: Final = np.uint64(2**52 - 1)
_CHANCE: Final = 2**31 - 1
_NEAR: Final = 5 << _CELL_BITS  # up to 5 standard deviations
_CERTAIN: Final = math.floor(2**31 * math.exp(-(2 * _NEAR - 1) * 4.0**-_CELL_BITS / 2)) - 1
"""Below this chance every value in a near cell is kept: the density falls by less within any of them."""
_LEAST_BITS: Final = 12
_MOST_BITS: Final = _CELL_BITS + 32
_BLOCK: Final = 8192
_UNIT_ROUNDOFF: Final = 2.0**-53


@dataclass(frozen=True, slots=True)
class Grid:
    """The grid of one training run, and what it costs.

    Args:
        bits: The noise's standard deviation is ``2**bits`` grid steps.
        step: Distance between grid points, in units of the gradient.
        sensitivity: L2 bound on how far one unit moves the rounded sum: the clip norm and the slack.
        slack: Share of the clip norm that ``sensitivity`` adds to it.
    """

    bits: int
    step: float
    sensitivity: float
    slack: float

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise: noise multiplier times sensitivity."""
        return self.step * 2.0**self.bits


def choose_grid(
    max_grad_norm: float,
    noise_multiplier: float,
    *,
    parameters: int,
    units: int,
    summands: int,
    parts: int = 1,
) -> Grid:
    """Choose the grid from public figures alone.

    Two neighbouring sums, each rounded to the nearest point, differ by at most one step per coordinate more
    than before; scaling by ``1 / step`` in float64 adds at most another. Both together are
    ``2 * step * sqrt(parameters)``. Summing m terms of total length L in float64 is off by at most
    ``m * 2**-53 * L`` (Higham 2002, section 4.2) on either side, and so is the norm of each unit, by as many
    terms as there are weights. Each unit's gradient is the same in both sums. A norm that was computed too
    small lets a gradient be longer than the clip norm by ``NORM_ERROR``.

    Args:
        max_grad_norm: L2 bound on one unit's gradient.
        noise_multiplier: Standard deviation of the noise divided by the sensitivity.
        parameters: Number of trained weights.
        units: Number of units in the dataset: no batch holds more.
        summands: Bound on the number of terms of one float64 sum, times how much longer than the clip norm
            the terms of one unit may be together.
        parts: Bound on the number of such sums that are added up in one step.

    Returns:
        The coarsest grid whose rounding adds at most ``GRID_SLACK`` of the clip norm.

    Raises:
        PrivacyError: ``privacy.plan_invalid`` when sums on this grid could pass what float64 holds exactly,
            or their error :data:`SUM_SLACK`.
    """
    wanted = 2 * noise_multiplier * math.sqrt(parameters) / GRID_SLACK
    bits = max(_LEAST_BITS, math.ceil(math.log2(wanted)) + 1)
    adding_up = 2 * units * (summands + parts + parameters + 4) * _UNIT_ROUNDOFF
    floating = NORM_ERROR + adding_up
    # sensitivity = clip * (1 + floating) + 2 * step * sqrt(d), and step = noise * sensitivity / 2**bits.
    share = 2 * noise_multiplier * math.sqrt(parameters) / 2.0**bits
    sensitivity = max_grad_norm * (1 + floating) / (1 - share)
    step = noise_multiplier * sensitivity / 2.0**bits
    if bits > _MOST_BITS or not units * max_grad_norm / step < 2.0**52 or step < 1e-300:
        raise PrivacyError(
            "privacy.plan_invalid",
            "No grid holds sums this large beside noise this small.",
            "Use a larger noise multiplier, fewer units or a smaller model.",
        )
    if adding_up > SUM_SLACK:
        raise PrivacyError(
            "privacy.plan_invalid",
            "So many units with so many positions can't be added up closely enough in float64.",
            "Use fewer rows at once, fewer units or a smaller model.",
        )
    return Grid(bits, step, sensitivity, sensitivity / max_grad_norm - 1)


class IntegerNoise(Protocol):
    """Noise in whole grid steps."""

    @property
    def generator(self) -> str:
        """Name of the generator behind it, as it stands in statements."""
        ...

    def draw(self, count: int, bits: int) -> Integers:
        """Return ``count`` independent values of standard deviation ``2**bits``, int64."""
        ...


class GaussianIntegers:
    """Draws ``floor(2**bits * N)`` for independent standard normal N.

    Args:
        source: Where the words come from; used by nothing else.
    """

    def __init__(self, source: RandomSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._kept = np.empty(0, dtype=np.int64)
        self._kept_for = (0, 0)

    @property
    def generator(self) -> str:
        """The source's generator."""
        return self._source.generator

    def draw(self, count: int, bits: int) -> Integers:
        """Return ``count`` values.

        Args:
            count: 0 or more.
            bits: From 12 to 40.

        Raises:
            PrivacyError: ``privacy.randomness_invalid``.
        """
        if count < 0 or not _LEAST_BITS <= bits <= _MOST_BITS:
            raise PrivacyError(
                "privacy.randomness_invalid", "Noise needs a count of 0 or more and 12 to 40 bits."
            )
        with self._lock:
            return self._next(count, bits)

    def _next(self, count: int, bits: int) -> Integers:
        if (os.getpid(), bits) != self._kept_for:
            # A forked child never spends what its parent may spend too.
            self._kept, self._kept_for = np.empty(0, dtype=np.int64), (os.getpid(), bits)
        parts, missing = [self._kept[:count]], count - len(self._kept)
        self._kept = self._kept[count:]
        while missing > 0:
            block = self._block(_BLOCK, bits)
            parts.append(block[:missing])
            self._kept, missing = block[missing:], missing - len(block)
        return np.concatenate(parts)

    def _block(self, count: int, bits: int) -> Integers:
        table = _cells()
        words = self._source.words(2 * count)
        choice, place = words[:count], words[count:].view(np.int64)
        column = (choice >> _COLUMN_SHIFT).view(np.int64)
        own = (choice & _LOW) < table.threshold[column]
        cell = np.where(own, column, table.alias[column])
        shift = bits - _CELL_BITS
        values = cell << shift
        values |= (place >> (63 - shift)) & ((1 << shift) - 1)
        # floor(-x) is -floor(x) - 1 for every x that is not whole: the complement.
        values ^= place >> 63
        chance = place & _CHANCE
        keep = chance < _CERTAIN
        keep &= cell < _NEAR
        doubtful = np.flatnonzero(~keep)
        keep[doubtful] = self._decide(cell[doubtful], place[doubtful], chance[doubtful])
        return values[keep]

    def _decide(self, cell: Integers, place: Integers, chance: Integers) -> npt.NDArray[np.bool_]:
        """Von Neumann's rejection: keep with probability density(x) / density(inner edge of the cell)."""
        position = ((place >> 31) & 0xFFFFFFFF) + 0.5
        offset = position * 2.0 ** -(32 + _CELL_BITS)
        wanted = np.exp(-offset * (cell * 2.0**-_CELL_BITS + offset / 2)) * 2.0**31
        decided: npt.NDArray[np.bool_] = chance + self._source.words(len(chance)) * 2.0**-64 < wanted
        return decided


@dataclass(frozen=True, slots=True)
class _Table:
    """Walker's tables over the cells of one half-line, in units of 2**-64.

    Args:
        threshold: Below it, a column stands for its own cell.
        alias: The cell it stands for otherwise.
    """

    threshold: npt.NDArray[np.uint64]
    alias: Integers


@lru_cache(maxsize=1)
def _cells() -> _Table:
    width = 2.0**-_CELL_BITS
    peaks = [math.exp(-((cell * width) ** 2) / 2) for cell in range(_CELLS)]
    total = math.fsum(peaks)
    weights = [round(peak / total * 2**64) for peak in peaks]
    weights[0] += 2**64 - sum(weights)
    column = 2**64 // _CELLS
    threshold, alias = [column] * _CELLS, list(range(_CELLS))
    poor = [cell for cell in range(_CELLS) if weights[cell] < column]
    rich = [cell for cell in range(_CELLS) if weights[cell] >= column]
    while poor:
        short, giver = poor.pop(), rich[-1]
        threshold[short], alias[short] = weights[short], giver
        weights[giver] -= column - weights[short]
        if weights[giver] < column:
            poor.append(rich.pop())
    return _Table(np.array(threshold, dtype=np.uint64), np.array(alias, dtype=np.int64))
