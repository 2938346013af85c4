"""A small transformer encoder from layers whose gradients per record are known: Linear and LayerNorm."""

from __future__ import annotations

import math

import torch
from torch import nn


class SelfAttention(nn.Module):
    """Multi-head self-attention, the batch first (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    Args:
        width: Size of a position's vector, a multiple of ``heads``.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.join = nn.Linear(width, width)

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map [batch, positions, width] to the same shape."""
        records, positions, width = sequence.shape

        def split(vectors: torch.Tensor) -> torch.Tensor:
            return vectors.view(records, positions, self.heads, width // self.heads).transpose(1, 2)

        query, key, value = (
            split(self.query(sequence)),
            split(self.key(sequence)),
            split(self.value(sequence)),
        )
        weights = torch.softmax(query @ key.mT / math.sqrt(width // self.heads), dim=-1)
        joined: torch.Tensor = self.join((weights @ value).transpose(1, 2).reshape(records, positions, width))
        return joined


class EncoderLayer(nn.Module):
    """Attention and a feed-forward block, each normalised before and added to what came in.

    Args:
        width: Size of a position's vector.
        heads: Number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention, self.before_block = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.block = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Map [batch, positions, width] to the same shape."""
        sequence = sequence + self.attention(self.before_attention(sequence))
        result: torch.Tensor = sequence + self.block(self.before_block(sequence))
        return result


class TransformerClassifier(nn.Module):
    """Reads a row's features as a sequence, each position marked by sines, and classifies the mean.

    Args:
        features: Number of features of a row.
        patch: Features per position, a divisor of ``features``.
        width: Size of a position's vector, even and a multiple of ``heads``.
        heads: Number of heads.
        layers: Number of encoder layers.
        classes: Number of classes.
    """

    def __init__(self, features: int, patch: int, width: int, heads: int, layers: int, classes: int) -> None:
        super().__init__()
        self.patch, self.width = patch, width
        self.embed = nn.Linear(patch, width)
        self.encoder = nn.Sequential(*(EncoderLayer(width, heads) for _ in range(layers)))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.positions = features // patch

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map float32 [batch, features] to logits [batch, classes]."""
        sequence = self.embed(features.reshape(-1, self.positions, self.patch)) + self._marks()
        logits: torch.Tensor = self.head(self.last(self.encoder(sequence)).mean(dim=1))
        return logits

    def _marks(self) -> torch.Tensor:
        place = torch.arange(self.positions, dtype=torch.float32).unsqueeze(1)
        rate = torch.exp(torch.arange(0, self.width, 2) * (-math.log(10_000.0) / self.width))
        return torch.cat([torch.sin(place * rate), torch.cos(place * rate)], dim=1)
