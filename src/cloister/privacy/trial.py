"""The trial that neither a pass's size nor a record's place in it changes its gradient; see ``blocks``."""

from __future__ import annotations

from copy import deepcopy
from typing import Protocol

import torch
from torch import nn

from cloister.privacy.blocks import Block


class Computes(Protocol):
    """What makes passes."""

    block: Block

    def by_record(self, features: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        """Return all that decides what records add to the sum, a row for each."""
        ...


def independent_of_place(keeper: Computes, input_dim: int) -> bool:
    """Return whether made-up records have equal gradients, bit for bit, wherever they stand in whatever pass.

    Args:
        keeper: What makes passes, of the sizes that its block says.
        input_dim: Number of features.
    """
    block = keeper.block
    generator = torch.Generator().manual_seed(block.records)
    features = torch.randn((block.records, input_dim), generator=generator)
    labels = torch.zeros(len(features), dtype=torch.int64)
    expected = keeper.by_record(features, labels)
    for size in block.sizes:
        count = size // block.spacing
        turns = {1, 3, count // 2, count - 1} if size == block.rows else {count // 2}
        for turn in sorted(turn for turn in turns if 0 <= turn < count):
            found = keeper.by_record(features[:count].roll(turn, 0), labels[:count])
            if not all(
                torch.equal(one[:count].roll(turn, 0), other)
                for one, other in zip(expected, found, strict=True)
            ):
                return False
    alone = keeper.by_record(features[:1], labels[:1])
    return all(torch.equal(one[:1], other) for one, other in zip(expected, alone, strict=True))


def with_made_up_weights(model: nn.Module) -> nn.Module:
    """Return a copy of the model with weights of ordinary sizes, none of them round.

    A model's own weights, such as zeros, may hide a difference.
    """
    twin = deepcopy(model)
    generator = torch.Generator().manual_seed(2026)
    with torch.no_grad():
        for parameter in twin.parameters():
            size = (parameter.numel() / max(1, len(parameter))) ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return twin
