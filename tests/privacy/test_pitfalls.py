"""What makes a claim of differential privacy false, one test for each known way that code can close.

Each name is that of a pitfall; those that no code can close stand in a plan's statement (``test_planning``).
Most have deeper tests of their own; here each is met once, at the door where it would come in.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from cloister.core.hashes import sha256_hex
from cloister.evidence.predicates import DataCommitment
from cloister.evidence.transcript import Gaussian, RepeatAndSelect, SampledGaussian, epsilon
from cloister.federation.job import PrivacyConfig
from cloister.health.schema import Column
from cloister.policy.manifest import EvaluationMethod
from cloister.privacy.budget import Limit, Scope, check_delta, check_group
from cloister.privacy.clipping import BookKeeper
from cloister.privacy.errors import ModelError, PrivacyError
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.privacy.models import build_model, check_model
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.randomness import OsRandom
from cloister.privacy.sampling import PoissonSampler
from cloister.privacy.testing import SEEDED_GENERATOR, SeededTestRandom
from cloister.privacy.trainer import DPTrainer, FitResult, TrainingData, TrainingPlan
from cloister.privacy.units import Units

PLAN = TrainingPlan(0.5, 1.0, 1.0, 4, 0.1)


def data(records: int = 40, subjects: np.ndarray | None = None) -> TrainingData:
    random = np.random.default_rng(3)
    features = random.uniform(-1, 1, (records, 5)).astype(np.float32)
    return TrainingData(features, random.integers(0, 2, records), subjects)


def trainer(plan: TrainingPlan = PLAN) -> DPTrainer:
    return DPTrainer(plan, noise=SeededTestRandom(1, "noise"), sampling=SeededTestRandom(1, "sampling"))


class _LessItsBatchMean(nn.Module):
    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch - batch.mean(dim=0)


def test_batch_statistics() -> None:
    with pytest.raises(ModelError) as refused:
        check_model(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), 5)
    assert refused.value.code == "model.layer_refused"
    with pytest.raises(ModelError):
        check_model(nn.Sequential(_LessItsBatchMean(), nn.Linear(5, 2)), 5)


def test_inf_or_nan_record() -> None:
    for value in (np.nan, np.inf):
        spoiled = data().features.copy()
        spoiled[0, 0] = value
        with pytest.raises(PrivacyError):
            TrainingData(spoiled, data().labels)
    model = build_model("logistic-regression", 5, 2, 0)
    huge, one = torch.full((1, 5), 3e38), torch.ones(1, 5)
    labels = torch.zeros(1, dtype=torch.int64)
    with BookKeeper(model, 1.0) as keeper:
        alone = keeper.clipped_sum(one, labels, Units(1, None))
        both = keeper.clipped_sum(torch.cat([huge, one]), labels.repeat(2), Units(2, None))
    assert all(torch.isfinite(part).all() for part in both)
    assert all(torch.equal(a, b) or (b - a).norm() <= 1.0 + 1e-4 for a, b in zip(alone, both, strict=True))


def test_shuffled_or_fixed_batches() -> None:
    assert set(inspect.signature(DPTrainer).parameters) == {"plan", "noise", "sampling"}
    sampler = PoissonSampler(1000, 0.1, SeededTestRandom(2, "sampling"))
    sizes = {len(sampler.sample()) for _ in range(30)}
    assert len(sizes) > 5
    shuffled = epsilon([Gaussian(1.1, 26)], 1e-5)
    assert shuffled > 5 * epsilon([SampledGaussian(0.0256, 1.1, 1000)], 1e-5)


def test_last_batch_dropped_or_wrong_sampling_probability() -> None:
    assert PLAN.event == SampledGaussian(0.5, 1.0, 4)
    model = build_model("logistic-regression", 5, 2, 0)
    small = TrainingPlan(0.5, 1.0, 1.0, 4, 0.1, physical_batch=3)
    assert trainer(small).fit(model, data()) == FitResult(4, aborted=False)


def test_engine_made_anew_for_each_round(tmp_path: Path) -> None:
    path, one = tmp_path / "budget.sqlite", SampledGaussian(0.1, 2.0, 50)
    for number in range(3):
        opened = BudgetLedger.open(path, "wards") if number else BudgetLedger.create(path, "wards", 1e-5)
        with opened as ledger:
            held = ledger.reserve(
                one,
                dataset_sha256=sha256_hex(b"records"),
                job_id=f"job {number}",
                round_number=0,
                purpose=Purpose.TRAINING,
                limits=[],
            )
            ledger.settle(held, 50)
    with BudgetLedger.open(path, "wards") as ledger:
        assert ledger.epsilon() == pytest.approx(epsilon([SampledGaussian(0.1, 2.0, 150)], 1e-5), abs=1e-6)


def test_seeds_and_weak_generators() -> None:
    assert not {"seed", "key"} & set(inspect.signature(OsRandom).parameters)
    assert not np.array_equal(OsRandom("a").words(8), OsRandom("a").words(8))
    assert "seed" not in PrivacyConfig.model_fields
    assert trainer().noise_generator == SEEDED_GENERATOR


def test_floating_point() -> None:
    model = build_model("logistic-regression", 5, 2, 0)
    draws = GaussianIntegers(SeededTestRandom(1, "noise")).draw(1000, 20)
    assert draws.dtype == np.int64
    with BookKeeper(model, 1.0) as keeper:
        grid = PLAN.grid(keeper.shape(5, grouped=False), 40)
    assert np.log2(grid.deviation / grid.step) == grid.bits
    assert 0 < grid.slack < 1e-3
    assert grid.sensitivity == pytest.approx(1 + grid.slack)


def test_normalisation_statistics() -> None:
    fields_of = DataCommitment.model_fields["normalisation"].annotation
    assert str(fields_of) == "typing.Literal['declared-public-bounds']"
    with pytest.raises(ValidationError):
        Column(name="age")


def test_validation_metrics_and_losses() -> None:
    assert {one.name for one in fields(FitResult)} == {"executed_steps", "aborted"}
    assert str(EvaluationMethod.model_fields["kind"].annotation) == "typing.Literal['named-test-set']"


def test_early_stopping(tmp_path: Path) -> None:
    """What stops a training is asked without being shown anything, and the plan is reserved beforehand."""
    asked: list[tuple[object, ...]] = []

    def stop(*seen: object) -> bool:
        asked.append(seen)
        return len(asked) > 2

    model = build_model("logistic-regression", 5, 2, 0)
    assert trainer().fit(model, data(), abort=stop) == FitResult(2, aborted=True)
    assert set(asked) == {()}
    with BudgetLedger.create(tmp_path / "budget.sqlite", "wards", 1e-5) as ledger:
        ledger.reserve(
            SampledGaussian(0.1, 2.0, 50),
            dataset_sha256=sha256_hex(b"records"),
            job_id="job",
            round_number=0,
            purpose=Purpose.TRAINING,
            limits=[Limit("manifest", 4.0, Scope.DATASET)],
        )
        assert ledger.events() == (SampledGaussian(0.1, 2.0, 50),)


def test_hyper_parameter_tuning() -> None:
    base = SampledGaussian(0.0256, 3.438, 1000)
    tuned = RepeatAndSelect(0.0256, 3.438, 1000, 40.0, 10.0, 1.0, 1)
    assert epsilon([base], 1e-5) < epsilon([tuned], 1e-5) < epsilon([base] * 10, 1e-5)


def test_several_records_of_one_subject() -> None:
    model = build_model("logistic-regression", 5, 2, 0)
    features, labels = torch.full((8, 5), 5.0), torch.zeros(8, dtype=torch.int64)
    with BookKeeper(model, 1.0) as keeper:
        apart = keeper.clipped_sum(features, labels, Units(8, None))
        together = keeper.clipped_sum(features, labels, Units(1, torch.zeros(8, dtype=torch.int64)))
    assert torch.cat([part.flatten() for part in apart]).norm() == pytest.approx(8, abs=1e-3)
    assert torch.cat([part.flatten() for part in together]).norm() == pytest.approx(1, abs=1e-3)
    assert data(40, np.repeat(np.arange(10), 4)).units == 10


def test_small_groups() -> None:
    with pytest.raises(PrivacyError):
        check_group(19, 20)
    with pytest.raises(PrivacyError):
        check_delta(0.05, 20)
    with pytest.raises(PrivacyError):
        data(40, np.zeros(40, dtype=np.int64))


def test_same_noise_at_all_sites() -> None:
    sites = [OsRandom(site, "job", purpose) for site in ("a", "b", "a") for purpose in ("noise", "sampling")]
    words = np.concatenate([one.words(256) for one in sites])
    assert len(np.unique(words)) == len(words)


def test_figures_chosen_on_the_data_and_side_channels() -> None:
    for frozen in (PLAN, PrivacyConfig()):
        with pytest.raises((AttributeError, ValidationError)):
            frozen.max_grad_norm = 2.0  # type: ignore[misc]
    model = build_model("logistic-regression", 5, 2, 0)
    before = {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}
    trainer().fit(model, data())
    assert {name: (value.shape, value.dtype) for name, value in model.state_dict().items()} == before
    assert all(one.grad is None for one in model.parameters())
