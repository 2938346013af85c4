"""The files that people write, and how they become documents to sign."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from policy_documents import DATASET, NOW, facts_of

from cloister.core.errors import CloisterError, InputError
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.health import load_source
from cloister.policy import (
    ManifestDraft,
    PolicyError,
    RequestDraft,
    UnwitnessedLog,
    decide,
    load_manifest_draft,
    load_request_draft,
    open_manifest,
    open_request,
    sign_manifest,
    sign_request,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
MEASUREMENT = "c" * 96
REQUEST_ID = UUID("5b8e3c1a-7f24-4e0b-8f6d-2a9c4d1e7b60")
NewSigner = Callable[[str], Signer]


def drafts(name: str) -> tuple[ManifestDraft, RequestDraft]:
    return (
        load_manifest_draft(EXAMPLES / name / "manifest.yaml"),
        load_request_draft(EXAMPLES / name / "request.yaml"),
    )


@pytest.mark.parametrize("name", ["tumour", "heart"])
def test_the_examples_become_signed_documents_that_approve_each_other(
    name: str, new_signer: NewSigner
) -> None:
    terms, wanted = drafts(name)
    signers = {site: new_signer(site) for site in terms.hospital_ids}
    developer = new_signer("developer")
    manifests = {
        site: terms.for_hospital(site, signer.public_key, installed_measurement=MEASUREMENT)
        for site, signer in signers.items()
    }
    request = wanted.complete(manifests, developer.public_key, request_id=REQUEST_ID, submitted_at=NOW)
    assert open_request(sign_request(request, developer), developer.public_key) == request
    for site, manifest in manifests.items():
        signer = signers[site]
        assert open_manifest(sign_manifest(manifest, signer), signer.public_key) == manifest
        assert manifest.attestation.allowed_measurements == (MEASUREMENT,)
        assert decide(manifest, request, facts_of(manifest)).reason_lines == ()


def test_the_tumour_example_names_the_data_that_is_there() -> None:
    check_against_data("tumour", None)


def test_the_heart_example_names_the_data_that_is_there(shared_data: Callable[[str], Path]) -> None:
    check_against_data("heart", shared_data("heart-disease"))


def check_against_data(name: str, data_dir: Path | None) -> None:
    terms, wanted = drafts(name)
    data = load_source(terms.dataset_scope.name, data_dir=data_dir)
    there = {site: (held.dataset_sha256, held.records) for site, held in data.sites.items()}
    assert {bank.id: (bank.dataset_sha256, bank.sample_size) for bank in terms.hospitals} == there
    assert {site.site: site.dataset_sha256 for site in wanted.sites} == {
        site: sha256 for site, (sha256, _) in there.items()
    }
    assert (terms.dataset_scope.name, terms.dataset_scope.bounds_sha256) == (
        data.schema.name,
        data.bounds_sha256,
    )
    measured = terms.success_metrics.evaluation_method
    assert (measured.test_set, measured.test_set_sha256, measured.test_set_records) == (
        data.test.name,
        data.test.sha256,
        data.test.records,
    )


def test_a_manifests_id_follows_from_the_agreement_and_the_hospital(new_signer: NewSigner) -> None:
    terms, _ = drafts("tumour")
    key = new_signer("hospital").public_key
    ids = [
        terms.for_hospital(site, key, installed_measurement=MEASUREMENT).manifest_id
        for site in (*terms.hospital_ids, *terms.hospital_ids)
    ]
    assert len(set(ids)) == 3
    assert ids[:3] == ids[3:]


def test_stated_measurements_are_kept_whatever_is_installed(tmp_path: Path, new_signer: NewSigner) -> None:
    text = (EXAMPLES / "tumour" / "manifest.yaml").read_text()
    path = tmp_path / "manifest.yaml"
    path.write_text(text.replace("installed-release ", f"[{'d' * 96}] "))
    manifest = load_manifest_draft(path).for_hospital(
        "lakeview", new_signer("hospital").public_key, installed_measurement=MEASUREMENT
    )
    assert manifest.attestation.allowed_measurements == ("d" * 96,)


def test_a_draft_hands_on_which_hardware_will_do(tmp_path: Path, new_signer: NewSigner) -> None:
    text = (EXAMPLES / "tumour" / "manifest.yaml").read_text()
    path = tmp_path / "manifest.yaml"
    more = (
        "  without_revocation: [aws-nitro]\n"
        f"  reference_values: [{{tee: intel-sgx, registers: {{mrenclave: '{'ab' * 32}'}}}}]\n"
    )
    path.write_text(text.replace("attestation:\n", "attestation:\n" + more, 1))
    terms = load_manifest_draft(path)
    manifest = terms.for_hospital(
        "lakeview", new_signer("hospital").public_key, installed_measurement=MEASUREMENT
    )
    assert manifest.attestation.without_revocation == ("aws-nitro",)
    assert [one.registers for one in manifest.attestation.reference_values] == [{"mrenclave": "ab" * 32}]


def test_a_draft_that_says_nothing_of_the_log_asks_for_the_strict_rule(
    tmp_path: Path, new_signer: NewSigner
) -> None:
    text = (EXAMPLES / "tumour" / "manifest.yaml").read_text()
    rule = "evidence_log:\n  without_outside_checkpoint: allow\n"
    path = tmp_path / "manifest.yaml"
    for written, expected in ((text, UnwitnessedLog.ALLOW), (text.replace(rule, ""), UnwitnessedLog.REFUSE)):
        path.write_text(written)
        manifest = load_manifest_draft(path).for_hospital(
            "lakeview", new_signer(expected.value).public_key, installed_measurement=MEASUREMENT
        )
        assert manifest.evidence_log.without_outside_checkpoint is expected


def test_a_hospital_that_the_draft_does_not_name_gets_no_manifest(new_signer: NewSigner) -> None:
    terms, _ = drafts("tumour")
    with pytest.raises(PolicyError) as caught:
        terms.for_hospital("eastgate", new_signer("e").public_key, installed_measurement=MEASUREMENT)
    assert caught.value.code == "policy.unknown_hospital"
    assert "northgate" in caught.value.hint


def test_a_request_for_a_site_without_a_manifest_is_not_completed(new_signer: NewSigner) -> None:
    terms, wanted = drafts("tumour")
    key = new_signer("hospital").public_key
    manifests = {"lakeview": terms.for_hospital("lakeview", key, installed_measurement=MEASUREMENT)}
    with pytest.raises(PolicyError) as caught:
        wanted.complete(manifests, key, request_id=REQUEST_ID, submitted_at=NOW)
    assert caught.value.code == "policy.unknown_hospital"
    assert "northgate, riverside" in caught.value.message


def edited(tmp_path: Path, kind: str, old: str, new: str) -> Path:
    text = (EXAMPLES / "tumour" / f"{kind}.yaml").read_text()
    changed, times = re.subn(old, new, text, count=1)
    assert times == 1
    path = tmp_path / f"{kind}.yaml"
    path.write_text(changed)
    return path


BAD_EDITS = [
    ("manifest", "epsilon_budget: [0-9.]+", "epsilon_budget: 0", "privacy_guardrails.epsilon_budget"),
    ("manifest", "epsilon_budget: [0-9.]+", "epsilon_budget: .nan", None),
    ("manifest", "epsilon_budget: [0-9.]+", "epsilon_budget: three", "privacy_guardrails.epsilon_budget"),
    (
        "manifest",
        "epsilon_hard_stop: [0-9.]+",
        "epsilon_hard_stop: 8.0",
        "privacy_guardrails.epsilon_hard_stop",
    ),
    ("manifest", " threshold:", " treshold:", "success_metrics.treshold"),
    ("manifest", "id: riverside", "id: northgate", "names a hospital twice"),
    ("manifest", "insurance-pricing", "diagnostic-research", "both allowed and prohibited"),
    ("manifest", "installed-release", "whatever", "attestation.allowed_measurements"),
    ("manifest", "not_after: [0-9]{4}", "not_after: 2025", "validity"),
    ("manifest", "start: [0-9]{4}", "start: 1996", "dataset_scope.temporal_range"),
    ("manifest", "contents: test-data", "contents: records", "contents: test-data under dataset_scope"),
    ("manifest", "contents: test-data", "contents: demo", "dataset_scope.contents"),
    ("request", "epsilon: [0-9.]+", "epsilon: 0", "privacy.epsilon"),
    ("request", "delta: [0-9.e-]+", "delta: 1.0", "privacy.delta"),
    ("request", "site: riverside", "site: northgate", "names a site twice"),
    ("request", "model-weights", "records", "outputs"),
    ("request", "rounds: [0-9]+", "rounds: 10001", "model_specification.training_config.rounds"),
    ("request", "purpose: [a-z-]+", "colour: blue", "purpose"),
]


@pytest.mark.parametrize(("kind", "old", "new", "named"), BAD_EDITS)
def test_a_wrong_file_is_refused_and_the_field_is_named(
    tmp_path: Path, kind: str, old: str, new: str, named: str | None
) -> None:
    path = edited(tmp_path, kind, old, new)
    load = load_manifest_draft if kind == "manifest" else load_request_draft
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.exit_code == 2
    if named is None:
        assert caught.value.code == "input.not_json"
    else:
        assert any(named in line for line in caught.value.details)


def test_a_draft_that_does_not_say_what_it_is_about_means_patients_records(tmp_path: Path) -> None:
    unsaid = edited(tmp_path, "manifest", "  contents: test-data[^\n]*\n", "")
    with pytest.raises(InputError) as caught:
        load_manifest_draft(unsaid)
    assert (
        "attestation.allow_simulated and privacy_guardrails.allow_mock must be false" in caught.value.message
    )
    assert "if these are public or made up, write contents: test-data under dataset_scope" in (
        caught.value.message
    )
    text = unsaid.read_text()
    for name in ("allow_simulated", "allow_mock"):
        text = text.replace(f"{name}: true", f"{name}: false")
    unsaid.write_text(text)
    careful = load_manifest_draft(unsaid)
    signed = careful.for_hospital(
        "northgate", EphemeralKeyStore().generate("key").public_key, installed_measurement=MEASUREMENT
    )
    assert signed.dataset_scope.contents == "records"
    assert b'"contents":"records"' in signed.canonical()


@pytest.mark.parametrize("load", [load_manifest_draft, load_request_draft])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, load: Callable[[Path], object]) -> None:
    with pytest.raises(CloisterError) as caught:
        load(tmp_path / "absent.yaml")
    assert caught.value.code == "input.missing_file"


def completed(path: Path, new_signer: NewSigner, **when: float) -> tuple[str, ...]:
    terms, _ = drafts("tumour")
    key = new_signer("key").public_key
    manifests = {
        site: terms.for_hospital(site, key, installed_measurement=MEASUREMENT) for site in terms.hospital_ids
    }
    request = load_request_draft(path).complete(
        manifests, key, request_id=REQUEST_ID, submitted_at=NOW + timedelta(**when)
    )
    manifest = manifests["northgate"]
    return tuple(reason.rule for reason in decide(manifest, request, facts_of(manifest)).reasons)


def test_a_request_file_for_another_dataset_hash_is_refused(tmp_path: Path, new_signer: NewSigner) -> None:
    _, wanted = drafts("tumour")
    there = next(site.dataset_sha256 for site in wanted.sites if site.site == "northgate")
    path = edited(tmp_path, "request", there, DATASET)
    assert completed(path, new_signer) == ("dataset-requested",)


def test_a_request_file_for_a_prohibited_purpose_is_refused(tmp_path: Path, new_signer: NewSigner) -> None:
    path = edited(tmp_path, "request", "purpose: [a-z-]+", "purpose: marketing")
    assert completed(path, new_signer) == ("purpose-allowed", "purpose-prohibited")


def test_a_request_from_the_future_is_refused(new_signer: NewSigner) -> None:
    assert completed(EXAMPLES / "tumour" / "request.yaml", new_signer, hours=1) == ("request-time",)
