"""Which records of a batch belong to one protected unit: each its own, or all of a subject's together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one batch of records.

    Args:
        count: Number of units.
        of_record: int64 of shape [records], ascending, the unit of each record; None when every record is a
            unit of its own.
    """

    count: int
    of_record: torch.Tensor | None

    def spread(self, per_unit: torch.Tensor) -> torch.Tensor:
        """Give each record its unit's value: [units] to [records]."""
        return per_unit if self.of_record is None else per_unit[self.of_record]

    def gather(self, per_record: torch.Tensor) -> torch.Tensor:
        """Add up each unit's rows: [records, n] to float64 [units, n]; unchanged where a record is a unit."""
        if self.of_record is None:
            return per_record
        total = per_record.new_zeros((self.count, per_record.shape[1]), dtype=torch.float64)
        return total.index_add_(0, self.of_record, per_record.double())

    def each(self, *positions: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield every unit's positions alone, [records, t, n] as [1, its records * t, n]; all of them at once
        where a record is a unit. A unit's own copy has its own shape, whoever else is in the batch."""
        if self.of_record is None:
            yield positions
            return
        sizes = torch.bincount(self.of_record, minlength=self.count).tolist()
        for parts in zip(*(torch.split(one, sizes) for one in positions), strict=True):
            yield tuple(part.flatten(0, 1).unsqueeze(0).clone() for part in parts)
