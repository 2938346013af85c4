"""Whether a job stays within the request that was approved."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from policy_documents import DATASET, JOB, OTHER_DATASET, SITE, Changes, changed, manifest, request

from cloister.core.errors import InputError
from cloister.policy import JobTerms, decide_job, job_terms
from cloister.policy.job_decision import JOB_RULES


def terms(changes: Changes | None = None) -> JobTerms:
    return job_terms(changed(JOB, changes or {}), datasets={SITE: DATASET}, test_set="wisconsin-holdout")


def broken(asked: JobTerms) -> list[str]:
    return [reason.rule for reason in decide_job(manifest(), request(), asked).reasons]


def test_a_job_that_does_what_was_asked_is_approved() -> None:
    assert decide_job(manifest(), request(), terms()).approved


@pytest.mark.parametrize(
    "less",
    [{"rounds": 1}, {"training.local_steps": 1}, {"privacy.target_epsilon": 0.1}, {"privacy.delta": 1e-9}],
)
def test_a_job_may_do_less_than_was_asked(less: Changes) -> None:
    assert broken(terms(less)) == []


MORE: list[tuple[str, Changes]] = [
    ("job-sites", {"clients": [SITE, "riverside"]}),
    ("job-architecture", {"model.architecture": "mlp"}),
    ("job-hyperparameters", {"model.parameters": {"bias": True}}),
    ("job-hyperparameters", {"model.parameters.depth": 3}),
    ("job-hyperparameters", {"model.parameters.width": 9}),
    ("job-hyperparameters", {"model.parameters.bias": 1}),
    ("job-strategy", {"strategy": "SCAFFOLD"}),
    ("job-rounds", {"rounds": 11}),
    ("job-local-steps", {"training.local_steps": 6}),
    ("job-epsilon", {"privacy.target_epsilon": 1.01}),
    ("job-delta", {"privacy.delta": 0.00011}),
]


@pytest.mark.parametrize(("rule", "more"), MORE)
def test_a_job_that_asks_for_more_or_for_something_else_is_refused(rule: str, more: Changes) -> None:
    assert set(broken(terms(more))) == {rule}


def test_a_job_on_other_data_is_refused() -> None:
    assert broken(replace(terms(), datasets={SITE: OTHER_DATASET})) == ["job-datasets"]


def test_a_job_at_a_site_that_only_its_data_betrays_is_refused() -> None:
    asked = job_terms(JOB, datasets={SITE: DATASET, "lakeview": DATASET}, test_set="wisconsin-holdout")
    assert broken(asked) == ["job-sites"]


def test_a_job_judged_by_another_test_set_is_refused() -> None:
    assert broken(replace(terms(), test_set="easy-cases")) == ["job-test-set"]


def test_weights_leave_only_where_they_were_asked_for_and_are_allowed() -> None:
    silent = manifest({"output_constraints.allowed_outputs": ["dp-scalars"]})
    counts = request({"outputs": ["dp-scalars"]}, under=silent)
    refused = decide_job(silent, counts, terms())
    assert {reason.rule for reason in refused.reasons} == {"job-outputs"}
    assert len(refused.reasons) == 2
    assert not decide_job(silent, request(under=silent), terms()).approved
    assert not decide_job(manifest(), request({"outputs": ["dp-scalars"]}), terms()).approved


@pytest.mark.parametrize("number", [math.nan, math.inf, 0.0, -1.0])
def test_a_privacy_loss_that_is_not_a_positive_number_is_refused(number: float) -> None:
    assert broken(replace(terms(), epsilon=number, delta=number)) == ["job-epsilon", "job-delta"]


def test_a_job_without_noise_is_never_approved() -> None:
    mock = terms({"privacy.mechanism": "MOCK"})
    assert broken(mock) == ["job-mechanism", "job-mock"]
    allowed = manifest({"privacy_guardrails.allow_mock": True})
    assert [one.rule for one in decide_job(allowed, request(), mock).reasons] == ["job-mechanism"]


def test_a_job_at_more_sites_than_share_one_persons_ceiling_is_refused_where_losses_add_up() -> None:
    three = replace(terms(), sites=(SITE, "lakeview", "riverside"))
    summed = manifest({"privacy_guardrails.cross_site_subjects": "sum"})
    assert "job-subjects" in {one.rule for one in decide_job(summed, request(), three).reasons}
    assert "job-subjects" not in broken(three)
    shared = manifest(
        {"privacy_guardrails.cross_site_subjects": "sum", "privacy_guardrails.subject_sites": 3}
    )
    assert "job-subjects" not in {one.rule for one in decide_job(shared, request(), three).reasons}


def test_a_job_that_breaks_everything_gets_every_reason() -> None:
    worst = {key: value for _, more in MORE for key, value in more.items() if key != "model.parameters"}
    asked = replace(terms(worst), datasets={SITE: OTHER_DATASET}, test_set="easy-cases", mechanism="MOCK")
    agreed = manifest(
        {
            "output_constraints.allowed_outputs": ["dp-scalars"],
            "privacy_guardrails.cross_site_subjects": "sum",
            "privacy_guardrails.subject_sites": 1,
        }
    )
    reasons = decide_job(agreed, request({"outputs": ["dp-scalars"]}), asked).reasons
    assert {reason.rule for reason in reasons} == set(JOB_RULES)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"privacy.mechanism": "NONE"},
        {"rounds": "10"},
        {"rounds": None},
        {"clients": SITE},
        {"model": []},
        {"privacy.delta": True},
    ],
)
def test_a_job_that_policy_cannot_read_is_refused(nonsense: Changes) -> None:
    with pytest.raises(InputError) as caught:
        terms(nonsense)
    assert caught.value.code == "input.schema"
