"""Records are computed in blocks of one shape: no record's gradient depends on who else is in a batch.

A matrix library may round a row's result differently when a matrix has another number of rows, or when the
row lies elsewhere in memory. That is no small matter: the gradients of ReLU and of max pooling jump, whoever
chooses the weights can put known records on the jump, and then one record more in a batch moves every other
record's gradient by its whole length.

Rules kept here:

1. Every pass is over exactly ``rows`` rows, whatever the batch holds. Rows of zeros fill it up; their
   gradients are dropped. How many rows is decided by public figures alone.
2. That a row's result doesn't depend on its place in the block either is tried out on this machine, with this
   number of threads, before anything is reserved. Where it does, records stand ``spacing`` rows apart, so
   that all of them lie alike in memory; where that isn't enough, a block holds a single record.

Sources: Higham 2002, chapter 3 (the order of operations decides the rounding); the developer guide of Intel's
oneMKL, "Conditional Numerical Reproducibility" (alignment and shape choose the order).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch

_LANES: Final = 32  # two vectors of sixteen float32: no row is left to the end of a vectorised loop
_APART: Final = 4


@dataclass(frozen=True, slots=True)
class Block:
    """The shape of every pass.

    Args:
        rows: Rows of a pass.
        spacing: A record stands in every so many-th row.
    """

    rows: int
    spacing: int = 1

    @property
    def records(self) -> int:
        """Most records of one pass."""
        return self.rows // self.spacing

    def split(
        self, features: torch.Tensor, labels: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        """Yield passes: float32 [rows, features], int64 [rows], and which rows of it are records."""
        for first in range(0, len(labels), self.records):
            some = slice(first, first + self.records)
            yield self.fill(features[some], labels[some])

    def fill(self, features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, slice]:
        """Put up to ``records`` records into one pass; see :meth:`split`."""
        taken = slice(0, len(labels) * self.spacing, self.spacing)
        if len(labels) == self.rows and features.data_ptr() % 64 == 0:
            return features, labels, taken
        rows, answers = features.new_zeros((self.rows, features.shape[1])), labels.new_zeros(self.rows)
        rows[taken], answers[taken] = features, labels
        return rows, answers, taken


def blocks_to_try(expected: float, most: int, *, light: bool) -> tuple[Block, ...]:
    """Return the shapes to try, the quickest first.

    Args:
        expected: Expected number of records in a batch, public.
        most: Largest number of rows at once, at least 1.
        light: Whether a pass costs more than its rows do: then one pass takes a whole batch, as a rule.
    """
    if light:
        enough = expected + 2 * math.sqrt(expected)
        passes = max(1, math.ceil(enough / most))
        wanted = math.ceil(enough / passes / _LANES) * _LANES
    else:
        wanted = _LANES * (1 if expected < 4 * _LANES else 2 if expected < 16 * _LANES else 4)
    wanted = max(_LANES, wanted)
    if wanted > most:
        wanted = most // _LANES * _LANES or most
    square = min(2 * _LANES, most)
    shapes = [Block(wanted), Block(square), Block(square // _APART * _APART, _APART), Block(1)]
    return tuple(dict.fromkeys(one for one in shapes if one.records))


def largest_even_part(rows: int, most: int) -> int:
    """Return the largest divisor of ``rows`` up to ``most``: parts of it all have one shape."""
    return next(size for size in range(min(rows, most), 0, -1) if rows % size == 0)
