"""Forward and backward pass of plain feed-forward networks written out, where autograd costs more than sums.

Rules kept here:

1. Only a ``nn.Sequential`` of Linear layers and element-wise activations qualifies, with nobody listening to
   its layers; every other model takes autograd's way. Both ways feed the same clipping.
2. The figures are those of autograd on ``cross_entropy(..., reduction="sum")``; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import nn

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
        values = [features]
        for layer, own in zip(self._layers, self._weights, strict=True):
            values.append(_activated(layer, values[-1]) if own is None else _linear(values[-1], *own))
        grad = torch.log_softmax(values[-1], dim=1).exp_()
        grad.scatter_add_(1, labels.unsqueeze(1), grad.new_full((len(labels), 1), -1.0))
        found: list[tuple[nn.Module, Sequence[torch.Tensor], Sequence[torch.Tensor]]] = []
        for index in range(len(self._layers) - 1, -1, -1):
            layer, own = self._layers[index], self._weights[index]
            if own is not None:
                if self._trained[index]:
                    found.append((layer, [values[index]], [grad]))
                if index:
                    grad = grad @ own[0]
            else:
                grad = _backward(layer, values[index + 1], grad)
        return found


def _flattened(model: nn.Module) -> Iterator[nn.Module]:
    if type(model) is nn.Sequential:
        for child in model:
            yield from _flattened(child)
    else:
        yield model


_linear = nn.functional.linear


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
