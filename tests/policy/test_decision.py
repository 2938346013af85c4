"""Whether a request is allowed under a manifest: each rule alone, all together, and what always holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_documents import (
    BOUNDS,
    DATASET,
    OTHER_DATASET,
    SITE,
    TEST_SET,
    Changes,
    facts,
    manifest,
    request,
)

from cloister.core.errors import InputError
from cloister.policy import (
    Decision,
    DecisionFacts,
    OutputKind,
    PolicyError,
    ProtocolManifest,
    TrainingRequest,
    decide,
)
from cloister.policy.decision import REQUEST_RULES


@dataclass(frozen=True)
class Case:
    """One request that breaks one rule."""

    rule: str
    says: str
    manifest: Changes = field(default_factory=dict)
    request: Changes = field(default_factory=dict)
    site: Changes = field(default_factory=dict)
    facts: Changes = field(default_factory=dict)

    def decide(self) -> Decision:
        agreed = manifest(self.manifest)
        return decide(agreed, request(self.request, under=agreed, site=self.site), facts(self.facts))


CASES = [
    Case("manifest-validity", "expired", facts={"decided_at": "2028-01-01T00:00:00.000000Z"}),
    Case(
        "manifest-validity",
        "not valid before",
        request={"submission_timestamp": "2025-12-31T00:00:00.000000Z"},
        facts={"decided_at": "2025-12-31T23:59:59.999999Z"},
    ),
    Case("request-time", "yet to come", request={"submission_timestamp": "2026-11-21T14:05:00.000001Z"}),
    Case("manifest-reference", "version 1.1.0", site={"manifest_version": "1.1.0"}),
    Case(
        "manifest-reference", "is written for", site={"manifest_id": "0f2b1d52-6c3e-4d7a-9d52-0c8f6f1a2b3d"}
    ),
    Case("manifest-reference", "another content", site={"manifest_sha256": "d" * 64}),
    Case("purpose-allowed", "treatment is not among", request={"purpose": "treatment"}),
    Case("dataset-requested", "another hash", site={"dataset_sha256": OTHER_DATASET}),
    Case("dataset-unchanged", "changed or replaced", facts={"dataset_sha256": OTHER_DATASET}),
    Case("dataset-name", "isn't declared as tumour-registry", facts={"dataset_name": "tumour-registry-2"}),
    Case("dataset-bounds", "another hash than the manifest's", facts={"bounds_sha256": "f" * 64}),
    Case("test-set", "changed or replaced", facts={"test_set_sha256": "f" * 64}),
    Case("test-set", "doesn't hold the 169", facts={"test_set_records": 12}),
    Case("sample-size", "doesn't hold the 190", facts={"records": 189}),
    Case(
        "group-size",
        "minimum group size of 20",
        manifest={"dataset_scope.sample_size": 19},
        facts={"records": 19},
    ),
    Case(
        "privacy-unit",
        "doesn't say whose its records are",
        manifest={"privacy_guardrails.unit": "subject"},
    ),
    Case(
        "group-size",
        "fewer subjects than the minimum group size of 20",
        manifest={"privacy_guardrails.unit": "subject"},
        facts={"subjects": 19},
    ),
    Case("epsilon-budget", "above the budget of 3", request={"privacy.epsilon": 3.01}),
    Case("delta-budget", "above the budget of 0.0001", request={"privacy.delta": 0.00011}),
    Case(
        "delta-records",
        "not below one over",
        manifest={"dataset_scope.sample_size": 10_000, "privacy_guardrails.delta_budget": 0.00001},
        request={"privacy.delta": 0.00001},
        facts={"records": 100_000},
    ),
    Case("outputs", "dp-scalars", request={"outputs": ["model-weights", "dp-scalars"]}),
    Case(
        "suppression",
        "fewer than 200",
        manifest={
            "privacy_guardrails.suppression_threshold": 200,
            "output_constraints.allowed_outputs": ["dp-scalars"],
        },
        request={"outputs": ["dp-scalars"]},
    ),
    Case(
        "suppression",
        "fewer than 180 subjects",
        manifest={
            "privacy_guardrails.unit": "subject",
            "privacy_guardrails.suppression_threshold": 180,
            "output_constraints.allowed_outputs": ["dp-scalars"],
        },
        request={"outputs": ["dp-scalars"]},
        facts={"subjects": 150},
    ),
]


def rules(decision: Decision) -> set[str]:
    return {reason.rule for reason in decision.reasons}


def test_a_request_within_the_manifest_is_approved_without_a_reason() -> None:
    decision = decide(manifest(), request(), facts())
    assert decision.approved
    assert decision.reasons == ()
    decision.require_approved("the request")


def test_a_request_exactly_at_every_limit_is_approved() -> None:
    agreed = manifest(
        {
            "dataset_scope.sample_size": 20,
            "privacy_guardrails.minimum_group_size": 20,
            "privacy_guardrails.suppression_threshold": 20,
            "output_constraints.allowed_outputs": ["model-weights", "dp-scalars"],
        }
    )
    asked = request(
        {
            "privacy.epsilon": 3,
            "privacy.delta": 0.0001,
            "outputs": ["dp-scalars", "model-weights"],
            "submission_timestamp": "2026-01-01T00:05:00.000000Z",
        },
        under=agreed,
    )
    known = facts({"records": 20, "decided_at": "2026-01-01T00:00:00.000000Z"})
    assert decide(agreed, asked, known).reason_lines == ()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {case.says}")
def test_a_request_that_breaks_a_rule_is_refused_by_that_rule(case: Case) -> None:
    decision = case.decide()
    assert not decision.approved
    assert any(reason.rule == case.rule and case.says in reason.sentence for reason in decision.reasons)
    assert rules(decision) - {case.rule} <= {"sample-size"}


def test_a_purpose_that_is_neither_allowed_nor_tolerated_breaks_both_rules() -> None:
    decision = decide(manifest(), request({"purpose": "marketing"}), facts())
    assert rules(decision) == {"purpose-allowed", "purpose-prohibited"}


def test_a_manifest_of_another_hospital_is_no_manifest_for_this_site() -> None:
    decision = decide(manifest(), request(), facts({"site": "riverside"}))
    assert rules(decision) == {"site"}
    assert len(decision.reasons) == 2


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} | {"purpose-prohibited", "site"} == set(REQUEST_RULES)


def test_a_request_that_breaks_everything_gets_every_reason() -> None:
    agreed = manifest(
        {
            "privacy_guardrails.unit": "subject",
            "privacy_guardrails.suppression_threshold": 200,
            "privacy_guardrails.delta_budget": 0.5,
            "validity.not_after": "2026-02-01T00:00:00.000000Z",
        }
    )
    asked = request(
        {
            "purpose": "insurance-pricing",
            "privacy.epsilon": 4,
            "privacy.delta": 0.6,
            "outputs": ["dp-scalars"],
            "submission_timestamp": "2027-01-01T00:00:00.000000Z",
        },
        under=agreed,
        site={"dataset_sha256": OTHER_DATASET, "manifest_version": "9.0.0"},
    )
    elsewhere: Changes = {
        "dataset_name": "fresh-budget",
        "bounds_sha256": OTHER_DATASET,
        "dataset_sha256": "e" * 64,
        "test_set_records": 1,
    }
    decision = decide(agreed, asked, facts({"records": 3, **elsewhere}))
    assert rules(decision) == set(REQUEST_RULES) - {"site"}
    order = list(REQUEST_RULES)
    places = [order.index(reason.rule) for reason in decision.reasons]
    assert places == sorted(places)
    with pytest.raises(PolicyError) as caught:
        decision.require_approved("the request at northgate")
    assert caught.value.code == "policy.refused"
    assert caught.value.exit_code == 3
    assert caught.value.details == decision.reason_lines


def test_a_group_that_is_too_small_is_not_counted_out() -> None:
    decision = Case("group-size", "", facts={"records": 17}).decide()
    assert not any("17" in line for line in decision.reason_lines)


@pytest.mark.parametrize("epsilon", [0, -1, True, "1", None])
def test_an_epsilon_of_zero_or_less_is_no_request(epsilon: float) -> None:
    with pytest.raises(InputError) as caught:
        request({"privacy.epsilon": epsilon})
    assert any(line.startswith("privacy.epsilon: ") for line in caught.value.details)


def test_the_facts_written_down_lead_to_the_same_decision() -> None:
    known = facts({"records": 3})
    again = DecisionFacts.model_validate(known.as_json())
    assert again == known
    assert decide(manifest(), request(), again) == decide(manifest(), request(), known)


PURPOSES = ["diagnostic-research", "teaching", "treatment", "insurance-pricing", "marketing"]
OUTPUTS = [kind.value for kind in OutputKind]
TIMES = [f"{year}-06-01T00:00:00.000000Z" for year in (2025, 2026, 2027, 2028)]


@st.composite
def manifests(draw: st.DrawFn) -> ProtocolManifest:
    allowed = draw(st.lists(st.sampled_from(PURPOSES), min_size=1, unique=True))
    prohibited = draw(st.lists(st.sampled_from(PURPOSES), unique=True))
    start, end = sorted(draw(st.lists(st.sampled_from(TIMES), min_size=2, max_size=2, unique=True)))
    hard_stop = draw(st.floats(0.1, 5))
    return manifest(
        {
            "purpose_limitation.allowed_purposes": list(allowed),
            "purpose_limitation.prohibited_uses": [word for word in prohibited if word not in allowed],
            "dataset_scope.sample_size": draw(st.integers(1, 60)),
            "privacy_guardrails.epsilon_hard_stop": hard_stop,
            "privacy_guardrails.epsilon_budget": draw(st.floats(0.01, hard_stop)),
            "privacy_guardrails.delta_budget": draw(st.floats(1e-9, 0.1)),
            "privacy_guardrails.minimum_group_size": draw(st.integers(1, 40)),
            "privacy_guardrails.suppression_threshold": draw(st.integers(1, 40)),
            "output_constraints.allowed_outputs": list(
                draw(st.lists(st.sampled_from(OUTPUTS), min_size=1, unique=True))
            ),
            "validity.not_before": start,
            "validity.not_after": end,
        }
    )


@st.composite
def situations(draw: st.DrawFn) -> tuple[ProtocolManifest, TrainingRequest, DecisionFacts]:
    agreed = draw(manifests())
    mostly = st.sampled_from([0, 0, 0, 0, 1])
    asked = request(
        {
            "purpose": draw(st.sampled_from(PURPOSES)),
            "privacy.epsilon": draw(st.floats(0.01, 6)),
            "privacy.delta": draw(st.floats(1e-9, 0.2)),
            "outputs": list(draw(st.lists(st.sampled_from(OUTPUTS), min_size=1, unique=True))),
            "submission_timestamp": draw(st.sampled_from(TIMES)),
        },
        under=agreed,
        site={
            "dataset_sha256": [DATASET, OTHER_DATASET][draw(mostly)],
            "manifest_sha256": [agreed.sha256, "d" * 64][draw(mostly)],
        },
    )
    known = facts(
        {
            "site": [SITE, "riverside"][draw(mostly)],
            "dataset_name": ["tumour-registry", "fresh-budget"][draw(mostly)],
            "bounds_sha256": [BOUNDS, OTHER_DATASET][draw(mostly)],
            "dataset_sha256": [DATASET, OTHER_DATASET][draw(mostly)],
            "test_set_sha256": [TEST_SET, OTHER_DATASET][draw(mostly)],
            "test_set_records": [169, 12][draw(mostly)],
            "records": draw(st.one_of(st.just(agreed.dataset_scope.sample_size), st.integers(0, 60))),
            "decided_at": draw(st.sampled_from(TIMES)),
        }
    )
    return agreed, asked, known


def obeys(agreed: ProtocolManifest, asked: TrainingRequest, known: DecisionFacts) -> bool:
    """Say in one expression, apart from the rules, what an approval has to mean."""
    site, guard = asked.for_site(known.site), agreed.privacy_guardrails
    return (
        site is not None
        and agreed.hospital.id == known.site
        and site.manifest_sha256 == agreed.sha256
        and site.dataset_sha256 == agreed.dataset_scope.sha256 == known.dataset_sha256
        and (known.dataset_name, known.bounds_sha256)
        == (agreed.dataset_scope.name, agreed.dataset_scope.bounds_sha256)
        and (known.test_set_sha256, known.test_set_records) == (TEST_SET, 169)
        and agreed.validity.not_before <= known.decided_at < agreed.validity.not_after
        and asked.submission_timestamp <= known.decided_at
        and asked.purpose in agreed.purpose_limitation.allowed_purposes
        and asked.purpose not in agreed.purpose_limitation.prohibited_uses
        and known.records == agreed.dataset_scope.sample_size
        and known.records >= guard.minimum_group_size
        and asked.privacy.epsilon <= guard.epsilon_budget <= guard.epsilon_hard_stop <= 5.0
        and asked.privacy.delta <= guard.delta_budget
        and guard.delta_budget * known.records < 1
        and set(asked.outputs) <= set(agreed.output_constraints.allowed_outputs)
        and (OutputKind.DP_SCALARS not in asked.outputs or known.records >= guard.suppression_threshold)
    )


@given(situations())
def test_no_violating_request_is_ever_approved_and_no_obeying_one_refused(
    situation: tuple[ProtocolManifest, TrainingRequest, DecisionFacts],
) -> None:
    """Feature: pramaan-health, Property 2: the verdict is correct, and violators are rejected."""
    assert decide(*situation).approved == obeys(*situation)


BREAKERS: dict[str, tuple[Changes, Changes, Changes]] = {
    "purpose-allowed": ({"purpose": "treatment"}, {}, {}),
    "purpose-prohibited": ({"purpose": "marketing"}, {}, {}),
    "epsilon-budget": ({"privacy.epsilon": 4.5}, {}, {}),
    "delta-budget": ({"privacy.delta": 0.001}, {}, {}),
    "outputs": ({"outputs": ["dp-scalars"]}, {}, {}),
    "request-time": ({"submission_timestamp": "2027-01-01T00:00:00.000000Z"}, {}, {}),
    "dataset-requested": ({}, {"dataset_sha256": OTHER_DATASET}, {}),
    "manifest-reference": ({}, {"manifest_version": "0.0.1"}, {}),
    "dataset-name": ({}, {}, {"dataset_name": "fresh-budget"}),
    "dataset-bounds": ({}, {}, {"bounds_sha256": OTHER_DATASET}),
    "dataset-unchanged": ({}, {}, {"dataset_sha256": OTHER_DATASET}),
    "test-set": ({}, {}, {"test_set_sha256": OTHER_DATASET}),
    "group-size": ({}, {}, {"records": 2}),
    "manifest-validity": ({}, {}, {"decided_at": "2029-01-01T00:00:00.000000Z"}),
}


@given(st.sets(st.sampled_from(sorted(BREAKERS)), min_size=1))
def test_each_of_several_violations_is_named_whatever_the_others_are(broken: set[str]) -> None:
    asked: Changes = {}
    site: Changes = {}
    known: Changes = {}
    if "manifest-validity" in broken:
        broken = broken - {"request-time"}
    if "purpose-prohibited" in broken:
        broken = broken - {"purpose-allowed"}
    for rule in sorted(broken):
        asked |= BREAKERS[rule][0]
        site |= BREAKERS[rule][1]
        known |= BREAKERS[rule][2]
    assert broken <= rules(decide(manifest(), request(asked, site=site), facts(known)))


@st.composite
def tightenings(draw: st.DrawFn) -> Changes:
    """Draw one way of making the manifest of the tests stricter."""
    return draw(
        st.sampled_from(
            [
                {"purpose_limitation.allowed_purposes": ["teaching"]},
                {"purpose_limitation.allowed_purposes": ["diagnostic-research"]},
                {"purpose_limitation.prohibited_uses": ["insurance-pricing", "marketing", "treatment"]},
                {"privacy_guardrails.epsilon_budget": 0.5},
                {"privacy_guardrails.epsilon_hard_stop": 3},
                {"privacy_guardrails.delta_budget": 0.00001},
                {"privacy_guardrails.minimum_group_size": 191},
                {"privacy_guardrails.suppression_threshold": 500},
                {"validity.not_after": "2026-03-01T00:00:00.000000Z"},
                {"validity.not_before": "2026-12-01T00:00:00.000000Z"},
            ]
        )
    )


@given(
    st.lists(tightenings(), min_size=1, max_size=4),
    st.sampled_from(PURPOSES),
    st.floats(0.01, 6),
    st.floats(1e-9, 0.01),
    st.integers(0, 300),
    st.sampled_from(TIMES),
)
def test_a_stricter_manifest_never_turns_a_refusal_into_an_approval(
    stricter: list[Changes], purpose: str, epsilon: float, delta: float, records: int, now: str
) -> None:
    changes: Changes = {}
    for one in stricter:
        changes |= one
    if changes.get("validity.not_before") and changes.get("validity.not_after"):
        del changes["validity.not_after"]
    asked: Changes = {
        "purpose": purpose,
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "submission_timestamp": "2025-01-01T00:00:00.000000Z",
    }
    known = facts({"records": records, "decided_at": now})
    loose, tight = manifest(), manifest(changes)
    before = decide(loose, request(asked, under=loose), known)
    after = decide(tight, request(asked, under=tight), known)
    assert rules(before) - {"delta-records"} <= rules(after)
    assert before.approved or not after.approved
