"""What makes a claim of differential privacy false, one test for each known way that code can close.

Each name is that of a pitfall; those that no code can close stand in a plan's statement (``test_planning``).
Most have deeper tests of their own; here each is met once, at the door where it would come in.
"""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from cloister.core.clock import Clock
from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import Gaussian, RepeatAndSelect, SampledGaussian, epsilon
from cloister.federation.job import PrivacyConfig
from cloister.health.commitment import PUBLIC_RECORDS
from cloister.health.data import make_site
from cloister.health.schema import Column, LabelColumn, TableSchema
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
from tests.federation.nodes import a_job
from tests.federation.parties import DELTA, Federation

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
    """A record is scaled alike whoever else is in the table, and a column without bounds is no column."""
    schema = TableSchema(
        name="wards",
        columns=(Column(name="age", lower=0.0, upper=100.0), Column(name="weight", lower=0.0, upper=200.0)),
        label=LabelColumn(name="outcome", classes=("well", "ill")),
        basis="round numbers of the trade",
    )
    ages = np.linspace(1.0, 99.0, 20)
    table = np.column_stack([ages, ages[::-1] * 2])
    young, labels = table[ages < 50], np.zeros(20, dtype=np.int64)
    scaled = make_site("north", schema, table, labels, salt=PUBLIC_RECORDS).features
    fewer = make_site("north", schema, young, labels[: len(young)], salt=PUBLIC_RECORDS).features
    assert np.array_equal(scaled[: len(young)], fewer)
    assert abs(float(fewer.mean(axis=0)[0])) > 0.2
    with pytest.raises(ValidationError):
        Column(name="age")


FIGURE = re.compile(r"[0-9]*\.[0-9]{4,}(?:e-?[0-9]+)?")


def test_validation_metrics_and_losses(
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A whole job: no loss or norm, of a record or a batch, stands in statements, logs or output."""
    raw: list[float] = []
    clipped_sum = BookKeeper.clipped_sum

    def spied(
        self: BookKeeper, features: torch.Tensor, labels: torch.Tensor, units: Units
    ) -> list[torch.Tensor]:
        with torch.no_grad():
            logits = self._model(features)
            losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        total = clipped_sum(self, features, labels, units)
        length = torch.cat([part.flatten() for part in total]).norm()
        raw.extend([float(losses.mean()), float(losses.sum()), float(length), *losses.tolist()])
        return total

    monkeypatch.setattr(BookKeeper, "clipped_sum", spied)
    caplog.set_level(logging.DEBUG)
    job = a_job(
        rounds=2,
        privacy={"delta": DELTA, "noise_multiplier": 3.0},
        training={"sampling_probability": 0.5, "local_steps": 2},
    )
    parties = Federation(job, tmp_path, clock)
    parties.run()
    seen = [repr(one) for name in ("hub", *job.clients) for one in parties.statements(name)]
    parties.close()
    seen += [caplog.text, *capfd.readouterr()]
    said = set(FIGURE.findall("\n".join(seen)))
    secret = np.array(raw)
    assert len(raw) > 50
    assert said, "a job states some figures"
    for figure in said:
        precision = 10.0 ** -len(figure.partition(".")[2].partition("e")[0])
        assert not (np.abs(secret - float(figure)) <= max(precision, 1e-6)).any(), figure


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
    """Two sites with other records of the same number: every figure of the training is the same."""
    one = data()
    other = TrainingData(-one.features * np.float32(0.01), 1 - one.labels)
    seen = []
    for records in (one, other):
        model = build_model("mlp", 5, 2, 0)
        training = trainer()
        training.check(model, records)
        found = training._checked
        assert found is not None
        result = training.fit(model, records)
        shapes = {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}
        seen.append((found.block, found.grid, result, shapes, training.plan.event))
        assert all(weight.grad is None for weight in model.parameters())
        assert not [key for weight in model.parameters() for key in vars(weight)]
    assert seen[0] == seen[1]
