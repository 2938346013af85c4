"""Opacus's DP optimizer with noise from a cryptographic source and a guard against non-finite gradients.

Rules kept here:

1. Clipping, accumulation, scaling and the order of a step are Opacus's.
2. Noise has standard deviation ``noise_multiplier * max_grad_norm``, is drawn from the given source once per
   step for all parameters, and is added in float64 before rounding to the parameter's type.
3. A record whose gradient holds an infinity or a NaN contributes exactly nothing; without this one such
   record would make the whole update non-finite and so reveal itself.

Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import nn

from cloister.privacy.randomness import RandomSource


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
        self.state: defaultdict[nn.Parameter, torch.Tensor] = defaultdict()
        self._learning_rate = learning_rate
        self._momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Move every parameter that has a gradient against it."""
        if closure is not None:
            closure()
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is None:
                continue
            direction = parameter.grad
            if self._momentum:
                velocity = self.state.get(parameter)
                direction = (
                    direction.clone() if velocity is None else velocity.mul_(self._momentum).add_(direction)
                )
                self.state[parameter] = direction
            parameter.add_(direction, alpha=-self._learning_rate)

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's own signature
        """Forget the gradients."""
        for parameter in self.param_groups[0]["params"]:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()


class CsprngDPOptimizer(DPOptimizer):
    """DP-SGD step: clip each record's gradient, sum, add noise from ``source``, scale, descend.

    Args:
        optimizer: What takes the private gradient.
        source: Where noise comes from.
        noise_multiplier: Noise standard deviation divided by the clip norm.
        max_grad_norm: L2 bound on one record's gradient over all parameters.
        expected_batch_size: Sampling probability times number of records; never the size of an actual batch.
    """

    def __init__(
        self,
        optimizer: GradientDescent,
        *,
        source: RandomSource,
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
        self._source = source
        self._size = sum(parameter.numel() for parameter in self.params)

    def hold_no_records(self) -> None:
        """State that this step's batch is empty: the step is noise alone, as the accounting assumes."""
        for parameter in self.params:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))

    def clip_and_accumulate(self) -> None:
        """Clip each record's gradient to the bound and add it to the step's sum; skip non-finite ones."""
        samples = self.grad_samples
        if not all(bool(torch.isfinite(sample).all()) for sample in samples):
            finite = torch.stack([torch.isfinite(s).flatten(start_dim=1).all(dim=1) for s in samples]).all(
                dim=0
            )
            for parameter, sample in zip(self.params, samples, strict=True):
                keep = finite.view(-1, *([1] * (sample.dim() - 1)))
                parameter.grad_sample = torch.where(keep, sample, 0.0)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Add one fresh draw of noise to every parameter's clipped sum."""
        draw = torch.from_numpy(self._source.normal(self._size)).mul_(
            self.noise_multiplier * self.max_grad_norm
        )
        offset = 0
        for parameter in self.params:
            _check_processed_flag(parameter.summed_grad)
            noise = draw[offset : offset + parameter.numel()].view(parameter.shape)
            parameter.grad = (parameter.summed_grad.double() + noise).to(parameter.dtype)
            offset += parameter.numel()
            _mark_as_processed(parameter.summed_grad)
