"""What a manifest asks of hardware: written as people write it, read by the verifier as it was signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from policy_documents import MANIFEST, changed, manifest

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.documents import load_yaml
from cloister.core.errors import CloisterError, InputError
from cloister.evidence.hardware_terms import HardwareTerms
from cloister.evidence.terms import ManifestTerms, read_document
from cloister.policy import PolicyError, decode_manifest, load_manifest_draft
from cloister.policy.manifest import AttestationTerms

EXAMPLE = Path(__file__).parents[2] / "examples" / "tumour" / "manifest.yaml"
VERSIONS: dict[str, JSON] = {"boot_loader": 10, "tee": 0, "snp": 23, "microcode": 84}
WRITTEN: dict[str, JSON] = {
    "without_revocation": ["aws-nitro"],
    "vmpl": 2,
    "amd_lines": ["Genoa"],
    "minimum_tcb": {"Genoa": VERSIONS, "Turin": {**VERSIONS, "fmc": 1}},
    "accepted_tcb_statuses": ["SWHardeningNeeded"],
    "accepted_advisories": ["INTEL-SA-00615"],
    "minimum_tcb_evaluation": 20,
    "maximum_collateral_age_days": 30,
    "gpus": "required",
    "gpu_modes": ["single", "multi"],
    "minimum_gpu_driver": "570.124",
}
FMC: dict[str, JSON] = {"Milan": {**VERSIONS, "fmc": 1}}
USUAL: dict[str, JSON] = {
    "without_revocation": [],
    "vmpl": 0,
    "amd_lines": [],
    "minimum_tcb": {},
    "accepted_tcb_statuses": [],
    "accepted_advisories": [],
    "minimum_tcb_evaluation": None,
    "maximum_collateral_age_days": None,
    "gpus": "not-used",
    "gpu_modes": ["single"],
    "minimum_gpu_driver": None,
    "reference_values": [],
    "seal_levels": [],
}


def asked(words: dict[str, JSON]) -> dict[str, JSON]:
    return {f"attestation.{name}": value for name, value in words.items()}


def test_every_term_of_hardware_can_be_written_and_is_read_by_the_verifier_as_it_was_signed() -> None:
    assert WRITTEN.keys() == HardwareTerms.model_fields.keys()
    signed = manifest(asked(WRITTEN))
    document = parse(signed.canonical())
    assert isinstance(document, dict)
    attestation = document["attestation"]
    assert isinstance(attestation, dict)
    assert {name: attestation[name] for name in WRITTEN} == WRITTEN
    assert decode_manifest(signed.canonical()) == signed
    read = read_document(ManifestTerms, signed.canonical(), "manifest").attestation
    for name in HardwareTerms.model_fields:
        assert getattr(read, name) == getattr(signed.attestation, name), name


def test_each_term_changes_the_hash_of_the_manifest() -> None:
    whole = manifest(asked(WRITTEN))
    without = [
        manifest(asked({name: word for name, word in WRITTEN.items() if name != left_out})).sha256
        for left_out in WRITTEN
        if left_out != "minimum_tcb"
    ]
    assert len({whole.sha256, manifest().sha256, *without}) == len(WRITTEN) + 1


def test_a_manifest_that_says_nothing_of_hardware_is_encoded_as_before_there_were_such_terms() -> None:
    assert manifest().canonical() == canonicalize(MANIFEST)


@pytest.mark.parametrize("name", USUAL)
def test_writing_what_is_usual_is_the_same_document_as_leaving_it_out(name: str) -> None:
    """And it has one encoding: a signed document that writes it out is refused."""
    attestation = {**MANIFEST["attestation"], name: USUAL[name]}
    terms = AttestationTerms.model_validate(attestation)
    assert terms == manifest().attestation
    assert terms.model_dump(mode="json") == MANIFEST["attestation"]
    with pytest.raises(PolicyError) as refused:
        decode_manifest(canonicalize(changed(MANIFEST, asked({name: USUAL[name]}))))
    assert refused.value.code == "policy.not_canonical"


def test_a_draft_hands_every_term_to_each_hospital(tmp_path: Path, new_signer: object) -> None:
    draft = load_yaml(EXAMPLE)
    path = tmp_path / "manifest.yaml"
    path.write_text(canonicalize(changed(draft, asked(WRITTEN))).decode())  # type: ignore[arg-type]
    terms = load_manifest_draft(path)
    key = new_signer("site").public_key  # type: ignore[operator]
    for site in terms.hospital_ids:
        filled = terms.for_hospital(site, key, installed_measurement="c" * 96).attestation
        assert filled.allowed_measurements == ("c" * 96,)
        assert {name: filled.model_dump(mode="json")[name] for name in WRITTEN} == WRITTEN


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"amd_lines": ["Milan"]}, "attestation: minimum_tcb must name the lowest versions of Milan"),
        (
            {"minimum_tcb": FMC},
            "attestation.minimum_tcb: fmc must be named for",
        ),
        ({"minimum_tcb": {"Milan": {"snp": 24}}}, "attestation.minimum_tcb.Milan.boot_loader: missing"),
        ({"minimum_tcb": {"Milan": {**VERSIONS, "snp": "24"}}}, "attestation.minimum_tcb.Milan.snp"),
        ({"minimum_tcb": {"Rome": VERSIONS}}, "attestation.minimum_tcb.Rome"),
        ({"vmpl": "0"}, "attestation.vmpl"),
        ({"gpus": True}, "attestation.gpus"),
        ({"maximum_collateral_age_days": 0}, "attestation.maximum_collateral_age_days"),
        ({"maximum_collateral_age_days": 1.5}, "attestation.maximum_collateral_age_days"),
        ({"accepted_tcb_statuses": ["OutOfDate"]}, "attestation.accepted_tcb_statuses"),
        ({"accepted_advisories": ["all of them"]}, "attestation.accepted_advisories"),
        ({"debug": True}, "attestation.debug: unknown field"),
    ],
)
def test_a_wrong_term_is_refused_by_its_name(words: dict[str, JSON], told: str) -> None:
    with pytest.raises(InputError) as refused:
        decode_manifest(canonicalize(changed(MANIFEST, asked(words))))
    assert told in " ".join(refused.value.details)


def test_a_manifest_of_a_later_version_with_a_term_unknown_here_is_refused_not_read_without_it() -> None:
    with pytest.raises(CloisterError) as refused:
        read_document(ManifestTerms, canonicalize(changed(MANIFEST, asked({"minimum_moon": 3}))), "manifest")
    assert "attestation.minimum_moon" in refused.value.message
