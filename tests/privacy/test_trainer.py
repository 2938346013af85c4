"""Training with DP-SGD on real records."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cloister.privacy.accountant import calibrate_noise, epsilon_of
from cloister.privacy.clipping import BookKeeper
from cloister.privacy.errors import ModelError, PrivacyError
from cloister.privacy.models import build_model, state_arrays
from cloister.privacy.randomness import OsRandom
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import DPTrainer, FitResult, TrainingData, TrainingPlan
from tests.timing import processor_seconds, shortest

PLAN = TrainingPlan(
    sampling_probability=0.2, noise_multiplier=1.1, max_grad_norm=1.0, steps=4, learning_rate=0.5
)


def trainer(plan: TrainingPlan, seed: int | None = None) -> DPTrainer:
    if seed is None:
        return DPTrainer(plan, noise=OsRandom("site", "noise"), sampling=OsRandom("site", "sampling"))
    return DPTrainer(plan, noise=SeededTestRandom(seed, "noise"), sampling=SeededTestRandom(seed, "sampling"))


@pytest.mark.parametrize(("name", "bar"), [("logistic-regression", 0.90), ("mlp", 0.88), ("small-cnn", 0.85)])
def test_a_model_learns_within_its_budget(name: str, bar: float, tumours: TrainingData) -> None:
    private = TrainingData(tumours.features[:400], tumours.labels[:400])
    noise = calibrate_noise(3.0, 1e-4, 0.25, 100)
    plan = TrainingPlan(0.25, noise, 1.0, 100, 0.5, momentum=0.5)
    assert epsilon_of([plan.event], 1e-4) <= 3.0
    model = build_model(name, 30, 2, seed=0)
    assert trainer(plan).fit(model, private) == FitResult(executed_steps=100, aborted=False)
    model.eval()
    with torch.no_grad():
        guess = model(torch.from_numpy(tumours.features[400:])).argmax(dim=1).numpy()
    assert (guess == tumours.labels[400:]).mean() > bar


def test_a_sequence_model_trains(tumours: TrainingData) -> None:
    model = build_model("gru", 30, 2, seed=0, parameters={"hidden": 4})
    before = state_arrays(model)
    assert trainer(replace(PLAN, steps=1)).fit(model, tumours).executed_steps == 1
    after = state_arrays(model)
    assert list(after) == list(before)
    assert all(not np.array_equal(before[name], after[name]) for name in before)


def test_the_model_comes_back_without_a_trace_of_the_machinery(tumours: TrainingData) -> None:
    model = build_model("mlp", 30, 2, seed=0)
    names = list(state_arrays(model))
    model.eval()
    trainer(PLAN).fit(model, tumours)
    assert list(state_arrays(model)) == names
    assert not model.training
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    for parameter in model.parameters():
        assert parameter.grad is None
        assert not hasattr(parameter, "grad_sample")
        assert not hasattr(parameter, "summed_grad")
    trainer(PLAN).fit(model, tumours)


def test_equal_seeds_give_equal_weights_and_the_private_sources_never_do(tumours: TrainingData) -> None:
    def weights(seed: int | None) -> bytes:
        model = build_model("mlp", 30, 2, seed=0)
        trainer(PLAN, seed).fit(model, tumours)
        return b"".join(array.tobytes() for array in state_arrays(model).values())

    assert weights(7) == weights(7)
    assert weights(7) != weights(8)
    assert weights(None) != weights(None)


def test_noise_is_fresh_across_rounds_and_sites(tumours: TrainingData) -> None:
    def update(one: DPTrainer) -> np.ndarray:
        model = build_model("mlp", 30, 2, seed=0)
        start = state_arrays(model)
        one.fit(model, tumours)
        return np.concatenate([(state_arrays(model)[name] - start[name]).ravel() for name in start])

    loud = TrainingPlan(0.01, 50.0, 1.0, 1, 1.0)
    same_trainer = trainer(loud)
    updates = [update(same_trainer), update(same_trainer), update(trainer(loud)), update(trainer(loud))]
    correlation = np.corrcoef(updates) - np.eye(4)
    assert np.abs(correlation).max() < 6 / math.sqrt(len(updates[0]))


def test_a_step_on_an_empty_batch_is_noise_alone() -> None:
    data = TrainingData(np.ones((3, 30), np.float32), np.array([0, 1, 0]))
    model = build_model("logistic-regression", 30, 2, seed=0)
    before = state_arrays(model)
    plan = TrainingPlan(1e-6, 2.0, 1.5, 1, 1e-6 * 3)
    assert trainer(plan).fit(model, data).executed_steps == 1
    moved = np.concatenate([(state_arrays(model)[name] - before[name]).ravel() for name in before])
    # Learning rate and expected batch size cancel, so the noise is seen at its own scale.
    assert 0.6 < moved.std() / 3.0 < 1.5


def test_a_batch_too_large_for_memory_is_split_without_changing_the_result(tumours: TrainingData) -> None:
    def weights(physical: int) -> np.ndarray:
        model = build_model("mlp", 30, 2, seed=0)
        trainer(replace(PLAN, physical_batch=physical), seed=3).fit(model, tumours)
        return np.concatenate([array.ravel() for array in state_arrays(model).values()])

    np.testing.assert_allclose(weights(7), weights(1024), rtol=0, atol=1e-5)


def test_an_abort_stops_between_steps_and_says_how_many_touched_the_records(tumours: TrainingData) -> None:
    answers = iter([False, False, True])
    result = trainer(PLAN).fit(build_model("mlp", 30, 2, 0), tumours, abort=lambda: next(answers))
    assert result == FitResult(executed_steps=2, aborted=True)


def test_a_failure_leaves_the_model_clean(tumours: TrainingData) -> None:
    model = build_model("mlp", 30, 2, 0)

    def fail() -> bool:
        raise RuntimeError("the site went away")

    with pytest.raises(RuntimeError):
        trainer(PLAN).fit(model, tumours, abort=fail)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.timed
def test_ten_steps_of_logistic_regression_take_less_than_a_tenth_of_a_second(tumours: TrainingData) -> None:
    data = TrainingData(tumours.features[:150], tumours.labels[:150])
    plan = replace(PLAN, steps=10)

    def once() -> None:
        trainer(plan).fit(build_model("logistic-regression", 30, 2, 0), data)

    assert shortest(lambda: processor_seconds(once), 0.1, least=2) < 0.1


def test_the_generator_named_is_the_weaker_one() -> None:
    assert trainer(PLAN).noise_generator == "aes-256-ctr/os-entropy"
    assert trainer(PLAN, seed=1).noise_generator == "seeded-test"
    for noise, sampling in [(SeededTestRandom(1), OsRandom()), (OsRandom(), SeededTestRandom(1))]:
        assert DPTrainer(PLAN, noise=noise, sampling=sampling).noise_generator == "seeded-test"


def test_one_source_for_noise_and_sampling_is_refused() -> None:
    source = OsRandom("site")
    with pytest.raises(PrivacyError):
        DPTrainer(PLAN, noise=source, sampling=source)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling_probability", 0.0),
        ("sampling_probability", 1.1),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", math.nan),
        ("noise_multiplier", 1e-9),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", math.inf),
        ("learning_rate", -0.1),
        ("momentum", 1.0),
        ("steps", 0),
        ("physical_batch", 0),
    ],
)
def test_an_impossible_plan_is_refused(field: str, value: float) -> None:
    with pytest.raises(PrivacyError) as refusal:
        replace(PLAN, **{field: value})  # type: ignore[arg-type]
    assert refusal.value.code == "privacy.plan_invalid"


def subjects_of(data: TrainingData, each: int) -> TrainingData:
    """The same records, every ``each`` of them one subject's, the first subject's far apart."""
    owners = np.arange(data.records) // each
    return TrainingData(data.features, data.labels, np.roll(owners, 1) * 7 - 3)


def test_subjects_are_the_unit_where_they_are_given(tumours: TrainingData) -> None:
    data = subjects_of(tumours, 4)
    assert (data.unit, data.units, data.records) == ("subject", 143, 569)
    assert (tumours.unit, tumours.units) == ("record", 569)
    model = build_model("mlp", 30, 2, 0)
    assert trainer(PLAN).fit(model, data).executed_steps == PLAN.steps


@pytest.mark.parametrize("physical", [1, 3, 10, 1024])
def test_a_subjects_records_are_clipped_once_however_memory_splits_them(
    physical: int, tumours: TrainingData
) -> None:
    """Everyone takes part, noise is next to nothing: the step must be the sum of five clipped subjects."""
    some = TrainingData(
        tumours.features[:20], tumours.labels[:20], np.array([0] * 12 + [5, 5, 5, 2, 2, 2, 9, 1], np.int64)
    )
    start = build_model("logistic-regression", 30, 2, seed=0)
    parameters = list(start.parameters())
    expected = np.zeros(62)
    assert some.subjects is not None
    for subject in np.unique(some.subjects):
        mine = some.subjects == subject
        logits = start(torch.from_numpy(some.features[mine]))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(some.labels[mine]), reduction="sum")
        gradient = np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(loss, parameters)])
        expected += gradient * min(1, 0.5 / np.linalg.norm(gradient))
    plan = TrainingPlan(1.0, 0.001, 0.5, 1, 5.0, physical_batch=physical)
    model = build_model("logistic-regression", 30, 2, seed=0)
    trainer(plan).fit(model, some)
    # Learning rate and number of subjects cancel.
    moved = np.concatenate(
        [(a - b).detach().numpy().ravel() for a, b in zip(parameters, model.parameters(), strict=True)]
    )
    np.testing.assert_allclose(moved, expected, atol=0.004)


@pytest.mark.parametrize(
    ("owners", "most"), [(None, 48), (np.zeros(569, np.int64), 50), (np.arange(569) // 2, 48)]
)
def test_memory_never_holds_more_records_than_the_plan_says(
    owners: np.ndarray | None, most: int, tumours: TrainingData
) -> None:
    """A plan of 50 at once: passes of 48, or of all 50 where one subject has more than that."""
    if owners is not None:
        owners[-1] = 999
    data = TrainingData(tumours.features, tumours.labels, owners)
    model = build_model("mlp", 30, 2, seed=0)
    seen: list[int] = []
    handle = model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    trainer(replace(PLAN, sampling_probability=1.0, physical_batch=50, steps=1)).fit(model, data)
    handle.remove()
    assert max(seen) == most
    assert sum(seen) >= 569


def test_the_plan_states_the_grid_and_its_slack(tumours: TrainingData) -> None:
    with BookKeeper(build_model("mlp", 30, 2, 0), 1.0) as keeper:
        grid = PLAN.grid(keeper.shape(30, grouped=False), tumours.units)
    assert 0 < grid.slack < 1e-4
    assert grid.deviation == pytest.approx(PLAN.noise_multiplier * PLAN.max_grad_norm * (1 + grid.slack))


FEATURES, LABELS = np.ones((4, 3), np.float32), np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (FEATURES.astype(np.float64), LABELS),
        (FEATURES[:, 0], LABELS),
        (FEATURES[:0], LABELS[:0]),
        (FEATURES[:1], LABELS[:1]),
        (FEATURES[:, :0], LABELS),
        (FEATURES * np.float32("nan"), LABELS),
        (FEATURES * np.float32("inf"), LABELS),
        (FEATURES, LABELS[:2]),
        (FEATURES, LABELS.astype(np.float32)),
        (FEATURES, LABELS - 100),
    ],
)
def test_data_of_the_wrong_shape_type_or_value_are_refused(features: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(PrivacyError) as refusal:
        TrainingData(features, labels)
    assert refusal.value.code == "privacy.data_invalid"


def test_a_label_that_the_model_has_no_class_for_is_refused() -> None:
    with pytest.raises(PrivacyError) as refusal:
        trainer(PLAN).fit(build_model("mlp", 3, 2, 0), TrainingData(FEATURES, LABELS + 2))
    assert refusal.value.code == "privacy.data_invalid"


def test_a_model_that_mixes_records_is_never_trained() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    with pytest.raises(ModelError):
        trainer(PLAN).fit(model, TrainingData(FEATURES, LABELS))


@pytest.mark.parametrize(
    "subjects", [np.zeros(4, np.int64), np.arange(3), np.arange(4.0), np.arange(4).reshape(2, 2)]
)
def test_subjects_that_are_one_or_do_not_fit_the_records_are_refused(subjects: np.ndarray) -> None:
    with pytest.raises(PrivacyError) as refusal:
        TrainingData(FEATURES, LABELS, subjects)
    assert refusal.value.code == "privacy.data_invalid"
