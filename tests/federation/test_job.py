from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister.core.canonical import parse
from cloister.evidence.extract import log_stream
from cloister.federation import (
    AggregationStrategy,
    FederationJob,
    ModelSpec,
    PrivacyConfig,
    TrainingConfig,
    plan_round,
)
from cloister.privacy.errors import PrivacyError
from tests.federation.nodes import JOB_ID, a_job


def test_the_defaults_are_those_of_the_specification() -> None:
    job = FederationJob(
        job_id=JOB_ID,
        clients=("north", "south"),
        training=TrainingConfig(sampling_probability=0.1),
        model=ModelSpec(architecture="mlp"),
        dataset_id="d",
    )
    assert (job.min_clients, job.rounds, job.strategy) == (2, 50, AggregationStrategy.FED_AVG)
    assert job.proximal_mu == 0.01
    assert job.privacy.mechanism == "DP_SGD"
    assert (job.privacy.noise_multiplier, job.privacy.max_grad_norm, job.privacy.target_epsilon) == (
        1.0,
        1.0,
        3.0,
    )


def test_there_are_three_strategies() -> None:
    assert {strategy.value for strategy in AggregationStrategy} == {"FED_AVG", "FED_PROX", "SCAFFOLD"}


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"rounds": 10_001},
        {"rounds": "10"},
        {"rounds": 2.0},
        {"clients": ()},
        {"clients": ("north", "north", "south")},
        {"clients": ("north", "../south")},
        {"clients": ("north", "server")},
        {"clients": ("north", "SOUTH")},
        {"clients": ("north", "")},
        {"min_clients": 0},
        {"min_clients": 4},
        {"job_id": "not-a-uuid"},
        {"job_id": JOB_ID.upper()},
        {"job_id": log_stream("cloister/site/north")},
        {"job_id": JOB_ID.replace("-", "")},
        {"strategy": "FED_MEDIAN"},
        {"proximal_mu": -0.1},
        {"proximal_mu": float("nan")},
        {"seed": -1},
        {"seed": 2**53},
        {"seed": 1.5},
        {"round_timeout_seconds": 0},
        {"dataset_id": ""},
        {"noise_seed": 3},
        {"user_context": {"role": 1}},
        {"model": {"architecture": ""}},
        {"model": {"architecture": "mlp", "parameters": {"Hidden Size": 3}}},
        {"model": {"architecture": "mlp", "parameters": {"hidden": {"deep": 1}}}},
    ],
)
def test_a_job_out_of_bounds_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        a_job(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_multiplier": -0.5},
        {"noise_multiplier": float("inf")},
        {"noise_multiplier": "1.0"},
        {"max_grad_norm": 0},
        {"max_grad_norm": float("nan")},
        {"target_epsilon": 0},
        {"target_epsilon": -1.0},
        {"delta": 0},
        {"delta": 1},
        {"mechanism": "NONE"},
        {"epsilon": 3.0},
    ],
)
def test_a_privacy_configuration_out_of_bounds_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PrivacyConfig.model_validate(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampling_probability": 0.1, "batch_size": 3},
        {"sampling_probability": 0},
        {"sampling_probability": 1.1},
        {"batch_size": 0},
        {"sampling_probability": 0.1, "local_steps": 0},
        {"sampling_probability": 0.1, "learning_rate": 0},
    ],
)
def test_a_training_configuration_out_of_bounds_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(changes)


@given(records=st.integers(1, 10_000), batch=st.integers(1, 10_000))
def test_a_batch_size_is_the_expected_size_of_a_sampled_batch(records: int, batch: int) -> None:
    probability = TrainingConfig(batch_size=batch).sampling_probability_for(records)
    assert probability * records == pytest.approx(batch)


def test_a_batch_larger_than_the_dataset_is_refused() -> None:
    job = a_job(training=TrainingConfig(batch_size=41))
    assert plan_round(job, 41, 1e-5).sampling_probability == 1
    with pytest.raises(PrivacyError) as refusal:
        plan_round(job, 40, 1e-5)
    assert refusal.value.code == "privacy.plan_invalid"


@pytest.mark.parametrize("length", [1e-300, 9e-7])
def test_a_clip_norm_too_small_for_any_grid_is_no_job(length: float) -> None:
    with pytest.raises(ValidationError):
        PrivacyConfig(max_grad_norm=length)


def test_a_job_survives_its_canonical_form() -> None:
    job = a_job(
        seed=7,
        user_context={"study": "s1"},
        model={"architecture": "mlp", "parameters": {"hidden": [32, 16], "bias": True, "scale": 0.5}},
    )
    again = FederationJob.model_validate(parse(job.canonical()))
    assert again == job
    assert again.canonical() == job.canonical()
    assert again.sha256 == job.sha256


def test_every_field_enters_the_hash() -> None:
    job = a_job()
    others = [
        a_job(seed=1),
        a_job(rounds=9),
        a_job(clients=("north", "south", "east")),
        a_job(privacy=PrivacyConfig(noise_multiplier=None)),
        a_job(training=TrainingConfig(batch_size=4)),
        a_job(user_context={"a": "b"}),
        a_job(round_timeout_seconds=9),
    ]
    assert len({job.sha256, *(other.sha256 for other in others)}) == len(others) + 1


def test_a_job_can_be_read_without_the_engine() -> None:
    code = (
        "import sys; from cloister.federation import FederationJob, RoundStarted;"
        "print(sorted(m for m in ('nvflare', 'torch', 'opacus') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
