"""What a manifest has to hold, and what it mustn't."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_documents import HOSPITAL, MANIFEST, changed, manifest, without

from cloister.core.canonical import JSON, canonicalize
from cloister.core.errors import InputError
from cloister.policy import PolicyError, ProtocolManifest, decode_manifest

PARTS = ("purpose_limitation", "dataset_scope", "privacy_guardrails", "success_metrics", "incentive_terms")
OTHER_PARTS = (
    "document",
    "hospital",
    "output_constraints",
    "airlock",
    "attestation",
    "evidence_log",
    "validity",
    "version",
)


def refusal(document: dict[str, JSON]) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        decode_manifest(canonicalize(document))
    assert caught.value.code == "input.schema"
    assert caught.value.exit_code == 2
    return caught.value.details


def test_a_complete_manifest_round_trips_through_its_canonical_bytes() -> None:
    parsed = manifest()
    assert decode_manifest(parsed.canonical()) == parsed
    assert parsed.canonical() == canonicalize(MANIFEST)
    assert parsed.key == HOSPITAL.public_key


@pytest.mark.parametrize("part", [*PARTS, *OTHER_PARTS])
def test_each_part_is_required_and_its_absence_has_its_own_path(part: str) -> None:
    (only,) = refusal(without(MANIFEST, part))
    assert only.startswith(f"{part}: ")


def leaves(document: dict[str, JSON], path: str = "") -> list[str]:
    found = []
    for name, value in document.items():
        here = f"{path}.{name}" if path else name
        found += leaves(value, here) if isinstance(value, dict) else [here]
    return found


@pytest.mark.parametrize("path", leaves(MANIFEST))
def test_no_field_has_a_default(path: str) -> None:
    (only,) = refusal(without(MANIFEST, path))
    assert only.startswith(f"{path}: ")


@pytest.mark.parametrize("path", ["extra", *(f"{part}.extra" for part in PARTS)])
def test_an_unknown_field_is_refused(path: str) -> None:
    (only,) = refusal(changed(MANIFEST, {path: 1}))
    assert only.startswith(f"{path}: ")


def test_the_name_of_an_unknown_field_cannot_steer_a_terminal() -> None:
    (only,) = refusal(changed(MANIFEST, {"\x1b[2J": 1}))
    assert only.startswith("[withheld]: ")


def test_every_wrong_field_is_named_at_once() -> None:
    found = refusal(changed(MANIFEST, {"version": "1", "privacy_guardrails.epsilon_budget": -1}))
    assert [line.split(":")[0] for line in found] == ["version", "privacy_guardrails.epsilon_budget"]


BAD_VALUES: list[tuple[str, JSON]] = [
    ("document", "cloister.manifest/v2"),
    ("manifest_id", "0F2B1D52-6C3E-4D7A-9D52-0C8F6F1A2B3C"),
    ("manifest_id", "7"),
    ("version", "1.2"),
    ("version", "01.2.0"),
    ("version", "1.2.0\n"),
    ("version", "\u0661.2.0"),
    ("hospital.id", ""),
    ("hospital.id", "North Gate"),
    ("hospital.id", "../northgate"),
    ("hospital.name", ""),
    ("hospital.name", " Northgate"),
    ("hospital.name", "North\u202egate"),
    ("hospital.name", "\x1b[31mNorthgate"),
    ("hospital.name", "x" * 501),
    ("hospital.public_key", "not a key"),
    ("hospital.public_key", HOSPITAL.public_key.pem.replace("\n", "\r\n")),
    ("hospital.public_key", HOSPITAL.public_key.pem + "\n"),
    ("purpose_limitation.allowed_purposes", []),
    ("purpose_limitation.allowed_purposes", ["teaching", "teaching"]),
    ("purpose_limitation.allowed_purposes", "teaching"),
    ("purpose_limitation.allowed_purposes", ["Any purpose"]),
    ("purpose_limitation.allowed_purposes", [None]),
    ("purpose_limitation.prohibited_uses", None),
    ("purpose_limitation.prohibited_uses", ["marketing", "marketing"]),
    ("purpose_limitation.data_retention_days", -1),
    ("purpose_limitation.data_retention_days", 1.5),
    ("purpose_limitation.data_retention_days", True),
    ("purpose_limitation.data_retention_days", 36_501),
    ("dataset_scope.name", ""),
    ("dataset_scope.contents", "public"),
    ("dataset_scope.contents", None),
    ("dataset_scope.bounds_sha256", "a" * 63),
    ("dataset_scope.bounds_sha256", None),
    ("dataset_scope.sha256", "a" * 63),
    ("dataset_scope.sha256", "A" * 64),
    ("dataset_scope.data_types", []),
    ("dataset_scope.patient_criteria", []),
    ("dataset_scope.patient_criteria", ["two\nlines"]),
    ("dataset_scope.temporal_range.start", "1989-13-01"),
    ("dataset_scope.temporal_range.start", "19890101"),
    ("dataset_scope.temporal_range.end", "yesterday"),
    ("dataset_scope.temporal_range.end", 1991),
    ("dataset_scope.sample_size", 0),
    ("dataset_scope.sample_size", "190"),
    ("privacy_guardrails.unit", "patient"),
    ("privacy_guardrails.epsilon_budget", 0),
    ("privacy_guardrails.epsilon_budget", -1),
    ("privacy_guardrails.epsilon_budget", "3"),
    ("privacy_guardrails.epsilon_budget", True),
    ("privacy_guardrails.delta_budget", 0),
    ("privacy_guardrails.delta_budget", 1),
    ("privacy_guardrails.delta_budget", -0.1),
    ("privacy_guardrails.epsilon_hard_stop", 0),
    ("privacy_guardrails.epsilon_hard_stop", 5.01),
    ("privacy_guardrails.minimum_group_size", 0),
    ("privacy_guardrails.minimum_group_size", 20.5),
    ("privacy_guardrails.suppression_threshold", 0),
    ("success_metrics.primary_metric", "vibes"),
    ("success_metrics.threshold", 0),
    ("success_metrics.threshold", 1.01),
    ("success_metrics.evaluation_method.kind", "claimed"),
    ("success_metrics.evaluation_method.baseline", "as-claimed"),
    ("success_metrics.evaluation_method.test_set", ""),
    ("success_metrics.evaluation_method.test_set_sha256", "A" * 64),
    ("success_metrics.evaluation_method.test_set_records", 0),
    ("output_constraints.allowed_outputs", []),
    ("output_constraints.allowed_outputs", ["raw-records"]),
    ("output_constraints.allowed_outputs", ["model-weights", "model-weights"]),
    ("output_constraints.max_model_bytes", 0),
    ("airlock.max_update_bytes", 0),
    ("airlock.norm_bound", "generous"),
    ("airlock.mantissa_bits", 0),
    ("airlock.mantissa_bits", 24),
    ("airlock.mantissa_bits", 11.5),
    ("attestation.allow_simulated", "yes"),
    ("attestation.allow_simulated", 1),
    ("attestation.allowed_measurements", []),
    ("attestation.allowed_measurements", ["c" * 64]),
    ("attestation.allowed_measurements", "installed-release"),
    ("attestation.reference_values", [{"tee": "intel-tdx", "registers": {"mrtd": "aa", "rtmr1": "bb"}}]),
    ("attestation.reference_values", [{"tee": "nvidia-gpu", "registers": {"driver": "aa"}}]),
    ("attestation.reference_values", [{"tee": "intel-sgx", "registers": {"mrenclave": "AA"}}]),
    (
        "attestation.reference_values",
        [{"tee": "intel-sgx", "registers": {"mrenclave": "aa", "MRSIGNER": "bb"}}],
    ),
    ("attestation.reference_values", [{"tee": "intel-sgx", "registers": {"mrenclave": "aa"}, "not": "this"}]),
    ("attestation.reference_values", [{"tee": "intel-sgx", "registers": {"mrenclave": "aa"}}] * 2),
    ("attestation.without_revocation", ["a-toaster"]),
    ("attestation.without_revocation", ["aws-nitro", "aws-nitro"]),
    ("attestation.without_revocation", "aws-nitro"),
    ("evidence_log.without_outside_checkpoint", "ask"),
    ("evidence_log.without_outside_checkpoint", None),
    ("evidence_log.without_outside_checkpoint", True),
    ("incentive_terms.base_credits", -1),
    ("incentive_terms.base_credits", 1.5),
    ("incentive_terms.performance_multiplier", -0.5),
    ("incentive_terms.fund_destination", ""),
    ("validity.not_before", "2026-01-01"),
    ("validity.not_before", "2026-01-01T00:00:00"),
    ("validity.not_after", "never"),
    ("validity.not_after", None),
]


@pytest.mark.parametrize(("path", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_and_its_field_is_named(path: str, value: JSON) -> None:
    found = refusal(changed(MANIFEST, {path: value}))
    assert all(line.startswith(path) for line in found)


STATES: list[JSON] = [
    {
        "tee": "intel-tdx",
        "registers": {"mrtd": "aa" * 48, "rtmr0": "dd" * 48, "rtmr1": "bb" * 48, "rtmr2": "cc" * 48},
    },
    {"tee": "amd-sev-snp", "registers": {"measurement": "dd" * 48, "guest_svn": "2", "policy": "0x30000"}},
]


def test_states_of_other_hardware_and_waived_lists_are_kept_where_they_are_written() -> None:
    changes: dict[str, JSON] = {
        "attestation.reference_values": STATES,
        "attestation.without_revocation": ["intel-tdx", "aws-nitro"],
    }
    document = changed(MANIFEST, changes)
    read = decode_manifest(canonicalize(document))
    assert read.canonical() == canonicalize(document)
    assert [one.tee for one in read.attestation.reference_values] == ["intel-tdx", "amd-sev-snp"]
    assert read.attestation.without_revocation == ("intel-tdx", "aws-nitro")
    assert read.sha256 != manifest().sha256


@pytest.mark.parametrize("name", ["reference_values", "without_revocation"])
def test_nothing_more_is_allowed_in_one_spelling_only_by_not_being_written(name: str) -> None:
    assert getattr(manifest().attestation, name) == ()
    with pytest.raises(PolicyError) as caught:
        decode_manifest(canonicalize(changed(MANIFEST, {f"attestation.{name}": []})))
    assert caught.value.code == "policy.not_canonical"


JOINT_RULES: list[tuple[dict[str, JSON], str]] = [
    ({"purpose_limitation.prohibited_uses": ["teaching"]}, "purpose_limitation"),
    ({"dataset_scope.temporal_range.end": "1988-12-31"}, "dataset_scope.temporal_range"),
    ({"privacy_guardrails.epsilon_budget": 5.5}, "privacy_guardrails"),
    (
        {"privacy_guardrails.epsilon_hard_stop": 2, "privacy_guardrails.epsilon_budget": 2.5},
        "privacy_guardrails",
    ),
    ({"validity.not_after": "2026-01-01T00:00:00.000000Z"}, "validity"),
    ({"dataset_scope.contents": "records"}, "the document"),
]


@pytest.mark.parametrize(("changes", "path"), JOINT_RULES)
def test_fields_that_contradict_each_other_are_refused(changes: dict[str, JSON], path: str) -> None:
    (only,) = refusal(changed(MANIFEST, changes))
    assert only.startswith(f"{path}: ")


SIMULATED, MOCK = "attestation.allow_simulated", "privacy_guardrails.allow_mock"


@pytest.mark.parametrize("permitted", [(SIMULATED,), (MOCK,), (SIMULATED, MOCK)])
def test_what_is_for_test_data_only_contradicts_patients_records(permitted: tuple[str, ...]) -> None:
    terms: dict[str, JSON] = {one: one in permitted for one in (SIMULATED, MOCK)}
    (only,) = refusal(changed(MANIFEST, {**terms, "dataset_scope.contents": "records"}))
    assert [one for one in (SIMULATED, MOCK) if one in only] == list(permitted)
    assert "write contents: test-data under dataset_scope" in only
    assert manifest(terms).dataset_scope.contents == "test-data"


def test_patients_records_on_hardware_with_noise_contradict_nothing() -> None:
    agreed = manifest({"dataset_scope.contents": "records", SIMULATED: False, MOCK: False})
    assert agreed.dataset_scope.contents == "records"


@given(contents=st.sampled_from(["records", "test-data"]), simulated=st.booleans(), mock=st.booleans())
def test_a_manifest_is_refused_exactly_where_records_may_go_where_only_test_data_may(
    contents: str, simulated: bool, mock: bool
) -> None:
    document = changed(MANIFEST, {"dataset_scope.contents": contents, SIMULATED: simulated, MOCK: mock})
    if contents == "records" and (simulated or mock):
        assert len(refusal(document)) == 1
    else:
        assert decode_manifest(canonicalize(document)).dataset_scope.contents == contents


def test_records_of_a_single_day_are_a_range() -> None:
    assert manifest({"dataset_scope.temporal_range.end": "1989-01-01"}).dataset_scope.sample_size == 190


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", ["epsilon_budget", "delta_budget", "epsilon_hard_stop"])
def test_a_limit_that_is_not_a_number_is_refused(path: str, value: float) -> None:
    document = changed(MANIFEST, {f"privacy_guardrails.{path}": value})
    with pytest.raises(ValueError, match=path):
        ProtocolManifest.model_validate(document)


def test_another_encoding_of_the_same_content_is_refused() -> None:
    spaced = manifest().canonical().replace(b'":', b'": ', 1)
    with pytest.raises(PolicyError) as caught:
        decode_manifest(spaced)
    assert caught.value.code == "policy.not_canonical"


def test_a_time_in_another_form_is_another_document() -> None:
    document = changed(MANIFEST, {"validity.not_before": "2026-01-01T01:00:00+01:00"})
    with pytest.raises(PolicyError) as caught:
        decode_manifest(canonicalize(document))
    assert caught.value.code == "policy.not_canonical"


def test_a_manifest_cannot_be_changed_after_it_was_parsed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        manifest().privacy_guardrails.epsilon_budget = 4.0  # type: ignore[misc]


def test_an_oversized_document_is_refused_before_it_is_read() -> None:
    with pytest.raises(InputError) as caught:
        decode_manifest(b'"' + b"x" * (1024 * 1024) + b'"')
    assert caught.value.code == "input.too_large"


@given(st.sets(st.sampled_from(PARTS), min_size=1))
def test_whichever_parts_are_missing_exactly_those_are_named(missing: set[str]) -> None:
    """Feature: pramaan-health, Property 1: all five required parts are checked for presence."""
    document = MANIFEST
    for part in missing:
        document = without(document, part)
    assert {line.split(":")[0] for line in refusal(document)} == missing


NUMBERS = st.one_of(st.floats(-1, 8), st.floats(allow_nan=False, allow_infinity=False), st.integers(-2, 30))


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_manifest_is_valid_exactly_when_its_guardrails_are_sensible(
    epsilon: float, hard_stop: float, delta: float, group: float
) -> None:
    """Feature: pramaan-health, Property 1: all five required parts are checked for validity."""
    guardrails: dict[str, JSON] = {
        "privacy_guardrails.epsilon_budget": epsilon,
        "privacy_guardrails.epsilon_hard_stop": hard_stop,
        "privacy_guardrails.delta_budget": delta,
        "privacy_guardrails.minimum_group_size": group,
    }
    sensible = 0 < epsilon <= hard_stop <= 5 and 0 < delta < 1 and group >= 1 and group == int(group)
    document = changed(MANIFEST, guardrails)
    try:
        ProtocolManifest.model_validate_json(canonicalize(document))
    except ValueError:
        valid = False
    else:
        valid = True
    assert valid == (sensible and group <= 2**53 - 1)


@given(st.sampled_from(leaves(MANIFEST)), st.one_of(st.none(), st.just({}), st.just([[]]), st.just("\n")))
def test_no_field_takes_a_value_of_another_kind(path: str, value: JSON) -> None:
    assert all(line.startswith(path) for line in refusal(changed(MANIFEST, {path: value})))
