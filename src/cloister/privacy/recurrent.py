"""A sequence model whose recurrent layer gives per-record gradients: Opacus's GRU over the features in
order."""

from __future__ import annotations

import torch
from opacus.layers import DPGRU
from torch import nn


class SequenceClassifier(nn.Module):
    """Reads a row's features one after the other, one per time step, and classifies the last state.

    Args:
        hidden: Size of the recurrent state.
        classes: Number of classes.
    """

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.gru = DPGRU(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map float32 [batch, features] to logits [batch, classes]."""
        outputs, _ = self.gru(features.unsqueeze(2))
        logits: torch.Tensor = self.head(outputs[:, -1])
        return logits
