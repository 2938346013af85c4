"""Weights lie where passes are quickest while passes are made, and where they were afterwards.

Rules kept here:

1. A parameter stays the object it is; whoever holds a tensor of it finds the new values there afterwards.
2. Whatever goes wrong in between, all is put back.
"""

from __future__ import annotations

import torch
from torch import nn

from cloister.privacy.feed_forward import FeedForward


class Layout:
    """The weights of one model that were moved."""

    def __init__(self) -> None:
        self._moved: list[tuple[torch.Tensor, torch.Tensor]] = []

    def move(self, model: nn.Module, written_out: FeedForward | None, *, channels_last: bool) -> None:
        """Move weights to where passes are quickest.

        Args:
            model: Whose.
            written_out: Its layers, where passes are written out: their widths are filled up.
            channels_last: Whether those of 2-D convolutions are moved, so that a position's channels are
                neighbours in memory. Convolutions then answer in that layout, and all layers after them:
                pooling is up to eight times as fast.
        """
        try:
            if written_out is not None:
                written_out.lay_out(self._moved)
            elif channels_last:
                for weight in (one.weight for one in model.modules() if isinstance(one, nn.Conv2d)):
                    self._moved.append((weight, weight.data))
                    weight.data = weight.data.clone(memory_format=torch.channels_last)
        except BaseException:
            self.put_back()
            raise

    def put_back(self) -> None:
        """Move all back, with the values they have now."""
        # The latest first: a weight that several layers share was moved by each.
        while self._moved:
            parameter, before = self._moved.pop()
            parameter.data = before.copy_(parameter.data) if parameter.requires_grad else before
