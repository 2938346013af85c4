"""Forward and backward pass of plain feed-forward networks written out, where autograd costs more than sums.

Rules kept here:

1. Only a ``nn.Sequential`` of Linear layers and element-wise activations qualifies, with nobody listening to
   its layers; every other model takes autograd's way. Both ways feed the same clipping.
2. The figures are those of autograd on ``cross_entropy(..., reduction="sum")``; a test compares them.
3. Every width is filled up with zeros to a multiple of 16: each row then begins on a boundary of 64 bytes,
   and matrix libraries treat all rows alike (see ``blocks``). What is added has no gradient and is cut off.
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
        # Looking a weight up in a module costs as much as a small product.
        self._weights = [(one.weight, one.bias) if isinstance(one, nn.Linear) else None for one in layers]
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

    def gradients(
        self, features: torch.Tensor, labels: torch.Tensor
    ) -> list[tuple[nn.Module, Sequence[torch.Tensor], Sequence[torch.Tensor]]]:
        """Return each trained layer with its input and the summed loss's gradient at its output.

        Args:
            features: float32 [records, features].
            labels: int64 [records].
        """
        values = [_filled(features)]
        weights = [None if own is None else _filled_weight(own[0]) for own in self._weights]
        for layer, own, weight in zip(self._layers, self._weights, weights, strict=True):
            if own is None or weight is None:
                values.append(_activated(layer, values[-1]))
                continue
            # Classes that don't exist are infinitely unlikely: their share of the softmax is exactly zero.
            fill = -torch.inf if layer is self._layers[-1] else 0.0
            values.append(_linear(values[-1], weight, _filled_bias(own[1], len(own[0]), fill)))
        grad = torch.softmax(values[-1], dim=1)
        grad.scatter_add_(1, labels.unsqueeze(1), grad.new_full((len(labels), 1), -1.0))
        found: list[tuple[nn.Module, Sequence[torch.Tensor], Sequence[torch.Tensor]]] = []
        for index in range(len(self._layers) - 1, -1, -1):
            layer, own, weight = self._layers[index], self._weights[index], weights[index]
            if own is not None and weight is not None:
                if self._trained[index]:
                    wide, deep = own[0].shape
                    found.append((layer, [values[index][:, :deep]], [grad[:, :wide]]))
                if index:
                    grad = grad @ weight
            else:
                grad = _backward(layer, values[index + 1], grad)
        return found


def _filled(rows: torch.Tensor) -> torch.Tensor:
    """Columns of zeros up to a multiple of 16."""
    missing = -rows.shape[1] % _ALIGNED
    return functional.pad(rows, (0, missing)) if missing else rows


def _filled_weight(weight: torch.Tensor) -> torch.Tensor:
    """Rows and columns of zeros up to a multiple of 16."""
    down, right = (-size % _ALIGNED for size in weight.shape)
    return functional.pad(weight, (0, right, 0, down)) if down or right else weight


def _filled_bias(bias: torch.Tensor | None, width: int, fill: float) -> torch.Tensor | None:
    missing = -width % _ALIGNED
    if not missing or (bias is None and not fill):
        return bias
    return functional.pad(torch.zeros(width) if bias is None else bias, (0, missing), value=fill)


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
