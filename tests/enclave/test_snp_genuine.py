"""Genuine vendor-signed reports: the layout is the real one, the chains are AMD's, mutations are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloister.enclave import AttestationError, TrustStore
from cloister.enclave.attestation import (
    AppraisalPolicy,
    Evidence,
    Finding,
    Ground,
    ReferenceValues,
    SnpReport,
    Tee,
    appraise,
    authenticate,
)
from cloister.enclave.attestation.amd.azure import HCL, HEADER_BYTES, QUOTE, SIGNATURE, split_blob
from cloister.enclave.attestation.amd.chain import reported_tcb
from cloister.enclave.attestation.amd.report import REPORT_BYTES
from cloister.enclave.attestation.claims import Sealing
from cloister.evidence.hardware_terms import ANY_VERSION, LowestVersions, ProductLine
from tests.nightly import spread

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

SAMPLES = (
    "azure-genoa-vtpm",
    "azure-milan-vtpm-1",
    "genoa-v3-vcek",
    "milan-v2-debug",
    "milan-v2-vcek",
    "milan-v3-vcek",
    "milan-v3-vlek",
)
NO_LIST = (Tee.AMD_SEV_SNP,)


class Sample:
    """One sample folder: report, chain, and what is known about it."""

    def __init__(self, root: Path, name: str) -> None:
        folder = root / name
        self.name = name
        self.known = json.loads((folder / "expected.json").read_text())
        issuers = x509.load_pem_x509_certificates((root / self.known["trust_chain"]).read_bytes())
        chain = (
            (folder / "vek.der").read_bytes(),
            *(one.public_bytes(serialization.Encoding.DER) for one in issuers),
        )
        plain, wrapped = folder / "report.bin", folder / "hcl_report.bin"
        if plain.exists():
            self.evidence = Evidence(Tee.AMD_SEV_SNP, plain.read_bytes(), chain)
        else:
            blob, report = split_blob(wrapped.read_bytes())
            extras = {
                HCL: blob,
                QUOTE: (folder / "tpm_quote.msg").read_bytes(),
                SIGNATURE: (folder / "tpm_quote.sig").read_bytes(),
            }
            self.evidence = Evidence(Tee.AMD_SEV_SNP, report, chain, extras)
        self.at = datetime.fromisoformat(self.known["verify_at"])

    def refusal(self, evidence: Evidence) -> str:
        with pytest.raises(AttestationError) as refused:
            authenticate(evidence, TrustStore.production(), self.at)
        return refused.value.code


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> Sample:
    return Sample(shared_data("attestation/snp"), request.param)


def test_a_genuine_report_is_exactly_the_encoding_of_its_reading(sample: Sample) -> None:
    report = SnpReport.parse(sample.evidence.report)
    assert report.encode() == sample.evidence.report


def test_a_genuine_report_is_authentic_under_the_pinned_roots(sample: Sample) -> None:
    found = authenticate(sample.evidence, TrustStore.production(), sample.at)
    expected = sample.known["expect"]
    assert not found.simulated
    assert found.detail.report.measurement.hex() == expected["measurement"]
    assert found.detail.report.report_data.hex() == expected["report_data"]
    assert found.detail.report.vmpl == expected["vmpl"]
    tcb = expected["reported_tcb"]
    assert (
        found.detail.tcb.boot_loader,
        found.detail.tcb.tee,
        found.detail.tcb.snp,
        found.detail.tcb.microcode,
    ) == (
        tcb["bl"],
        tcb["tee"],
        tcb["snp"],
        tcb["ucode"],
    )
    if "debug" in expected:
        assert found.detail.report.debug == expected["debug"]
        assert found.detail.report.chip_id.hex() == expected["chip_id"]
        assert f"{found.detail.report.policy:#x}" == expected["policy_hex"]


# What the listed expectation calls each refusal, and what a stricter reading may find before it.
REFUSALS = {
    "signature": {"attestation.signature"},
    "alg": {"attestation.alg"},
    "malformed": {"attestation.malformed"},
    "tcb": {"attestation.signature", "attestation.tcb_mismatch"},
    "chipid": {"attestation.signature", "attestation.chip_id"},
}


def test_the_listed_mutations_of_a_genuine_report_are_refused(sample: Sample) -> None:
    for mutation in sample.known.get("mutations", ()):
        changed = bytearray(sample.evidence.report)
        changed[mutation["offset"]] ^= mutation["xor"]
        code = sample.refusal(replace(sample.evidence, report=bytes(changed)))
        structural = {"attestation.malformed", "attestation.unsupported"}
        assert code in REFUSALS[mutation["spike_reject_code"]] | structural, mutation["region"]


def test_a_genuine_report_is_judged_as_its_folder_says(sample: Sample) -> None:
    """Where no revocation list is at hand, a policy has to do without one; then only debug is in the way."""
    claims = authenticate(sample.evidence, TrustStore.production(), sample.at)
    policy = AppraisalPolicy(
        references=(ReferenceValues(tee=claims.tee, registers=dict(claims.registers)),),
        vmpl=sample.known["expect"]["vmpl"],
        amd_lines=tuple(ANY_VERSION),
        minimum_tcb=dict(ANY_VERSION),
        without_revocation=NO_LIST,
    )
    ground = Ground(TrustStore.production(), sample.at)
    # As if the relying party had asked for just what the evidence holds.
    asked = replace(claims, sealing=Sealing.WHOLE)
    wrong = [one.code for one in appraise(asked, policy, claims.sealed_in, ground) if not one.right]
    debug, migrate = (sample.known["expect"].get(name, False) for name in ("debug", "migrate_ma"))
    assert wrong == ["attestation.debug"] * debug + ["attestation.policy_bits"] * migrate
    if "strict_policy" in sample.known:
        assert (sample.known["strict_policy"] == "accept") == (not wrong)
    asking = policy.model_copy(update={"without_revocation": ()})
    wrong = [one.code for one in appraise(claims, asking, claims.sealed_in, ground) if not one.right]
    assert "attestation.revocation_unknown" in wrong


def test_what_is_cut_added_or_swapped_in_genuine_evidence_is_refused(sample: Sample) -> None:
    evidence = sample.evidence
    for report in (evidence.report[:-1], evidence.report + b"\0", b"\0" + evidence.report, b""):
        assert sample.refusal(replace(evidence, report=report)) == "attestation.malformed"
    for place, der in enumerate(evidence.chain):
        for other in (der[:-1], der + b"\0", b""):
            chain = (*evidence.chain[:place], other, *evidence.chain[place + 1 :])
            assert sample.refusal(replace(evidence, chain=chain)) == "attestation.malformed"
    leaf, middle, root = evidence.chain
    for chain in ((middle, leaf, root), (leaf, root, middle), (root, middle, leaf), (leaf, root, root)):
        code = sample.refusal(replace(evidence, chain=chain))
        assert code in ("attestation.malformed", "attestation.untrusted_root", "attestation.chain")


def test_genuine_evidence_travels_in_no_time_but_its_own(sample: Sample) -> None:
    leaf = x509.load_der_x509_certificate(sample.evidence.chain[0])
    second = timedelta(seconds=1)
    for at, code in (
        (leaf.not_valid_before_utc - second, "attestation.not_yet_valid"),
        (leaf.not_valid_before_utc, None),
        (leaf.not_valid_after_utc, None),
        (leaf.not_valid_after_utc + second, "attestation.expired"),
    ):
        if code is None:
            assert authenticate(sample.evidence, TrustStore.production(), at)
        else:
            sample.at = at
            assert sample.refusal(sample.evidence) == code


def test_no_genuine_certificate_stands_in_for_that_of_another_machine(
    shared_data: Callable[[str], Path],
) -> None:
    samples = {name: Sample(shared_data("attestation/snp"), name) for name in SAMPLES}
    for name, one in samples.items():
        for other_name, other in samples.items():
            if one.evidence.chain[0] != other.evidence.chain[0]:
                swapped = replace(one.evidence, chain=other.evidence.chain)
                one.at = other.at
                assert one.refusal(swapped) in (
                    "attestation.signature",
                    "attestation.expired",
                    "attestation.not_yet_valid",
                ), (name, other_name)


def test_a_flipped_bit_of_a_genuine_certificate_is_refused_at_sampled_places(sample: Sample) -> None:
    for place, der in enumerate(sample.evidence.chain):
        for bit in range(place, len(der) * 8, 397):
            changed = bytearray(der)
            changed[bit // 8] ^= 1 << bit % 8
            chain = (*sample.evidence.chain[:place], bytes(changed), *sample.evidence.chain[place + 1 :])
            sample.refusal(replace(sample.evidence, chain=chain))


def test_a_genuine_report_is_refused_under_simulated_trust(sample: Sample) -> None:
    with pytest.raises(AttestationError) as refused:
        authenticate(sample.evidence, TrustStore.simulated(), sample.at)
    assert refused.value.code == "attestation.untrusted_root"


@pytest.mark.parametrize("name", ["milan-test-vcek-invalid-legacy", "milan-test-vcek-invalid-new"])
def test_leaf_certificates_the_vendor_ships_as_invalid_are_refused(
    shared_data: Callable[[str], Path], name: str
) -> None:
    root = shared_data("attestation/snp")
    good = Sample(root, "milan-v2-vcek")
    leaf = (root / "negative" / f"{name}.der").read_bytes()
    expected = json.loads((root / "negative" / f"{name}.expected.json").read_text())
    evidence = replace(good.evidence, chain=(leaf, *good.evidence.chain[1:]))
    assert (good.refusal(evidence), expected["expect"]) == ("attestation.chain", "reject")


@pytest.mark.nightly
def test_every_flipped_bit_of_a_genuine_report_is_refused(
    sample: Sample, record_property: Callable[[str, object], None]
) -> None:
    for bit in spread(range(REPORT_BYTES * 8), record_property):
        changed = bytearray(sample.evidence.report)
        changed[bit // 8] ^= 1 << bit % 8
        sample.refusal(replace(sample.evidence, report=bytes(changed)))
        if sample.evidence.extras:
            blob = bytearray(sample.evidence.extras[HCL])
            blob[HEADER_BYTES : HEADER_BYTES + REPORT_BYTES] = changed
            extras = {**sample.evidence.extras, HCL: bytes(blob)}
            sample.refusal(replace(sample.evidence, report=bytes(changed), extras=extras))


@pytest.mark.nightly
def test_every_flipped_bit_of_a_genuine_certificate_is_refused(
    sample: Sample, record_property: Callable[[str, object], None]
) -> None:
    bits = [(place, bit) for place, der in enumerate(sample.evidence.chain) for bit in range(len(der) * 8)]
    for place, bit in spread(bits, record_property):
        changed = bytearray(sample.evidence.chain[place])
        changed[bit // 8] ^= 1 << bit % 8
        chain = (*sample.evidence.chain[:place], bytes(changed), *sample.evidence.chain[place + 1 :])
        sample.refusal(replace(sample.evidence, chain=chain))


def test_a_generation_of_processors_that_a_policy_does_not_name_is_refused(sample: Sample) -> None:
    line = line_of(sample)
    others = {one: versions for one, versions in ANY_VERSION.items() if one is not line}
    own = {line: ANY_VERSION[line]}
    for minimum, right in ((dict(ANY_VERSION), True), (own, True), (others, False), ({}, False)):
        finding = found(sample, minimum)["product-line"]
        assert (finding.right, finding.code) == (right, "attestation.unsupported")
        assert finding.detail.startswith(f"{line}; amd_lines names ")


@pytest.mark.parametrize("component", ["boot_loader", "tee", "snp", "microcode"])
def test_a_genuine_report_is_accepted_at_its_own_versions_and_refused_at_one_above_any_of_them(
    sample: Sample, component: str
) -> None:
    line, stated = line_of(sample), reported_tcb(SnpReport.parse(sample.evidence.report), line_of(sample))
    own = {name: value for name, value in stated.as_dict().items() if name != "fmc"}
    assert found(sample, {line: LowestVersions(**own)})["minimum-version"].right
    above = found(sample, {line: LowestVersions(**{**own, component: own[component] + 1})})["minimum-version"]
    assert (above.right, above.code) == (False, "attestation.tcb_unacceptable")
    told = f"; minimum_tcb isn't: {component} {own[component]} is below {own[component] + 1}"
    assert above.detail == ", ".join(f"{name} {version}" for name, version in own.items()) + told


def line_of(sample: Sample) -> ProductLine:
    return ProductLine.GENOA if "genoa" in sample.name else ProductLine.MILAN


def found(sample: Sample, minimum: dict[ProductLine, LowestVersions]) -> dict[str, Finding]:
    """What is found of a sample under these lowest versions, by name."""
    trust = TrustStore.production()
    claims = authenticate(sample.evidence, trust, sample.at)
    policy = AppraisalPolicy(
        measurements=(claims.measurement,), amd_lines=tuple(minimum), minimum_tcb=minimum
    )
    return {one.name: one for one in appraise(claims, policy, claims.sealed_in, Ground(trust, sample.at))}
