"""Differentially private training of one model on one site's records.

Rules kept here:

1. Every step samples units by Poisson, clips per unit, and adds noise, also when the batch is empty. A unit
   is a record, or a subject with all its records: their gradients are added up and clipped once.
2. A step counts as executed as soon as its batch is drawn, whether or not anything of it is released.
3. Gradients are scaled by the expected batch size. Batch sizes, losses and norms are never stored or
   returned.
4. Batches that are too large for memory are split between units, never cut short; a subject too large for
   memory is added up in parts before it is clipped.
5. The model that comes back is the one that went in, with new weights and no trace of the training machinery.

Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cloister.core.errors import InputError
from cloister.evidence.transcript import SampledGaussian, Unit
from cloister.privacy.blocks import Block
from cloister.privacy.clipping import BookKeeper, Shape
from cloister.privacy.errors import PrivacyError
from cloister.privacy.models import check_model
from cloister.privacy.noise import GaussianIntegers, Grid, IntegerNoise, choose_grid
from cloister.privacy.randomness import OS_GENERATOR, RandomSource
from cloister.privacy.sampling import PoissonSampler
from cloister.privacy.units import Units

if TYPE_CHECKING:
    from cloister.privacy.optimizer import CsprngDPOptimizer


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What one call of :meth:`DPTrainer.fit` does: exactly the event that is reserved in the ledger.

    Args:
        sampling_probability: Chance of a unit to be in a step's batch, in (0, 1].
        noise_multiplier: Noise standard deviation divided by the sensitivity, above 0. The sensitivity is
            ``max_grad_norm`` and the slack of :meth:`grid`.
        max_grad_norm: L2 bound on one unit's gradient, above 0.
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
    physical_batch: int = 2048

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

    def grid(self, shape: Shape, units: int, block: Block | None = None) -> Grid:
        """Return the grid that sums and noise are rounded to, with the slack that rounding adds.

        Args:
            shape: The model's, from :meth:`BookKeeper.shape`.
            units: Number of units in the dataset, public.
            block: The sizes of passes, where each is added up by itself; None where whole units are, as many
                as fit into memory.

        Raises:
            PrivacyError: ``privacy.plan_invalid`` when no grid holds the sums.
        """
        rows, parts = self.physical_batch, units
        if block is not None:
            rows = block.rows
            parts = math.ceil(units / block.records) + math.ceil(units / self.physical_batch)
        return choose_grid(
            self.max_grad_norm,
            self.noise_multiplier,
            parameters=shape.parameters,
            units=units,
            summands=shape.summands(rows),
            parts=parts,
        )


@dataclass(frozen=True, slots=True)
class TrainingData:
    """One site's records as arrays.

    Args:
        features: float32 of shape [records, features], finite.
        labels: int64 of shape [records], classes counted from 0.
        subjects: int64 of shape [records], whose record each is; None when each record is a unit of its own.

    Raises:
        PrivacyError: ``privacy.data_invalid``; the message names the rule, never a value.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    subjects: npt.NDArray[np.int64] | None = None

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
        if self.subjects is not None and (
            self.subjects.dtype != np.int64 or self.subjects.shape != labels.shape
        ):
            raise PrivacyError("privacy.data_invalid", "Subjects must be int64, one for each record.")
        if self.units < 2:
            raise PrivacyError(
                "privacy.data_invalid", f"Training needs at least two {self.unit}s to protect one of them."
            )

    @property
    def records(self) -> int:
        """Number of records, treated as public."""
        return int(self.features.shape[0])

    @property
    def unit(self) -> Unit:
        """What is protected."""
        return "record" if self.subjects is None else "subject"

    @property
    def units(self) -> int:
        """Number of units, treated as public."""
        return self.records if self.subjects is None else len(np.unique(self.subjects))


class _Rows:
    """Finds the records of sampled units, and splits a batch into parts that fit into memory.

    Args:
        data: The records.
        at_once: Largest number of records in a part.
    """

    def __init__(self, data: TrainingData, at_once: int) -> None:
        self._at_once = at_once
        self._features, self._labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
        self._starts: npt.NDArray[np.int64] | None = None
        if data.subjects is not None:
            order = np.argsort(data.subjects, kind="stable")
            _, starts = np.unique(data.subjects[order], return_index=True)
            self._order, self._starts = order, np.append(starts, data.records).astype(np.int64)

    def take(self, records: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features and labels of records."""
        chosen = torch.from_numpy(records)
        return self._features.index_select(0, chosen), self._labels.index_select(0, chosen)

    def parts(self, units: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], Units]]:
        """Yield the records of whole units, as many as fit; one unit alone may be larger."""
        starts = self._starts
        if starts is None:
            for first in range(0, len(units), self._at_once):
                part = units[first : first + self._at_once]
                yield part, Units(len(part), None)
            return
        first = 0
        ends = np.cumsum(starts[units + 1] - starts[units])
        while first < len(units):
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + self._at_once, side="right")))
            part = units[first:last]
            records = np.concatenate([self._order[starts[unit] : starts[unit + 1]] for unit in part])
            of_record = np.repeat(np.arange(len(part)), starts[part + 1] - starts[part])
            yield records, Units(len(part), torch.from_numpy(of_record))
            first = last

    def split(self, records: npt.NDArray[np.int64]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the features and labels of one unit's records in parts that fit."""
        for first in range(0, len(records), self._at_once):
            yield self.take(records[first : first + self._at_once])


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


@dataclass(frozen=True, slots=True)
class _Checked:
    """What :meth:`DPTrainer.check` found, and for what."""

    model: nn.Module
    data: TrainingData
    circumstances: tuple[object, ...]
    channels_last: bool
    block: Block
    grid: Grid

    def holds_for(self, model: nn.Module, data: TrainingData) -> bool:
        if model is not self.model or data is not self.data:
            return False
        return _circumstances(BookKeeper(model, 1.0), model) == self.circumstances


def _circumstances(keeper: BookKeeper, model: nn.Module) -> tuple[object, ...]:
    """What else a record's rounding hangs on: which way passes go, what is trained, threads."""
    trained = tuple(one.requires_grad for one in model.parameters())
    return keeper.written_out, trained, torch.get_num_threads()


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
        self._draws: IntegerNoise = GaussianIntegers(noise)
        self._sampling = sampling
        self._checked: _Checked | None = None

    @property
    def noise_generator(self) -> str:
        """Name of the generator for the statement; the weaker one where the two sources differ."""
        names = {self._noise.generator, self._sampling.generator}
        return OS_GENERATOR if names == {OS_GENERATOR} else min(names - {OS_GENERATOR})

    def check(self, model: nn.Module, data: TrainingData) -> None:
        """Refuse what :meth:`fit` would refuse: to ask before anything is reserved.

        Args:
            model: Takes float32 [batch, features], returns logits [batch, classes]; left as it is.
            data: The site's records.

        Raises:
            ModelError: The model would mix records, or has an unsupported layer.
            PrivacyError: ``privacy.data_invalid`` when labels or features don't fit the model,
                ``privacy.plan_invalid`` when no grid holds the plan's sums.
        """
        self._checked = self._check(model, data)

    def _check(self, model: nn.Module, data: TrainingData) -> _Checked:
        plan, features = self.plan, data.features.shape[1]
        classes = check_model(model, features)
        if int(data.labels.max()) >= classes:
            raise PrivacyError("privacy.data_invalid", "A label is not one of the model's classes.")
        grouped = data.subjects is not None
        was_training = model.training
        model.train()
        try:
            with BookKeeper(model, plan.max_grad_norm) as keeper:
                shape = keeper.shape(features, grouped=grouped)
                block = keeper.choose_block(
                    features,
                    expected=plan.sampling_probability * data.records,
                    most=plan.physical_batch,
                )
                grid = plan.grid(shape, data.units, None if grouped else block)
                return _Checked(model, data, _circumstances(keeper, model), keeper.channels_last, block, grid)
        finally:
            model.train(was_training)

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
        # Only who trains waits for Opacus: nodes and the hub make plans and check models without it.
        from cloister.privacy.optimizer import CsprngDPOptimizer, GradientDescent

        checked = self._checked
        if checked is None or not checked.holds_for(model, data):
            checked = self._checked = self._check(model, data)
        plan = self.plan
        rows = _Rows(data, plan.physical_batch)
        sampler = PoissonSampler(data.units, plan.sampling_probability, self._sampling)
        was_training = model.training
        model.train()
        try:
            with BookKeeper(model, plan.max_grad_norm, channels_last=checked.channels_last) as keeper:
                keeper.block = checked.block
                optimizer = CsprngDPOptimizer(
                    GradientDescent(keeper.parameters, plan.learning_rate, plan.momentum),
                    noise=self._draws,
                    grid=checked.grid,
                    noise_multiplier=plan.noise_multiplier,
                    max_grad_norm=plan.max_grad_norm,
                    expected_batch_size=plan.sampling_probability * data.units,
                )
                for step in range(plan.steps):
                    if abort():
                        return FitResult(executed_steps=step, aborted=True)
                    self._step(keeper, optimizer, rows, sampler.sample())
            return FitResult(executed_steps=plan.steps, aborted=False)
        finally:
            model.zero_grad(set_to_none=True)
            for parameter in model.parameters():
                vars(parameter).pop("summed_grad", None)
            model.train(was_training)

    def _step(
        self,
        keeper: BookKeeper,
        optimizer: CsprngDPOptimizer,
        rows: _Rows,
        batch: npt.NDArray[np.int64],
    ) -> None:
        for records, units in rows.parts(batch):
            if len(records) > self.plan.physical_batch:
                optimizer.hold(keeper.clipped_unit(rows.split(records)))
            else:
                optimizer.hold(keeper.clipped_sum(*rows.take(records), units))
        optimizer.step()
