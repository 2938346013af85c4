"""Records are computed in blocks of known sizes: no record's gradient depends on who else is in a batch.

A matrix library may round a row's result differently when a matrix has another number of rows, or when the
row lies elsewhere in memory. That is no small matter: the gradients of ReLU and of max pooling jump, whoever
chooses the weights can put known records on the jump, and then one record more in a batch moves every other
record's gradient by its whole length.

Rules kept here:

1. Every pass has one of a few sizes. Rows of zeros fill it up; their gradients are dropped. Which sizes there
   are is decided by public figures alone.
2. That a row's result depends neither on the pass's size nor on its place in it is tried out on this machine,
   with this number of threads, for every size, before anything is reserved. Where it does, all passes have
   one size; where that isn't enough, records stand ``spacing`` rows apart, so that all of them lie alike in
   memory; as the last resort a block holds a single record.
3. A trial would rarely find what happens to the few elements at the end of a vectorised loop, which functions
   such as the sigmoid compute otherwise. So no element is left there: rows come in 32s, except where every
   element-wise operation is exact, or where all widths are filled up. Several threads cut large tensors at
   places of their own; there the trial is all there is. Sites train on one thread.

Sources: Higham 2002, chapter 3 (the order of operations decides the rounding); the developer guide of Intel's
oneMKL, "Conditional Numerical Reproducibility" (alignment and shape choose the order).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

_VECTORS: Final = 32  # elements in one turn of a vectorised loop: two vectors of sixteen float32
_STEPS: Final = (8, 16)
_MOST_SIZES: Final = 24  # each is tried out
_HEAVY_ROWS: Final = 128  # what stays near the processor
_SQUARE: Final = 64
_APART: Final = 4


@dataclass(frozen=True, slots=True)
class Block:
    """The sizes of passes.

    Args:
        sizes: How many rows a pass may have, ascending.
        spacing: A record stands in every so many-th row.
    """

    sizes: tuple[int, ...]
    spacing: int = 1

    @property
    def rows(self) -> int:
        """Most rows of one pass."""
        return self.sizes[-1]

    @property
    def records(self) -> int:
        """Most records of one pass."""
        return self.rows // self.spacing

    def split(
        self, features: torch.Tensor, labels: torch.Tensor, columns: int = 0
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        """Yield passes: float32 [rows, features], int64 [rows], and which rows of it are records.

        Args:
            features: float32 [records, features].
            labels: int64 [records].
            columns: How many columns of zeros to add where rows are copied anyhow.
        """
        for first in range(0, len(labels), self.records):
            some = slice(first, first + self.records)
            yield self.fill(features[some], labels[some], columns)

    def fill(
        self, features: torch.Tensor, labels: torch.Tensor, columns: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, slice]:
        """Put up to ``records`` records into one pass, the smallest that holds them; see :meth:`split`."""
        wanted = len(labels) * self.spacing
        size = self.sizes[bisect_left(self.sizes, wanted)]
        taken = slice(0, wanted, self.spacing)
        if len(labels) == size and features.data_ptr() % 64 == 0:
            return features, labels, taken
        if self.spacing == 1:
            missing = size - wanted
            rows = functional.pad(features, (0, columns, 0, missing))
            return rows, functional.pad(labels, (0, missing)), taken
        rows, answers = features.new_zeros((size, features.shape[1])), labels.new_zeros(size)
        rows[taken], answers[taken] = features, labels
        return rows, answers, taken


def blocks_to_try(expected: float, most: int, *, light: bool, exact: bool = False) -> tuple[Block, ...]:
    """Return the blocks to try, the quickest first.

    Args:
        expected: Expected number of records in a batch, public.
        most: Largest number of rows at once, at least 1.
        light: Whether a pass costs more than its rows do: then one pass takes a whole batch, as a rule. The
            widths of such passes are filled up.
        exact: Whether all that is done element by element is rounded alike wherever it is done.
    """
    steps = _STEPS if light or exact else (_VECTORS,)
    if most < steps[0]:
        return (Block((1,)),)
    enough = expected + 4 * math.sqrt(expected)
    wanted = _multiple(enough if light else min(enough, _HEAVY_ROWS), steps[0], most)
    square = _multiple(_SQUARE, steps[0], most)
    blocks = [
        *(Block(_ladder(step, wanted)) for step in steps),
        Block((wanted,)),
        Block((square,)),
        Block((square,), _APART),
        Block((1,)),
    ]
    return tuple(dict.fromkeys(blocks))


def _multiple(rows: float, step: int, most: int) -> int:
    """The least multiple of ``step`` that holds so many rows, or the largest one up to ``most``."""
    return min(max(1, math.ceil(rows / step)), most // step) * step


def _ladder(step: int, most: int) -> tuple[int, ...]:
    """Sizes up to ``most``, multiples of ``step`` apart, as close as :data:`_MOST_SIZES` allows."""
    apart = math.ceil(most / step / _MOST_SIZES) * step
    return (*range(apart, most, apart), most)


def largest_even_part(rows: int, most: int) -> int:
    """Return the largest divisor of ``rows`` up to ``most``: parts of it all have one shape."""
    return next(size for size in range(min(rows, most), 0, -1) if rows % size == 0)
