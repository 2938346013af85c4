"""Trainers to audit: the honest one, and such as have one fault each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cloister.privacy import trainer as engine
from cloister.privacy.clipping import BookKeeper
from cloister.privacy.noise import GaussianIntegers, Integers
from cloister.privacy.optimizer import CsprngDPOptimizer
from cloister.privacy.randomness import OsRandom
from cloister.privacy.sampling import PoissonSampler
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import DPTrainer, TrainingPlan
from cloister.privacy.units import Units

Fault = Callable[[pytest.MonkeyPatch], None]


def honest(plan: TrainingPlan, site: str) -> DPTrainer:
    return DPTrainer(plan, noise=OsRandom(site, "noise"), sampling=OsRandom(site, "sampling"))


def _noise_times(factor: float) -> Fault:
    class Quieter(GaussianIntegers):
        def draw(self, count: int, bits: int) -> Integers:
            return np.round(super().draw(count, bits) * factor).astype(np.int64)

    return lambda patch: patch.setattr(engine, "GaussianIntegers", Quieter)


def _uniform_noise(patch: pytest.MonkeyPatch) -> None:
    """The right variance, the wrong law."""

    class Uniform(GaussianIntegers):
        def draw(self, count: int, bits: int) -> Integers:
            unit = self._source.words(count).astype(np.float64) * 2.0**-64
            return np.round((unit - 0.5) * np.sqrt(12) * 2.0**bits).astype(np.int64)

    patch.setattr(engine, "GaussianIntegers", Uniform)


def _tensors_without_noise(*places: int) -> Fault:
    def fault(patch: pytest.MonkeyPatch) -> None:
        add_noise = CsprngDPOptimizer.add_noise

        def add_less(self: CsprngDPOptimizer) -> None:
            sums = torch.split(self._sum.clone(), self._sizes)
            add_noise(self)
            for place in places:
                if place < len(self.params):
                    shape = self.params[place].shape
                    self.params[place].grad = sums[place].float().view(shape)

        patch.setattr(CsprngDPOptimizer, "add_noise", add_less)

    return fault


def _reused_each_step(patch: pytest.MonkeyPatch) -> None:
    class Reused(GaussianIntegers):
        kept: Integers | None = None

        def draw(self, count: int, bits: int) -> Integers:
            if self.kept is None or len(self.kept) != count:
                self.kept = super().draw(count, bits)
            return self.kept.copy()

    patch.setattr(engine, "GaussianIntegers", Reused)


def _seeded(seed_of: Callable[[str], int], *, sampling: bool) -> Callable[[TrainingPlan, str], DPTrainer]:
    def factory(plan: TrainingPlan, site: str) -> DPTrainer:
        seeded = SeededTestRandom(seed_of(site))
        if sampling:
            return DPTrainer(plan, noise=OsRandom(site), sampling=seeded)
        return DPTrainer(plan, noise=seeded, sampling=OsRandom(site))

    return factory


def _half_again(patch: pytest.MonkeyPatch) -> None:
    """Draws noise for half of the weights and uses it twice."""

    class Half(GaussianIntegers):
        def draw(self, count: int, bits: int) -> Integers:
            half = super().draw(count // 2 + 1, bits)
            return np.concatenate((half, half))[:count]

    patch.setattr(engine, "GaussianIntegers", Half)


def _clip_to(change: Callable[[float], float]) -> Fault:
    class Loose(BookKeeper):
        def __init__(self, model: torch.nn.Module, max_grad_norm: float, **layout: bool) -> None:
            super().__init__(model, change(max_grad_norm), **layout)

    return lambda patch: patch.setattr(engine, "BookKeeper", Loose)


def _clip_by_layer(patch: pytest.MonkeyPatch) -> None:
    """Cuts each tensor's gradient to the bound by itself: the whole may be longer."""
    clipped_sum = BookKeeper.clipped_sum

    def by_layer(
        self: BookKeeper, features: torch.Tensor, labels: torch.Tensor, units: Units
    ) -> list[torch.Tensor]:
        if len(labels) > 30:
            return clipped_sum(self, features, labels, units)
        total = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]
        for row in range(len(labels)):
            for place, one in enumerate(
                self._plain_gradients(features[row : row + 1], labels[row : row + 1])
            ):
                norm = float(one.double().norm())
                if np.isfinite(norm):
                    total[place] += one.double() * min(1.0, self._clip / max(norm, 1e-9))
        return total

    patch.setattr(BookKeeper, "clipped_sum", by_layer)


def _clip_records_of_subjects(patch: pytest.MonkeyPatch) -> None:
    clipped_sum = BookKeeper.clipped_sum

    def each(
        self: BookKeeper, features: torch.Tensor, labels: torch.Tensor, units: Units
    ) -> list[torch.Tensor]:
        return clipped_sum(self, features, labels, Units(len(labels), None))

    patch.setattr(BookKeeper, "clipped_sum", each)


def _zero_is_skipped(patch: pytest.MonkeyPatch) -> None:
    """No noise when nobody is in the batch."""
    add_noise = CsprngDPOptimizer.add_noise

    def add(self: CsprngDPOptimizer) -> None:
        empty = not bool(self._sum.any())
        add_noise(self)
        if empty:
            for parameter in self.params:
                parameter.grad = torch.zeros_like(parameter)

    patch.setattr(CsprngDPOptimizer, "add_noise", add)


def _broken_records_count(patch: pytest.MonkeyPatch) -> None:
    """A record that is not finite moves the sum instead of being left out."""
    clipped_sum = BookKeeper.clipped_sum

    def moved(
        self: BookKeeper, features: torch.Tensor, labels: torch.Tensor, units: Units
    ) -> list[torch.Tensor]:
        total = clipped_sum(self, features, labels, units)
        if float(features.abs().max()) > 1e38:
            total[0][0, 0] += 0.5
        return total

    patch.setattr(BookKeeper, "clipped_sum", moved)


def _sampler(sample: Callable[[PoissonSampler], np.ndarray]) -> Fault:
    def fault(patch: pytest.MonkeyPatch) -> None:
        plain = PoissonSampler.sample

        def faulty(self: PoissonSampler) -> np.ndarray:
            if self.sampling_probability == 1 or self.units < 10:
                return plain(self)
            return sample(self)

        patch.setattr(PoissonSampler, "sample", faulty)

    return fault


def _fixed_size(self: PoissonSampler) -> np.ndarray:
    return np.sort(self._subset(round(self.units * self.sampling_probability)))


def _in_turn(self: PoissonSampler) -> np.ndarray:
    """Shuffled once an epoch, then taken in order."""
    size = round(self.units * self.sampling_probability)
    left = getattr(self, "left", np.empty(0, np.int64))
    if len(left) < size:
        left = np.argsort(self._source.words(self.units)).astype(np.int64)
    self.left = left[size:]  # type: ignore[attr-defined]
    return left[:size]


def _in_pairs(self: PoissonSampler) -> np.ndarray:
    coins = self._source.words(self.units // 2) * 2.0**-64 < self.sampling_probability
    return np.flatnonzero(np.repeat(coins, 2))


def _more_often(self: PoissonSampler) -> np.ndarray:
    return np.flatnonzero(self._source.words(self.units) * 2.0**-64 < 1.06 * self.sampling_probability)


def _never_the_last(self: PoissonSampler) -> np.ndarray:
    coins = self._source.words(self.units) * 2.0**-64 < self.sampling_probability
    coins[-1] = False
    return np.flatnonzero(coins)


def _dropped_over_the_limit(self: PoissonSampler) -> np.ndarray:
    coins = np.flatnonzero(self._source.words(self.units) * 2.0**-64 < self.sampling_probability)
    return coins[: round(self.units * self.sampling_probability)]


def _actual_batch_size(patch: pytest.MonkeyPatch) -> None:
    """Divides by the batch at hand: its size shows, and one unit moves the others' share."""
    step, hold = CsprngDPOptimizer.step, DPTrainer._step
    sizes: list[int] = []

    def remember(self: DPTrainer, keeper: object, optimizer: object, rows: object, batch: np.ndarray) -> None:
        sizes.append(len(batch))
        hold(self, keeper, optimizer, rows, batch)  # type: ignore[arg-type]

    def divide(self: CsprngDPOptimizer, *arguments: object) -> object:
        if sizes[-1]:
            self._sum *= self.expected_batch_size / sizes[-1]
        return step(self, *arguments)

    patch.setattr(DPTrainer, "_step", remember)
    patch.setattr(CsprngDPOptimizer, "step", divide)


SPIKE: dict[str, tuple[Fault, str]] = {
    "noise 4x too small": (_noise_times(0.25), "noise-scale"),
    "no clipping": (_clip_to(lambda _: 1e12), "clipping/huge"),
    "layers without noise": (_tensors_without_noise(2, 3, 4, 5), "noise-scale/2.weight"),
    "noise reused in each step": (_reused_each_step, "freshness/steps"),
    "noise x0.98": (_noise_times(0.98), "noise-scale"),
}
"""The four faults of the research, and the small one; each with a check that has to see it."""

MORE: dict[str, tuple[Fault, str]] = {
    "noise x1.02": (_noise_times(1.02), "noise-scale"),
    "uniform noise": (_uniform_noise, "noise-law"),
    "one bias of two weights without noise": (_tensors_without_noise(5), "noise-scale/4.bias"),
    "noise for half of the weights": (_half_again, "freshness/tensors"),
    "no noise on an empty batch": (_zero_is_skipped, "empty-batch/2.weight"),
    "clipped by layer": (_clip_by_layer, "clipping/mixed"),
    "clipped to 1.2 C": (_clip_to(lambda norm: 1.2 * norm), "clipping/huge"),
    "a subject's records clipped apart": (_clip_records_of_subjects, "clipping/subject"),
    "a broken record counts": (_broken_records_count, "clipping/not-finite"),
    "batches of fixed size": (_sampler(_fixed_size), "sampling/batch-size"),
    "shuffled batches in turn": (_sampler(_in_turn), "sampling/turns"),
    "records drawn in pairs": (_sampler(_in_pairs), "sampling/neighbours"),
    "six percent more records": (_sampler(_more_often), "sampling/rate"),
    "the last record never": (_sampler(_never_the_last), "sampling/every-unit"),
    "large batches cut short": (_sampler(_dropped_over_the_limit), "sampling/batch-size"),
    "divided by the batch at hand": (_actual_batch_size, "sampling/sum"),
}

SHARED: dict[str, tuple[Callable[[TrainingPlan, str], DPTrainer], str]] = {
    "one noise seed for all sites": (_seeded(lambda _: 4, sampling=False), "freshness/sites"),
    "a seed for each site": (_seeded(lambda site: sum(site.encode()), sampling=False), "freshness/restarts"),
    "one sampling seed for all sites": (_seeded(lambda _: 4, sampling=True), "sampling/sites"),
}
"""Randomness that is not the site's own and fresh."""
