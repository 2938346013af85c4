"""Forward and backward pass of plain feed-forward networks written out, where autograd costs more than sums.

Rules kept here:

1. Only a ``nn.Sequential`` of Linear layers and element-wise activations qualifies, with nobody listening to
   its layers; every other model takes autograd's way. Both ways feed the same clipping.
2. The figures are those of autograd on ``cross_entropy(..., reduction="sum")``; a test compares them.
3. Every width is filled up with zeros to a multiple of 16: each row then begins on a boundary of 64 bytes,
   and matrix libraries treat all rows alike (see ``blocks``). What is added has no gradient and is cut off.
   The weights live in filled-up memory while passes are made, so that no pass has to copy them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Self

import torch
from torch import nn
from torch.nn import functional

_ALIGNED: Final = 16
_ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity)


class FeedForward:
    """The layers of a feed-forward network, in order.

    Args:
        layers: Linear layers and activations; the first and last are Linear.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers
        self._shapes = [one.weight.shape if isinstance(one, nn.Linear) else (0, 0) for one in layers]
        self._wide: list[tuple[torch.Tensor, torch.Tensor | None] | None] = []
        self._trained = [any(weight.requires_grad for weight in one.parameters()) for one in layers]

    @classmethod
    def of(cls, model: nn.Module) -> Self | None:
        """Return the model's layers, or None when it is not such a network."""
        layers = list(_flattened(model))
        plain = all(type(layer) is nn.Linear or type(layer) in _ACTIVATIONS for layer in layers)
        heard = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        if not plain or heard or len(set(layers)) < len(layers):
            return None
        ends = layers and isinstance(layers[0], nn.Linear) and isinstance(layers[-1], nn.Linear)
        return cls(layers) if ends else None

    def lay_out(self, moved: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Move the weights into memory of filled-up widths.

        Args:
            moved: Gets each parameter that is moved, with the tensor it had.
        """
        self._wide = []
        for layer in self._layers:
            if not isinstance(layer, nn.Linear):
                self._wide.append(None)
                continue
            answers, inputs = layer.weight.shape
            own_weight = layer.weight.data
            weight = _filled(own_weight, down=True)
            if weight is not own_weight:
                moved.append((layer.weight, own_weight))
                layer.weight.data = weight[:answers, :inputs]
            # Classes that don't exist are infinitely unlikely: their share of the softmax is exactly zero.
            fill = -torch.inf if layer is self._layers[-1] else 0.0
            own = getattr(layer.bias, "data", None)
            bias: torch.Tensor | None = own
            if len(weight) > answers and (own is not None or fill):
                bias = weight.new_full((len(weight),), fill)
                bias[:answers] = 0.0 if own is None else own
                if own is not None:
                    moved.append((layer.bias, own))
                    layer.bias.data = bias[:answers]
            self._wide.append((weight, bias))

    def forget(self) -> None:
        """Forget where the weights were moved to."""
        self._wide = []

    @staticmethod
    def missing(width: int) -> int:
        """Return how many columns of zeros make rows as wide as passes want them."""
        return -width % _ALIGNED

    def gradients(
        self, features: torch.Tensor, labels: torch.Tensor
    ) -> list[tuple[nn.Module, Sequence[torch.Tensor], Sequence[torch.Tensor]]]:
        """Return each trained layer with its input and the summed loss's gradient at its output.

        Args:
            features: float32 [records, features], filled up or not.
            labels: int64 [records].
        """
        values = [_filled(features)]
        for layer, wide in zip(self._layers, self._wide, strict=True):
            values.append(_activated(layer, values[-1]) if wide is None else _linear(values[-1], *wide))
        grad = torch.softmax(values[-1], dim=1)
        grad.scatter_add_(1, labels.unsqueeze(1), grad.new_full((len(labels), 1), -1.0))
        found: list[tuple[nn.Module, Sequence[torch.Tensor], Sequence[torch.Tensor]]] = []
        for index in range(len(self._layers) - 1, -1, -1):
            layer, wide = self._layers[index], self._wide[index]
            if wide is None:
                grad = _backward(layer, values[index + 1], grad)
                continue
            if self._trained[index]:
                answers, inputs = self._shapes[index]
                found.append((layer, [values[index][:, :inputs]], [grad[:, :answers]]))
            if index:
                grad = grad @ wide[0]
        return found


def _filled(rows: torch.Tensor, *, down: bool = False) -> torch.Tensor:
    """Columns of zeros up to a multiple of 16, and rows where asked for; itself where none are missing."""
    right, below = -rows.shape[1] % _ALIGNED, -rows.shape[0] % _ALIGNED if down else 0
    return functional.pad(rows, (0, right, 0, below)) if right or below else rows


def _flattened(model: nn.Module) -> Iterator[nn.Module]:
    if type(model) is nn.Sequential:
        for child in model:
            yield from _flattened(child)
    else:
        yield model


_linear = functional.linear


def _activated(layer: nn.Module, value: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.ReLU):
        return torch.relu(value)
    if isinstance(layer, nn.Tanh):
        return torch.tanh(value)
    return torch.sigmoid(value) if isinstance(layer, nn.Sigmoid) else value


def _backward(layer: nn.Module, output: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.ReLU):
        return torch.ops.aten.threshold_backward(grad, output, 0)  # type: ignore[no-any-return]
    if isinstance(layer, nn.Tanh):
        return torch.ops.aten.tanh_backward(grad, output)  # type: ignore[no-any-return]
    if isinstance(layer, nn.Sigmoid):
        return torch.ops.aten.sigmoid_backward(grad, output)  # type: ignore[no-any-return]
    return grad
