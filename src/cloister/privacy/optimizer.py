"""Opacus's DP optimizer, with noise from a cryptographic source, added to the clipped sum on one grid.

Rules kept here:

1. Scaling, the order of a step, the step itself and the accountant's hook are Opacus's, as in its optimizer
   for fast gradient clipping; like there, the clipped sum is computed elsewhere.
2. The clipped sum is rounded to the grid once per step; noise in whole grid steps is drawn once per step for
   all parameters; the two are added as 64-bit integers.
3. An empty batch is a sum of zeros: the step is noise alone, as the accounting assumes.

Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import nn

from cloister.privacy.noise import Grid, IntegerNoise


class GradientDescent:
    """Gradient descent with optional momentum, in the shape that Opacus wraps.

    ``torch.optim.SGD`` computes the same, but constructing one loads the whole of ``torch._dynamo``, which
    costs more than a second.

    Args:
        parameters: What is trained.
        learning_rate: Step size.
        momentum: Decay of the velocity, 0 for none.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, momentum: float) -> None:
        self.param_groups: list[dict[str, list[nn.Parameter]]] = [{"params": list(parameters)}]
        self.defaults: dict[str, float] = {"lr": learning_rate, "momentum": momentum}
        self.state: defaultdict[torch.Tensor, torch.Tensor] = defaultdict()
        self._learning_rate = learning_rate
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move every parameter that has a gradient against it."""
        if closure is not None:
            closure()
        trained: list[torch.Tensor] = [one for one in self.param_groups[0]["params"] if one.grad is not None]
        directions = [one.grad for one in trained if one.grad is not None]
        if self._momentum:
            directions = [self._velocity(one, grad) for one, grad in zip(trained, directions, strict=True)]
        if trained:
            torch._foreach_add_(trained, directions, alpha=-self._learning_rate)

    def _velocity(self, parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        before = self.state.get(parameter)
        velocity = gradient.clone() if before is None else before.mul_(self._momentum).add_(gradient)
        self.state[parameter] = velocity
        return velocity

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's own signature
        """Forget the gradients."""
        for parameter in self.param_groups[0]["params"]:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()


class CsprngDPOptimizer(DPOptimizerFastGradientClipping):
    """DP-SGD step: round the clipped sum, add noise, scale, descend.

    Args:
        optimizer: What takes the private gradient.
        noise: Where noise comes from.
        grid: The grid, chosen for this clip norm and noise multiplier.
        noise_multiplier: Noise standard deviation divided by the grid's sensitivity.
        max_grad_norm: L2 bound on one unit's gradient over all parameters.
        expected_batch_size: Sampling probability times number of units; never the size of an actual batch.
    """

    def __init__(
        self,
        optimizer: GradientDescent,
        *,
        noise: IntegerNoise,
        grid: Grid,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
        )
        self._noise = noise
        self._grid = grid
        self._sizes = [parameter.numel() for parameter in self.params]
        self._sum = torch.zeros(sum(self._sizes), dtype=torch.float64)
        self._numbers = self._sum.numpy()
        self._released = torch.zeros(len(self._sum))
        parts = torch.split(self._released, self._sizes)
        self._grads = [part.view(one.shape) for one, part in zip(self.params, parts, strict=True)]

    def hold(self, clipped_sum: Sequence[torch.Tensor]) -> None:
        """Add one part of the step's clipped sum.

        Args:
            clipped_sum: For each parameter the sum over some of the batch's units, float64.
        """
        self._sum += torch.cat([part.flatten() for part in clipped_sum])

    def accumulate(self) -> None:
        """Opacus's place for adding up parts: :meth:`hold` did that."""

    def add_noise(self) -> None:
        """Round the sum to the grid, add one fresh draw of noise, and start the next sum at zero."""
        grid, numbers = self._grid, self._numbers
        numbers /= grid.step
        steps = np.rint(numbers, out=numbers).astype(np.int64)
        steps += self._noise.draw(len(steps), grid.bits)
        # Noise is rounded down; half a step takes the mean back to zero.
        released = steps + 0.5
        released *= grid.step
        self._released.numpy()[:] = released
        for parameter, grad in zip(self.params, self._grads, strict=True):
            if parameter.grad is not grad:
                parameter.grad = grad
        numbers.fill(0.0)
