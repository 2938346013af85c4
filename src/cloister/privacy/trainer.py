"""Differentially private training of one model on one site's records.

Rules kept here:

1. Every step samples by Poisson, clips per record, and adds noise, also when the batch is empty.
2. A step counts as executed as soon as its batch is drawn, whether or not anything of it is released.
3. Gradients are scaled by the expected batch size. Batch sizes, losses and norms are never stored or
   returned.
4. Batches that are too large for memory are split, never cut short.
5. The model that comes back is the one that went in, with new weights and no trace of the training machinery.

Sources: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1; Opacus for per-record gradients.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleHooks
from torch import nn

from cloister.core.errors import InputError
from cloister.evidence.transcript import SampledGaussian
from cloister.privacy.errors import PrivacyError
from cloister.privacy.models import check_model
from cloister.privacy.optimizer import CsprngDPOptimizer, GradientDescent
from cloister.privacy.randomness import OS_GENERATOR, RandomSource
from cloister.privacy.sampling import PoissonSampler

# Records need no gradient of their own, which torch remarks on once per process; Opacus's hooks rely on it.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What one call of :meth:`DPTrainer.fit` does: exactly the event that is reserved in the ledger.

    Args:
        sampling_probability: Chance of a record to be in a step's batch, in (0, 1].
        noise_multiplier: Noise standard deviation divided by ``max_grad_norm``, above 0.
        max_grad_norm: L2 bound on one record's gradient, above 0.
        steps: Steps to take, at least 1.
        learning_rate: Step size, above 0.
        momentum: In [0, 1).
        physical_batch: Largest number of records held in memory at once.

    Raises:
        PrivacyError: ``privacy.plan_invalid``.
    """

    sampling_probability: float
    noise_multiplier: float
    max_grad_norm: float
    steps: int
    learning_rate: float
    momentum: float = 0.0
    physical_batch: int = 1024

    def __post_init__(self) -> None:
        for name in ("sampling_probability", "noise_multiplier", "max_grad_norm", "learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PrivacyError("privacy.plan_invalid", f"The plan's {name} must be above 0 and finite.")
        if not 0 <= self.momentum < 1:
            raise PrivacyError("privacy.plan_invalid", "The plan's momentum must be at least 0 and below 1.")
        if self.steps < 1 or self.physical_batch < 1:
            raise PrivacyError(
                "privacy.plan_invalid", "The plan needs at least one step and one record at once."
            )
        try:
            _ = self.event
        except InputError as error:
            raise PrivacyError("privacy.plan_invalid", error.message) from None

    @property
    def event(self) -> SampledGaussian:
        """The privacy event of the whole plan, to reserve before :meth:`DPTrainer.fit`."""
        return SampledGaussian(self.sampling_probability, self.noise_multiplier, self.steps)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """One site's records as arrays.

    Args:
        features: float32 of shape [records, features], finite.
        labels: int64 of shape [records], classes counted from 0.

    Raises:
        PrivacyError: ``privacy.data_invalid``; the message names the rule, never a value.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        features, labels = self.features, self.labels
        if features.dtype != np.float32 or features.ndim != 2 or 0 in features.shape:
            raise PrivacyError(
                "privacy.data_invalid", "Features must be float32 of shape [records, features]."
            )
        if labels.dtype != np.int64 or labels.shape != features.shape[:1]:
            raise PrivacyError("privacy.data_invalid", "Labels must be int64, one for each record.")
        if not np.isfinite(features).all():
            raise PrivacyError("privacy.data_invalid", "Features must be finite.")
        if labels.min() < 0:
            raise PrivacyError("privacy.data_invalid", "Labels must count classes from 0.")

    @property
    def records(self) -> int:
        """Number of records, treated as public."""
        return int(self.features.shape[0])


@dataclass(frozen=True, slots=True)
class FitResult:
    """What :meth:`DPTrainer.fit` did.

    Args:
        executed_steps: Steps that touched the records; what the ledger is settled with.
        aborted: Whether it was stopped before the plan's end.
    """

    executed_steps: int
    aborted: bool


def _never() -> bool:
    return False


class DPTrainer:
    """Trains by DP-SGD according to a plan.

    Args:
        plan: What to do.
        noise: Source of the noise.
        sampling: Source of the batches; another stream than ``noise``.

    Raises:
        PrivacyError: ``privacy.plan_invalid`` when both sources are one object.
    """

    def __init__(self, plan: TrainingPlan, *, noise: RandomSource, sampling: RandomSource) -> None:
        if noise is sampling:
            raise PrivacyError(
                "privacy.plan_invalid", "Noise and sampling need separate sources of randomness."
            )
        self.plan = plan
        self._noise = noise
        self._sampling = sampling

    @property
    def noise_generator(self) -> str:
        """Name of the generator for the statement; the weaker one where the two sources differ."""
        names = {self._noise.generator, self._sampling.generator}
        return OS_GENERATOR if names == {OS_GENERATOR} else min(names - {OS_GENERATOR})

    def fit(self, model: nn.Module, data: TrainingData, *, abort: Callable[[], bool] = _never) -> FitResult:
        """Train the model in place.

        Args:
            model: Takes float32 [batch, features], returns logits [batch, classes].
            data: The site's records.
            abort: Asked before each step; True ends the training there.

        Returns:
            How many steps were executed.

        Raises:
            ModelError: The model would mix records, or has an unsupported layer.
            PrivacyError: ``privacy.data_invalid`` when labels or features don't fit the model.
        """
        plan = self.plan
        features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
        classes = check_model(model, data.features.shape[1])
        if int(data.labels.max()) >= classes:
            raise PrivacyError("privacy.data_invalid", "A label is not one of the model's classes.")
        sampler = PoissonSampler(data.records, plan.sampling_probability, self._sampling)
        was_training = model.training
        model.train()
        hooks = GradSampleHooks(model, loss_reduction="sum")
        try:
            optimizer = CsprngDPOptimizer(
                GradientDescent(_trainable(model), plan.learning_rate, plan.momentum),
                source=self._noise,
                noise_multiplier=plan.noise_multiplier,
                max_grad_norm=plan.max_grad_norm,
                expected_batch_size=plan.sampling_probability * data.records,
            )
            for step in range(plan.steps):
                if abort():
                    return FitResult(executed_steps=step, aborted=True)
                self._step(model, optimizer, features, labels, torch.from_numpy(sampler.sample()))
            return FitResult(executed_steps=plan.steps, aborted=False)
        finally:
            hooks.cleanup()
            model.zero_grad(set_to_none=True)
            for parameter in model.parameters():
                vars(parameter).pop("summed_grad", None)
            model.train(was_training)

    def _step(
        self,
        model: nn.Module,
        optimizer: CsprngDPOptimizer,
        features: torch.Tensor,
        labels: torch.Tensor,
        batch: torch.Tensor,
    ) -> None:
        chunks = torch.split(batch, self.plan.physical_batch)
        for chunk in chunks[:-1]:
            _backward(model, features[chunk], labels[chunk])
            optimizer.signal_skip_step(do_skip=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        last = chunks[-1]
        if last.numel():
            _backward(model, features[last], labels[last])
        else:
            optimizer.hold_no_records()
        optimizer.signal_skip_step(do_skip=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _backward(model: nn.Module, features: torch.Tensor, labels: torch.Tensor) -> None:
    nn.functional.cross_entropy(model(features), labels, reduction="sum").backward()  # type: ignore[no-untyped-call]


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
