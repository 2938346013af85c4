"""What could only fail after training is found before any budget is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.core.canonical import JSON
from cloister.core.errors import CloisterError, InputError
from cloister.enclave.model_file import encode_model
from cloister.federation.hub import initial_weights
from cloister.health import FederatedData, TestSet, load_source
from cloister.policy import OutputKind, PolicyError, PrimaryMetric
from cloister.privacy.errors import ModelError
from cloister.workflow.jobfile import load_job
from cloister.workflow.preflight import (
    SITE_ROUND_BYTES,
    TENSOR_BYTES,
    require_receipt_fits,
    require_releasable,
)
from cloister.workflow.release import Goal
from tests.evidence.synthetic import SyntheticJob
from tests.system.example_job import TUMOUR, ExampleJob, finished_jobs, run

JOB = load_job(TUMOUR).federation_job()
GOAL = Goal(
    metric=PrimaryMetric.AUROC,
    threshold=0.85,
    max_model_bytes=1_000_000,
    suppression_threshold=10,
    outputs=frozenset({OutputKind.MODEL_WEIGHTS}),
)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return load_source("breast-cancer-wisconsin")


def one_class(test: TestSet) -> TestSet:
    return replace(test, labels=np.zeros_like(test.labels))


def third_class(test: TestSet) -> TestSet:
    return replace(test, labels=np.where(np.arange(test.records) == 3, 2, test.labels))


def test_a_job_that_can_be_measured_and_released_may_train(data: FederatedData) -> None:
    start = initial_weights(JOB, 30, 2)
    require_releasable(JOB, data.test, replace(GOAL, max_model_bytes=len(encode_model(start))))


@pytest.mark.parametrize("spoil", [one_class, third_class])
def test_a_test_set_on_which_nothing_can_be_measured_is_refused(
    data: FederatedData, spoil: Callable[[TestSet], TestSet]
) -> None:
    with pytest.raises(InputError):
        require_releasable(JOB, spoil(data.test), GOAL)


def test_a_model_that_will_be_too_large_is_refused(data: FederatedData) -> None:
    with pytest.raises(PolicyError) as refused:
        require_releasable(JOB, data.test, replace(GOAL, max_model_bytes=100))
    assert refused.value.code == "policy.refused"
    assert "max-model-bytes" in refused.value.details[0]


def test_a_model_that_can_not_be_built_is_refused(data: FederatedData) -> None:
    oracle = JOB.model_copy(update={"model": JOB.model.model_copy(update={"architecture": "oracle"})})
    with pytest.raises(ModelError):
        require_releasable(oracle, data.test, GOAL)


SPOILERS: dict[str, dict[str, JSON]] = {
    "a limit the model can't keep": {"output_constraints.max_model_bytes": 100},
    "weights that may not leave": {"output_constraints.allowed_outputs": ["dp-scalars"]},
    "another test set under the same name": {"success_metrics.evaluation_method.test_set_sha256": "0" * 64},
    "a test set of another size": {"success_metrics.evaluation_method.test_set_records": 12},
    "other bounds": {"dataset_scope.bounds_sha256": "0" * 64},
    "another name for the same records": {"dataset_scope.name": "fresh-budget"},
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_job_refused_for_what_is_known_beforehand_opens_no_ledger(tmp_path: Path, spoiler: str) -> None:
    with pytest.raises(CloisterError) as refused:
        run(ExampleJob(manifest=SPOILERS[spoiler]).spec(tmp_path), tmp_path / "work")
    assert refused.value.code == "policy.refused"
    assert refused.value.exit_code == 3
    assert not list(tmp_path.glob("work/parties/site/*/budget/*"))
    assert finished_jobs(tmp_path / "work") == []


def test_a_job_whose_receipt_nobody_would_verify_is_refused_before_it_trains(data: FederatedData) -> None:
    require_receipt_fits(sites=4, rounds=900, tensors=2)
    with pytest.raises(InputError, match="about 42 MiB") as caught:
        require_receipt_fits(sites=10, rounds=520, tensors=2)
    assert caught.value.code == "input.too_large"
    with pytest.raises(InputError, match="at most 32 MiB"):
        require_releasable(JOB.model_copy(update={"rounds": 2_000}), data.test, GOAL)


def test_a_round_of_a_site_takes_less_of_a_receipt_than_is_reckoned(tmp_path: Path) -> None:
    def size(sites: tuple[str, ...], rounds: int) -> int:
        folder = tmp_path / f"{len(sites)}-{rounds}"
        folder.mkdir()
        return len(SyntheticJob(folder, sites=sites, rounds=rounds).run().receipt())

    for sites in (("north", "south"), ("north", "south", "east", "west")):
        a_site_round = (size(sites, 20) - size(sites, 10)) / (10 * len(sites))
        assert 0.6 * SITE_ROUND_BYTES < a_site_round < SITE_ROUND_BYTES + TENSOR_BYTES
