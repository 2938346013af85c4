"""The strictest hospital's terms count, and nothing is released that one of them doesn't allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloister.core.clock import fixed_clock, parse_time
from cloister.core.errors import InputError
from cloister.core.keys import EphemeralKeyStore
from cloister.enclave.model_file import encode_model
from cloister.evidence import EvidenceLog, Role, StatementWriter, log_origin, open_statement
from cloister.evidence.predicates import Evaluation, Release
from cloister.federation.hub import initial_weights
from cloister.health import FederatedData, TestSet, load_source
from cloister.policy import OutputKind, PolicyError, PrimaryMetric, ProtocolManifest, load_manifest_draft
from cloister.workflow.admission import sign_agreement
from cloister.workflow.jobfile import load_job
from cloister.workflow.release import (
    Goal,
    common_goal,
    measure_model,
    state_evaluation,
    state_release,
)
from cloister.workflow.scoring import scores
from cloister.workflow.workspace import open_workspace
from tests.system.example_job import TUMOUR

NOW = fixed_clock(parse_time("2026-11-21T14:00:00.000000Z"))
JOB = load_job(TUMOUR).federation_job()
GOAL = Goal(
    metric=PrimaryMetric.ACCURACY,
    threshold=0.85,
    max_model_bytes=1_000_000,
    suppression_threshold=10,
    outputs=frozenset({OutputKind.MODEL_WEIGHTS}),
)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return load_source("breast-cancer-wisconsin")


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ProtocolManifest]:
    """The example's manifests, one for each hospital."""
    with open_workspace(tmp_path_factory.mktemp("hospitals")) as workspace:
        spec = load_job(TUMOUR)
        return sign_agreement(spec, load_manifest_draft(spec.manifest_path), workspace, clock=NOW).manifests


@pytest.fixture
def hub(tmp_path: Path) -> StatementWriter:
    """The hub's pen."""
    signer = EphemeralKeyStore().generate("hub")
    log = EvidenceLog.create(tmp_path / "log.sqlite", origin=log_origin(Role.HUB, "hub"), signer=signer)
    return StatementWriter(log, signer, "hub", JOB.job_id, NOW)


def with_terms(
    manifests: Mapping[str, ProtocolManifest], site: str, section: str, **changes: object
) -> dict[str, ProtocolManifest]:
    changed = getattr(manifests[site], section).model_copy(update=changes)
    return {**manifests, site: manifests[site].model_copy(update={section: changed})}


# What the hospitals ask together


def test_hospitals_with_equal_terms_have_one_goal(manifests: Mapping[str, ProtocolManifest]) -> None:
    goal = common_goal(manifests)
    assert (goal.metric, goal.threshold, goal.max_model_bytes) == (PrimaryMetric.ACCURACY, 0.85, 1_000_000)
    assert goal.outputs == {OutputKind.MODEL_WEIGHTS, OutputKind.DP_SCALARS}


def test_the_highest_threshold_counts(manifests: Mapping[str, ProtocolManifest]) -> None:
    assert common_goal(with_terms(manifests, "lakeview", "success_metrics", threshold=0.95)).threshold == 0.95
    assert common_goal(with_terms(manifests, "lakeview", "success_metrics", threshold=0.5)).threshold == 0.85


def test_the_smallest_model_and_the_fewest_outputs_count(manifests: Mapping[str, ProtocolManifest]) -> None:
    strict = with_terms(
        manifests,
        "lakeview",
        "output_constraints",
        max_model_bytes=100,
        allowed_outputs=(OutputKind.DP_SCALARS,),
    )
    goal = common_goal(strict)
    assert goal.max_model_bytes == 100
    assert goal.outputs == {OutputKind.DP_SCALARS}


def test_hospitals_that_measure_differently_have_no_goal(manifests: Mapping[str, ProtocolManifest]) -> None:
    other = with_terms(manifests, "lakeview", "success_metrics", primary_metric=PrimaryMetric.AUROC)
    with pytest.raises(PolicyError) as refused:
        common_goal(other)
    assert refused.value.code == "policy.refused"


# How the model is measured


def test_a_model_is_measured_as_a_whole_and_on_each_sites_rows(data: FederatedData) -> None:
    weights = initial_weights(JOB, 30, 2)
    measured = measure_model(JOB, weights, data.test, GOAL)
    risk = scores(JOB.model, JOB.seed, weights, data.test.features)
    assert measured.result.value == pytest.approx(np.mean((risk >= 0.5) == data.test.labels))
    assert measured.sites.keys() == set(JOB.clients)
    parts = [(len(data.test.rows_of(site)), score.accuracy) for site, score in measured.sites.items()]
    assert all(accuracy is not None for _, accuracy in parts)
    whole = sum(count * (accuracy or 0.0) for count, accuracy in parts) / sum(count for count, _ in parts)
    assert whole == pytest.approx(measured.result.value)


def of_rows(test: TestSet, rows: np.ndarray, sites: tuple[str, ...]) -> TestSet:
    return TestSet(test.name, test.features[rows], test.labels[rows], sites, test.sha256)


def test_a_site_without_rows_in_the_test_set_has_no_figures_and_a_reason(data: FederatedData) -> None:
    rows = np.arange(data.test.records)
    nowhere = of_rows(data.test, rows, ("northgate",) * len(rows))
    score = measure_model(JOB, initial_weights(JOB, 30, 2), nowhere, GOAL).sites["lakeview"]
    assert (score.accuracy, score.auroc) == (None, None)
    assert "no rows" in score.reason


def test_a_site_with_too_few_patients_in_the_test_set_has_no_figures_and_a_reason(
    data: FederatedData,
) -> None:
    rows = np.arange(data.test.records)
    for few, shown in ((9, False), (10, True)):
        sites = ("lakeview",) * few + ("northgate",) * (len(rows) - few)
        score = measure_model(JOB, initial_weights(JOB, 30, 2), of_rows(data.test, rows, sites), GOAL).sites
        assert (score["lakeview"].accuracy is not None) == shown
        assert shown or "10" in score["lakeview"].reason


def test_the_largest_suppression_threshold_counts(manifests: Mapping[str, ProtocolManifest]) -> None:
    strict = with_terms(manifests, "lakeview", "privacy_guardrails", suppression_threshold=30)
    assert common_goal(strict).suppression_threshold == 30


def test_a_site_with_one_class_in_the_test_set_has_accuracy_but_no_auroc(data: FederatedData) -> None:
    labels = data.test.labels
    rows = np.concatenate([np.flatnonzero(labels == 0)[:20], np.flatnonzero(labels == 1)[:20]])
    single = of_rows(data.test, rows, ("lakeview",) * 20 + ("northgate",) * 20)
    score = measure_model(JOB, initial_weights(JOB, 30, 2), single, GOAL).sites["lakeview"]
    assert score.accuracy is not None
    assert score.auroc is None
    assert "class" in score.reason


def test_a_metric_that_is_undefined_on_the_whole_test_set_is_an_error(data: FederatedData) -> None:
    rows = np.flatnonzero(data.test.labels == 0)
    single = of_rows(data.test, rows, ("lakeview",) * len(rows))
    goal = replace(GOAL, metric=PrimaryMetric.AUROC)
    with pytest.raises(InputError):
        measure_model(JOB, initial_weights(JOB, 30, 2), single, goal)


def test_the_evaluation_is_stated_with_a_reason_for_whatever_is_undefined(
    data: FederatedData, hub: StatementWriter
) -> None:
    rows = np.arange(data.test.records)
    nowhere = of_rows(data.test, rows, ("northgate",) * len(rows))
    measured = measure_model(JOB, initial_weights(JOB, 30, 2), nowhere, GOAL)
    state_evaluation(measured, nowhere, hub)
    (entry,) = hub._log.extract(JOB.job_id).entries
    stated = open_statement(entry.envelope).predicate
    assert isinstance(stated, Evaluation)
    assert (stated.value, stated.threshold) == (measured.result.value, 0.85)
    undefined = {(one.site, one.metric) for one in stated.sites if one.value is None}
    assert undefined == {
        (site, metric) for site in ("lakeview", "riverside") for metric in ("accuracy", "auroc")
    }
    assert all(one.reason for one in stated.sites if one.value is None)


# What is released


def release(
    weights: Mapping[str, np.ndarray], goal: Goal, hub: StatementWriter, mechanism: str = "DP_SGD"
) -> tuple[set[str], Release]:
    looked_at = state_release(encode_model(weights), weights, goal, hub, mechanism)
    (entry,) = hub._log.extract(JOB.job_id).entries
    stated = open_statement(entry.envelope).predicate
    assert isinstance(stated, Release)
    assert stated.constraints == looked_at
    return {constraint.name for constraint in looked_at if not constraint.satisfied}, stated


def test_a_model_within_every_constraint_is_approved(hub: StatementWriter) -> None:
    unmet, stated = release(initial_weights(JOB, 30, 2), GOAL, hub)
    assert unmet == set()
    assert stated.approved
    assert {one.name for one in stated.constraints} == {
        "allowed-outputs",
        "max-model-bytes",
        "finite-weights",
        "private-training",
    }


@pytest.mark.parametrize(
    ("goal", "name"),
    [
        (replace(GOAL, max_model_bytes=383), "max-model-bytes"),
        (replace(GOAL, outputs=frozenset({OutputKind.DP_SCALARS})), "allowed-outputs"),
        (replace(GOAL, outputs=frozenset()), "allowed-outputs"),
    ],
)
def test_a_constraint_that_is_not_met_is_stated_and_named(
    goal: Goal, name: str, hub: StatementWriter
) -> None:
    unmet, stated = release(initial_weights(JOB, 30, 2), goal, hub)
    assert unmet == {name}
    assert not stated.approved
    assert {one.name for one in stated.constraints if not one.satisfied} == {name}


def test_a_model_trained_without_noise_is_not_approved(hub: StatementWriter) -> None:
    unmet, stated = release(initial_weights(JOB, 30, 2), GOAL, hub, "MOCK")
    assert unmet == {"private-training"}
    assert not stated.approved


def test_a_model_of_exactly_the_largest_size_is_approved(hub: StatementWriter) -> None:
    weights = initial_weights(JOB, 30, 2)
    exact = replace(GOAL, max_model_bytes=len(encode_model(weights)))
    assert release(weights, exact, hub)[1].approved
