"""Genuine transcripts and manifests of NVIDIA's: read whole, authentic, and no change of them is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.attestation import (
    AppraisalPolicy,
    Claims,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    GpuMode,
    Revocation,
    Steps,
    Tee,
    TrustStore,
    appraise,
)
from cloister.enclave.attestation.authenticator import Ground, authenticator
from cloister.enclave.attestation.nvidia.manifest import read_manifest
from cloister.enclave.attestation.nvidia.transcript import Transcript
from cloister.enclave.attestation.nvidia.xmldsig import open_signed
from cloister.enclave.attestation.trust import NVIDIA_MANIFEST_ROOT
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError
from tests.enclave.edits import edits, flipped
from tests.nightly import spread

SAMPLES = (
    "blackwell-575.32",
    "hopper-535.86-no-fwid",
    "hopper-550.90",
    "hopper-570.124",
    "hopper-590.12-ppcie-a",
    "nvswitch-ls10",
)
MANIFESTS = (
    "DRIVER_570.124.03_expired.xml",
    "DRIVER_GH100_550.144.03.xml",
    "DRIVER_incorrect_signature.xml",
    "VBIOS_1010_0200_882_96005E0001.swidtag",
    "VBIOS_96005E0001_mismatch.xml",
)
GPU = authenticator(Tee.NVIDIA_GPU)
FACTS = VerifiedFacts()
BOTH_SIGNERS_VALID = datetime(2025, 1, 15, tzinfo=UTC)


class Sample:
    """One sample folder: transcript, chain, and what is known about it."""

    def __init__(self, root: Path, name: str) -> None:
        self.known = json.loads((root / name / "expected.json").read_text())
        pem = (root / name / "cert_chain.pem").read_bytes()
        chain = tuple(one.public_bytes(Encoding.DER) for one in x509.load_pem_x509_certificates(pem))
        self.evidence = Evidence(Tee.NVIDIA_GPU, (root / name / "report.bin").read_bytes(), chain)
        self.at = datetime.fromisoformat(self.known["verify_at"])

    def ground(self, at: datetime | None = None, *documents: CollateralDocument) -> Ground:
        return Ground(TrustStore.production(), at or self.at, Collateral(documents), FACTS)

    def authenticate(self, evidence: Evidence | None = None, at: datetime | None = None) -> Claims:
        return GPU.authenticate(evidence or self.evidence, self.ground(at), Steps(GPU.STEPS))

    def refused(self, evidence: Evidence, at: datetime | None = None) -> str:
        with pytest.raises(AttestationError) as refused:
            self.authenticate(evidence, at)
        return refused.value.code.removeprefix("attestation.")


@pytest.fixture
def folder(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("attestation/nvgpu")


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, folder: Path) -> Sample:
    return Sample(folder, request.param)


@pytest.fixture
def hopper(folder: Path) -> Sample:
    return Sample(folder, "hopper-570.124")


def manifest_at(folder: Path, name: str) -> CollateralDocument:
    return CollateralDocument(CollateralKind.NVIDIA_RIM, (folder / "rims" / name).read_bytes())


def test_a_genuine_transcript_is_exactly_the_encoding_of_its_reading(sample: Sample) -> None:
    assert Transcript.parse(sample.evidence.report).encode() == sample.evidence.report


def test_a_genuine_gpu_is_authentic_under_the_pinned_root_and_says_what_is_expected(sample: Sample) -> None:
    claims, expected = sample.authenticate(), sample.known["expect"]
    transcript = claims.detail.transcript
    assert expected["signature"] == "valid"
    assert not claims.simulated
    assert not claims.debug
    assert claims.revocation is Revocation.UNKNOWN
    assert claims.sealed_in.hex() == expected["nonce"]
    assert transcript.driver_version == expected["driver_version"]
    assert transcript.opaque[6].hex() == expected["vbios_field_hex"]
    assert len(transcript.measurements) == expected["n_measurements"]
    stated = {11: "nvdec0_status", 21: "protected_pcie", 36: "feature_flag", 20: "fwid_in_report"}
    for number, name in stated.items():
        assert (transcript.opaque[number].hex() if number in transcript.opaque else None) == expected[name]
    if expected["fwid_equals_leaf_certificate"]:
        assert transcript.fwid is not None
        assert claims.registers["fwid"] == transcript.fwid.hex()


def test_a_gpu_without_a_firmware_id_and_a_switch_are_authentic_but_refused(folder: Path) -> None:
    policy = AppraisalPolicy(measurements=("ab" * 48,))
    found = {}
    for name in ("hopper-535.86-no-fwid", "nvswitch-ls10", "hopper-590.12-ppcie-a", "hopper-570.124"):
        one = Sample(folder, name)
        claims = one.authenticate()
        findings = appraise(claims, policy, claims.sealed_in, one.ground())
        found[name] = {finding.name for finding in findings if not finding.right}
    at_least = {"revocation", "driver-manifest", "vbios-manifest", "measurement"}
    assert found["hopper-570.124"] == at_least
    assert found["hopper-535.86-no-fwid"] == at_least | {"firmware-id"}
    assert found["nvswitch-ls10"] == at_least | {"firmware-id", "device"}
    assert found["hopper-590.12-ppcie-a"] == at_least | {"gpu-mode"}


def test_the_mode_of_each_genuine_gpu_is_read(folder: Path) -> None:
    modes = {name: Transcript.parse(Sample(folder, name).evidence.report).mode for name in SAMPLES}
    assert {name for name, mode in modes.items() if mode is GpuMode.PROTECTED_PCIE} == {
        "hopper-590.12-ppcie-a"
    }
    assert None not in modes.values()


def test_the_signature_that_the_vendor_ships_as_invalid_is_refused(folder: Path) -> None:
    one = Sample(folder, "hopper-invalid-signature")
    assert one.known["expect"]["signature"] == "invalid"
    assert one.refused(one.evidence) == "signature"


def test_one_byte_behind_a_genuine_transcript_is_malformed_and_without_it_all_is_well(folder: Path) -> None:
    one = Sample(folder, "hopper-trailing-byte")
    assert one.refused(one.evidence) == "malformed"
    trimmed = replace(one.evidence, report=one.evidence.report[:-1])
    assert one.authenticate(trimmed).sealed_in.hex() == one.known["expect"]["nonce"]
    for mutation in one.known["mutations"]:
        changed = bytearray(trimmed.report)
        if mutation["offset"] < len(changed):
            changed[mutation["offset"]] ^= mutation["xor"]
            one.refused(replace(trimmed, report=bytes(changed)))


def test_the_listed_mutations_of_a_genuine_gpu_are_refused_with_their_codes(sample: Sample) -> None:
    for mutation in sample.known["mutations"]:
        changed = bytearray(sample.evidence.report)
        changed[mutation["offset"]] ^= mutation["xor"]
        assert (
            sample.refused(replace(sample.evidence, report=bytes(changed))) == mutation["spike_reject_code"]
        )


def accepted(one: Sample, reports: Iterable[bytes]) -> int:
    count = 0
    for report in reports:
        try:
            one.authenticate(replace(one.evidence, report=report))
            count += 1
        except AttestationError:
            pass
    return count


def test_a_flipped_bit_of_a_genuine_transcript_is_refused_at_sampled_positions(hopper: Sample) -> None:
    bits = range(0, len(hopper.evidence.report) * 8, 211)
    assert accepted(hopper, (flipped(hopper.evidence.report, bit) for bit in bits)) == 0


@pytest.mark.nightly
def test_every_flipped_bit_of_a_genuine_transcript_is_refused(
    sample: Sample, record_property: Callable[[str, object], None]
) -> None:
    bits = spread(range(len(sample.evidence.report) * 8), record_property)
    assert accepted(sample, (flipped(sample.evidence.report, bit) for bit in bits)) == 0


def test_a_flipped_bit_of_a_genuine_chain_is_refused_at_sampled_positions(hopper: Sample) -> None:
    chain = hopper.evidence.chain
    for index, der in enumerate(chain):
        for bit in range(0, len(der) * 8, 97):
            changed = (*chain[:index], flipped(der, bit), *chain[index + 1 :])
            hopper.refused(replace(hopper.evidence, chain=changed))


@given(st.data())
def test_a_truncated_extended_or_overwritten_transcript_is_refused(
    hopper: Sample, data: st.DataObject
) -> None:
    hopper.refused(replace(hopper.evidence, report=data.draw(edits(hopper.evidence.report))))


@given(st.binary(max_size=5000))
def test_garbage_behind_a_genuine_request_brings_nothing_but_a_refusal(hopper: Sample, data: bytes) -> None:
    hopper.refused(replace(hopper.evidence, report=hopper.evidence.report[:37] + data))


def test_certificates_left_out_swapped_or_of_another_gpu_are_refused(folder: Path, hopper: Sample) -> None:
    leaf, boot, provisioner, identity, top = hopper.evidence.chain
    other = Sample(folder, "hopper-550.90").evidence.chain
    codes = {
        hopper.refused(replace(hopper.evidence, chain=chain))
        for chain in (
            (),
            (leaf,),
            (leaf, boot, provisioner, identity),
            (leaf, boot, provisioner, identity, top, top),
            (boot, leaf, provisioner, identity, top),
            (leaf, other[1], provisioner, identity, top),
            (leaf, provisioner, boot, identity, top),
            (leaf, boot, provisioner, identity, identity),
            other,
        )
    }
    assert codes == {"malformed", "chain", "untrusted_root", "signature"}


def test_a_genuine_gpu_is_refused_before_its_certificates_are_valid(hopper: Sample) -> None:
    assert hopper.refused(hopper.evidence, datetime(2020, 1, 1, tzinfo=UTC)) == "not_yet_valid"


def test_a_genuine_gpu_is_refused_under_simulated_trust(hopper: Sample) -> None:
    with pytest.raises(AttestationError) as refused:
        GPU.authenticate(hopper.evidence, Ground(TrustStore.simulated(), hopper.at), Steps(GPU.STEPS))
    assert refused.value.code == "attestation.untrusted_root"


@pytest.mark.parametrize("name", MANIFESTS)
def test_each_genuine_manifest_is_good_or_refused_as_expected(folder: Path, name: str) -> None:
    known = json.loads((folder / "rims" / "expected.json").read_text())[name]
    document = manifest_at(folder, name)
    if known["xmldsig"] != "valid":
        with pytest.raises(AttestationError) as refused:
            read_manifest(document, VerifiedFacts())
        assert refused.value.code == "attestation.collateral"
        return
    manifest = read_manifest(document, VerifiedFacts())
    assert manifest.chain.root_sha256 == NVIDIA_MANIFEST_ROOT
    assert len(manifest.active) == known.get("active_measurements", 12)
    signer = manifest.chain.leaf
    assert [str(signer.not_before.date()), str(signer.not_after.date())] == known["signer_valid"]


def test_a_genuine_gpu_matches_its_genuine_firmware_manifest_and_not_the_one_that_differs(
    folder: Path,
) -> None:
    one = Sample(folder, "hopper-535.86-no-fwid")
    good = manifest_at(folder, "VBIOS_1010_0200_882_96005E0001.swidtag")
    differs = manifest_at(folder, "VBIOS_96005E0001_mismatch.xml")
    transcript = Transcript.parse(one.evidence.report)
    digests = tuple(digest for _, digest in transcript.measurements)

    def mismatches(document: CollateralDocument) -> tuple[int, ...]:
        return read_manifest(document, FACTS).mismatches(digests, nvdec0_enabled=transcript.nvdec0_enabled)

    assert mismatches(good) == ()
    assert mismatches(differs) == (9,)

    def found(at: datetime, *documents: CollateralDocument) -> dict[str, str]:
        ground = one.ground(at, *documents)
        claims = GPU.authenticate(one.evidence, ground, Steps(GPU.STEPS))
        policy = AppraisalPolicy(measurements=("ab" * 48,))
        findings = appraise(claims, policy, claims.sealed_in, ground)
        return {one.name: one.code for one in findings if not one.right}

    assert "vbios-manifest" not in found(BOTH_SIGNERS_VALID, good, differs)
    assert found(BOTH_SIGNERS_VALID, differs)["measurement"] == "attestation.measurement"
    assert found(one.at, good)["vbios-manifest"] == "attestation.collateral_expired"


def hostile_documents(genuine: bytes) -> dict[str, bytes]:
    bomb = b'<!DOCTYPE a [<!ENTITY x "aaaaaaaaaa"><!ENTITY y "&x;&x;&x;&x;&x;&x;">]>'
    outside = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    signature = genuine[genuine.index(b"<ds:Signature ") : genuine.index(b"</ds:Signature>") + 15]
    return {
        "empty": b"",
        "no XML": b"\x00\xff",
        "an entity bomb": bomb + genuine,
        "a file as entity": outside + genuine,
        "a declaration in UTF-16": '<?xml version="1.0" encoding="UTF-16"?><a/>'.encode("utf-16"),
        "a comment": genuine.replace(b"<ds:SignedInfo>", b"<!-- --><ds:SignedInfo>"),
        "a processing instruction": genuine.replace(b"<ns0:Payload", b"<?x y?><ns0:Payload", 1),
        "an xml:base": genuine.replace(b"<ns0:Payload", b'<ns0:Payload xml:base="x"', 1),
        "very deep": b"<a>" * 20000 + b"</a>" * 20000,
        "very long": genuine.replace(b"    <ns0:Payload", b" " * 300000 + b"<ns0:Payload", 1),
        "a signature alone": b'<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/>',
        "no signature": genuine.replace(signature, b""),
        "two signatures": genuine.replace(signature, signature * 2),
        "a signature elsewhere": genuine.replace(signature, b"").replace(
            b"<ns0:Meta", signature + b"<ns0:Meta", 1
        ),
        "a relative namespace": genuine.replace(b'xmlns:SHA384="http://', b'xmlns:SHA384="', 1),
        "a signature over a part": genuine.replace(b'URI=""', b'URI="#x"'),
        "another algorithm": genuine.replace(b"ecdsa-sha384", b"hmac-sha384"),
        "another transform": genuine.replace(b"#enveloped-signature", b"#base64"),
        "content behind the signature": genuine.replace(
            b"</SoftwareIdentity>", b"<ns0:Payload/></SoftwareIdentity>"
        ),
        "a digest of something else": genuine.replace(b'index="63"', b'index="64"', 1),
        "wrapped in another document": b"<a>" + genuine + b"</a>",
    }


def test_hostile_documents_are_refused_as_collateral(folder: Path) -> None:
    genuine = (folder / "rims" / "DRIVER_GH100_550.144.03.xml").read_bytes()
    for name, document in hostile_documents(genuine).items():
        assert document != genuine, name
        with pytest.raises(AttestationError) as refused:
            read_manifest(CollateralDocument(CollateralKind.NVIDIA_RIM, document), VerifiedFacts())
        assert refused.value.code == "attestation.collateral", name


def test_what_is_read_of_a_manifest_is_the_tree_that_was_hashed(folder: Path) -> None:
    genuine = (folder / "rims" / "DRIVER_GH100_550.144.03.xml").read_bytes()
    assert b"Signature" not in b"".join(str(one.tag).encode() for one in open_signed(genuine).root.iter())


@given(st.data())
def test_an_edited_manifest_says_nothing_else_or_is_refused(folder: Path, data: st.DataObject) -> None:
    genuine = (folder / "rims" / "DRIVER_GH100_550.144.03.xml").read_bytes()
    changed = CollateralDocument(CollateralKind.NVIDIA_RIM, data.draw(edits(genuine)))
    original = read_manifest(CollateralDocument(CollateralKind.NVIDIA_RIM, genuine), FACTS)
    with suppress(AttestationError):
        read = read_manifest(changed, VerifiedFacts())
        assert (read.version, read.product, dict(read.active)) == (
            original.version,
            original.product,
            dict(original.active),
        )


@pytest.mark.nightly
def test_no_flipped_bit_changes_what_a_manifest_says(
    folder: Path, record_property: Callable[[str, object], None]
) -> None:
    genuine = (folder / "rims" / "DRIVER_GH100_550.144.03.xml").read_bytes()
    original = read_manifest(CollateralDocument(CollateralKind.NVIDIA_RIM, genuine), FACTS)
    for bit in spread(range(len(genuine) * 8), record_property):
        changed = CollateralDocument(CollateralKind.NVIDIA_RIM, flipped(genuine, bit))
        try:
            read = read_manifest(changed, VerifiedFacts())
        except AttestationError:
            continue
        assert dict(read.active) == dict(original.active)
        assert read.version == original.version
