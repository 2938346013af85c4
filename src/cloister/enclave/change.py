"""How far an update's weights are from those that the site received, held against a limit.

Both norms are taken over all tensors together, in float64, so that no square of a float32 is lost. It is
done in parts that fit into the cache, small enough for the linear algebra library to start no threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from cloister.enclave.tensors import FloatArray
from cloister.evidence.change_limit import ChangeLimit

Received: TypeAlias = Mapping[str, FloatArray]
"""The weights that a round began with, by name."""

_Doubles: TypeAlias = npt.NDArray[np.float64]
_PART: Final = 1 << 13


def too_far(tensors: Mapping[str, FloatArray], received: Received, limit: ChangeLimit) -> list[str]:
    """Say in which way an update passes its limit.

    Args:
        tensors: what is about to leave; finite.
        received: what the round began with, of the same forms.
        limit: how far apart they may be.

    Returns:
        One sentence each, without a weight's value; empty if the update keeps to the limit.
    """
    if any(
        name not in received or received[name].shape != tensor.shape or received[name].dtype != tensor.dtype
        for name, tensor in tensors.items()
    ):
        return ["update: no received weights of this form, from which its change could be measured"]
    moved, began = _Norms(), _Norms()
    # What overflows is infinite, and so above every limit.
    with np.errstate(over="ignore"):
        for name, tensor in tensors.items():
            for change, before in _parts(tensor, received[name]):
                moved.add(change)
                began.add(before)
    problems = []
    # Written so that a norm which is not a number is refused too.
    if not moved.l2 <= limit.l2 + limit.rounding * began.l2:
        problems.append(f"update: its weights moved further than an L2 norm of {limit.l2:g}")
    if not moved.largest <= limit.largest + limit.rounding * began.largest:
        problems.append(f"update: one of its weights moved further than {limit.largest:g}")
    return problems


class _Norms:
    """The L2 norm of everything added, which is not a number if some value isn't, and its largest size."""

    def __init__(self) -> None:
        self._squares = 0.0
        self.largest = 0.0

    def add(self, values: _Doubles) -> None:
        self._squares += float(np.dot(values, values))
        self.largest = max(self.largest, float(values.max()), -float(values.min()))

    @property
    def l2(self) -> float:
        return math.sqrt(self._squares)


def _parts(after: FloatArray, before: FloatArray) -> Iterator[tuple[_Doubles, _Doubles]]:
    """Part by part, the change and what it began with; both are overwritten by the next."""
    flat, origin = after.reshape(-1), np.ascontiguousarray(before).reshape(-1)
    change, began = np.empty(_PART), np.empty(_PART)
    for start in range(0, flat.size, _PART):
        size = min(_PART, flat.size - start)
        change[:size] = flat[start : start + size]
        began[:size] = origin[start : start + size]
        change[:size] -= began[:size]
        yield change[:size], began[:size]
