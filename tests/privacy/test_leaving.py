"""Nothing leaves but what is private by noise, or public by name (properties P9 and P10)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cloister.evidence.transcript import Gaussian, Pure, SampledGaussian, event_from_json
from cloister.privacy.errors import PrivacyError
from cloister.privacy.leaving import PublicFigure, TrainedWeights, may_leave
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.perturbation import PerturbedModel
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import Release, release_count
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan
from tests.privacy.test_release import FREE

TRAINING = SampledGaussian(0.1, 1.5, 10)
WEIGHTS = {"weight": np.ones((2, 3), dtype=np.float32)}
OS = "aes-256-ctr/os-entropy"


def test_trained_weights_leave_as_post_processing_with_their_events() -> None:
    said = may_leave(TrainedWeights(WEIGHTS, (TRAINING,), OS))
    assert said["kind"] == "trained_weights"
    assert "post-processing" in str(said["why"])
    assert isinstance(said["events"], list)
    assert event_from_json(said["events"][0]) == TRAINING


def test_releases_and_perturbed_models_leave_with_their_events() -> None:
    counted = release_count(
        4, unit="record", noise_multiplier=9.0, noise=GaussianIntegers(OsRandom("m")), account=FREE
    )
    assert may_leave(counted)["kind"] == "dp_count"
    model = PerturbedModel(np.zeros(3), Pure(1.0, 1), OS)
    assert may_leave(model)["events"] == [{"type": "pure", "epsilon": 1.0, "count": 1}]


def test_figures_on_public_records_leave_under_their_name() -> None:
    said = may_leave(PublicFigure("accuracy", 0.9, "uci heart", "public"))
    assert said == {"kind": "public_figure", "why": "public records: uci heart", "events": []}


@pytest.mark.parametrize("generator", ["seeded-test", "mock", "", "torch"])
def test_noise_of_any_other_generator_is_refused(generator: str) -> None:
    item = TrainedWeights(WEIGHTS, (TRAINING,), generator)
    with pytest.raises(PrivacyError) as refusal:
        may_leave(item)
    assert refusal.value.code == "privacy.release_refused"
    if generator == "seeded-test":
        assert may_leave(item, accept_test_randomness=True)["kind"] == "trained_weights"
    else:
        with pytest.raises(PrivacyError):
            may_leave(item, accept_test_randomness=True)


def test_a_rehearsal_with_seeded_noise_is_refused_unless_asked_for() -> None:
    source = GaussianIntegers(SeededTestRandom(1, "metrics"))
    counted = release_count(4, unit="record", noise_multiplier=9.0, noise=source, account=FREE)
    with pytest.raises(PrivacyError):
        may_leave(counted)
    assert may_leave(counted, accept_test_randomness=True)["kind"] == "dp_count"


class Disguised(TrainedWeights):
    """A kind that may leave, with something else inside."""


layer = nn.Linear(3, 2)
RAW: list[object] = [
    0.93,
    {"loss": 0.4},
    [0.1, 0.2],
    "accuracy 0.93",
    b"weights",
    None,
    WEIGHTS,
    np.ones(3),
    torch.ones(3),
    layer,
    layer.state_dict(),
    torch.optim.SGD(layer.parameters(), lr=0.1).state_dict(),
    lambda: 0.93,
    TRAINING,
    Disguised(WEIGHTS, (TRAINING,), OS),
    TrainedWeights,
    (TrainedWeights(WEIGHTS, (TRAINING,), OS), torch.ones(3)),
]


@pytest.mark.parametrize("item", RAW, ids=lambda item: type(item).__name__)
def test_nothing_raw_leaves(item: object) -> None:
    with pytest.raises(PrivacyError) as refusal:
        may_leave(item)
    assert refusal.value.code == "privacy.release_refused"


anything = st.recursive(
    st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.binary(), st.sampled_from(RAW)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner, inner)),
    max_leaves=8,
)


@given(anything)
def test_nothing_else_leaves_whatever_it_is_wrapped_in(item: object) -> None:
    with pytest.raises(PrivacyError):
        may_leave(item, accept_test_randomness=True)


@pytest.mark.parametrize(
    "arrays",
    [
        {"weight": np.ones(3)},
        {"weight": np.array([np.nan], dtype=np.float32)},
        {"weight": torch.ones(3)},
        {"weight": [1.0]},
    ],
)
def test_weights_are_finite_arrays_of_their_type(arrays: dict[str, object]) -> None:
    with pytest.raises(PrivacyError):
        TrainedWeights(arrays, (TRAINING,), OS)  # type: ignore[arg-type]
    with pytest.raises(PrivacyError):
        TrainedWeights(WEIGHTS, (), OS)


@pytest.mark.parametrize(
    ("value", "dataset", "basis"),
    [(float("nan"), "uci", "public"), (0.9, " ", "public"), (0.9, "ward 7", "internal")],
)
def test_a_figure_without_noise_needs_public_records(
    value: float, dataset: str, basis: Literal["public", "consented"]
) -> None:
    with pytest.raises(PrivacyError):
        PublicFigure("accuracy", value, dataset, basis)


def test_every_release_has_its_own_kind() -> None:
    figures = release_count(
        4, unit="record", noise_multiplier=9.0, noise=GaussianIntegers(OsRandom("m")), account=FREE
    ).figures
    kinds = {
        may_leave(Release(kind, figures, "records", Gaussian(9.0, 1), OS))["kind"]
        for kind in ("count", "histogram", "sum", "mean", "accuracy")
    }
    assert len(kinds) == 5


def test_two_trainings_on_the_same_records_leave_different_weights(tumours: TrainingData) -> None:
    plan = TrainingPlan(0.2, 2.0, 1.0, 3, 0.5)
    left = []
    for _ in range(2):
        model = nn.Linear(30, 2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        trainer = DPTrainer(plan, noise=OsRandom("noise"), sampling=OsRandom("sampling"))
        trainer.fit(model, tumours)
        arrays = {name: value.detach().numpy().copy() for name, value in model.named_parameters()}
        may_leave(TrainedWeights(arrays, (plan.event,), OS))
        left.append(arrays["weight"])
    assert (left[0] != left[1]).all()
