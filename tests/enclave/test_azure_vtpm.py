"""Azure's guests: a report that vouches for a virtual TPM, whose quote answers and says what was booted."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave import AttestationError, TrustStore
from cloister.enclave.attestation import (
    CheckOutcome,
    Evidence,
    ReferenceValues,
    SnpReport,
    Status,
    Tee,
    authenticate,
)
from cloister.enclave.attestation.amd.azure import HCL, HEADER_BYTES, QUOTE, SIGNATURE, Quote, split_blob
from cloister.enclave.attestation.amd.platform import SnpDetail
from cloister.enclave.attestation.amd.report import REPORT_BYTES
from tests.enclave.attestation_scene import Scene, resigned, scene
from tests.enclave.test_snp_genuine import Sample
from tests.nightly import spread

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

AZURE = {"azure-milan-vtpm-1": b"challenge", "azure-genoa-vtpm": None}
ATTESTATION_KEY = rsa.generate_private_key(65537, 2048)
PCRS = hashlib.sha256(b"what was booted").digest()


@pytest.fixture(params=AZURE)
def sample(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> Sample:
    return Sample(shared_data("attestation/snp"), request.param)


def test_a_genuine_quote_is_vouched_for_by_the_report(sample: Sample) -> None:
    claims = authenticate(sample.evidence, TrustStore.production(), sample.at)
    expected = sample.known["expect"]
    assert isinstance(claims.detail, SnpDetail)
    machine = claims.detail.virtual_tpm
    assert machine is not None
    assert hashlib.sha256(machine.runtime).hexdigest() == expected["runtime_data_sha256"]
    assert claims.registers["measurement"] == expected["measurement"]
    assert claims.registers["pcr_selection"] == "000b03ffffff"
    assert claims.registers["pcr_digest"] == machine.quote.pcr_digest.hex()
    assert claims.sealed_in == machine.quote.extra_data
    assert machine.quote.clock > 0


def test_the_genuine_quotes_hold_what_was_asked_for(shared_data: Callable[[str], Path]) -> None:
    for name, asked in AZURE.items():
        one = Sample(shared_data("attestation/snp"), name)
        claims = authenticate(one.evidence, TrustStore.production(), one.at)
        if asked is not None:
            assert claims.sealed_in == asked
        assert len(claims.sealed_in) <= 48


def flips(sample: Sample, name: str, bits: range) -> None:
    for bit in bits:
        changed = bytearray(sample.evidence.extras[name])
        changed[bit // 8] ^= 1 << bit % 8
        extras = {**sample.evidence.extras, name: bytes(changed)}
        sample.refusal(replace(sample.evidence, extras=extras))


@pytest.mark.parametrize("name", [HCL, QUOTE, SIGNATURE])
def test_a_flipped_bit_beside_a_genuine_report_is_refused_at_sampled_places(
    sample: Sample, name: str
) -> None:
    flips(sample, name, range(0, len(sample.evidence.extras[name]) * 8, 61))


@pytest.mark.nightly
@pytest.mark.parametrize("name", [HCL, QUOTE, SIGNATURE])
def test_every_flipped_bit_beside_a_genuine_report_is_refused(
    sample: Sample, name: str, record_property: Callable[[str, object], None]
) -> None:
    size = len(sample.evidence.extras[name]) * 8
    for bit in spread(range(size), record_property):
        flips(sample, name, range(bit, bit + 1))


@pytest.mark.parametrize("name", [HCL, QUOTE, SIGNATURE])
def test_what_comes_beside_a_report_is_whole_and_nothing_else_does(sample: Sample, name: str) -> None:
    extras = dict(sample.evidence.extras)
    for changed in (
        {**extras, name: extras[name][:-1]},
        {**extras, name: extras[name] + b"\0"},
        {**extras, name: b""},
        {key: value for key, value in extras.items() if key != name},
        {**extras, "more": b""},
    ):
        assert sample.refusal(replace(sample.evidence, extras=changed)) in (
            "attestation.malformed",
            *(["attestation.signature"] if name == SIGNATURE else []),
        )


def test_without_its_quote_a_report_of_azure_answers_nothing_that_was_asked(sample: Sample) -> None:
    claims = authenticate(replace(sample.evidence, extras={}), TrustStore.production(), sample.at)
    assert claims.sealed_in[32:] == bytes(32)
    assert "pcr_digest" not in claims.registers


def test_the_index_holds_the_blob_and_zeros_and_nothing_else(shared_data: Callable[[str], Path]) -> None:
    index = (shared_data("attestation/snp") / "azure-milan-vtpm-1" / "hcl_report.bin").read_bytes()
    blob, report = split_blob(index)
    assert index == blob.ljust(len(index), b"\0")
    assert SnpReport.parse(report).encode() == report
    assert split_blob(blob) == (blob, report)
    for bad in (index + b"\1", index[: len(blob) - 1], index[:100], b"", b"\0" * 64, index[:8] + b"\xff" * 4):
        with pytest.raises(AttestationError) as refused:
            split_blob(bad)
        assert refused.value.code == "attestation.malformed"


@dataclass(frozen=True)
class Paravisor:
    """A simulated paravisor and its virtual TPM; the fields are what a test changes."""

    key: rsa.RSAPrivateKey = ATTESTATION_KEY
    keys: object = None
    runtime: bytes | None = None
    runtime_fields: tuple[int, int, int] = (1, 2, 1)
    header: tuple[bytes, int, int, int, bytes] = (b"HCLA", 2, 2, 0, bytes(12))
    selection: bytes = bytes.fromhex("00000001000b03ffffff")
    magic: bytes = bytes.fromhex("ff5443478018")
    safe: int = 1
    digest: bytes = PCRS
    signed_with: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)

    def text(self) -> bytes:
        if self.runtime is not None:
            return self.runtime
        numbers = self.key.public_key().public_numbers()
        modulus = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
        key = {
            "kid": "HCLAkPub",
            "key_ops": ["sign"],
            "kty": "RSA",
            "e": "AQAB",
            "n": base64.urlsafe_b64encode(modulus).rstrip(b"=").decode(),
        }
        changes = self.keys if isinstance(self.keys, dict) else {}
        listed = self.keys if isinstance(self.keys, list) else [{**key, **changes}]
        return json.dumps({"keys": listed, "user-data": ""}).encode()

    def quote(self, extra_data: bytes) -> bytes:
        return (
            self.magic
            + sized(bytes.fromhex("000b") + bytes(32))
            + sized(extra_data)
            + struct.pack(">QIIB", 5, 1, 2, self.safe)
            + bytes(8)
            + self.selection
            + sized(self.digest)
        )

    def answer(self, one: Scene, asked: bytes | None = None) -> Evidence:
        text = self.text()
        plain = one.platform.quote(hashlib.sha256(text).digest() + bytes(32))
        magic, version, request, status, reserved = self.header
        size = HEADER_BYTES + REPORT_BYTES + 20 + len(text)
        blob = (
            struct.pack("<4sIIII12s", magic, version, size, request, status, reserved)
            + plain.report
            + struct.pack("<IIIII", 20 + len(text), *self.runtime_fields, len(text))
            + text
        )
        extra = hashlib.sha256(one.binding.report_data()).digest() if asked is None else asked
        quote = self.quote(extra)
        signature = self.key.sign(quote, padding.PKCS1v15(), self.signed_with)
        return replace(plain, extras={HCL: blob, QUOTE: quote, SIGNATURE: signature})


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def azure_scene(**more: str) -> Scene:
    one = scene()
    registers = {
        "measurement": one.platform.measurement.hex(),
        "pcr_selection": "000b03ffffff",
        "pcr_digest": PCRS.hex(),
        **more,
    }
    references = (ReferenceValues(tee=Tee.AMD_SEV_SNP, registers=registers),)
    policy = one.policy.model_copy(update={"measurements": (), "references": references})
    return replace(one, policy=policy, binding=replace(one.binding, policy_id=policy.sha256))


def test_a_machine_that_answers_through_its_virtual_tpm_is_trusted_and_each_check_is_listed() -> None:
    one = azure_scene()
    verdict = one.verify(Paravisor().answer(one))
    assert verdict.code is None
    assert verdict.status is Status.TRUSTED
    assert all(check.outcome is CheckOutcome.PASSED for check in verdict.checks)
    quoted = next(check for check in verdict.checks if check.name == "tpm-quote")
    assert PCRS.hex()[:16] in quoted.detail


def test_a_measurement_alone_does_not_say_what_a_guest_below_a_paravisor_runs() -> None:
    one = azure_scene()
    evidence = Paravisor().answer(one)
    measurement = one.platform.measurement.hex()
    partial = ReferenceValues(tee=Tee.AMD_SEV_SNP, registers={"measurement": measurement})
    half = {"measurement": measurement, "pcr_digest": PCRS.hex()}
    for changes in (
        {"measurements": (measurement,), "references": ()},
        {"references": (partial,)},
        {"references": (ReferenceValues(tee=Tee.AMD_SEV_SNP, registers=half),)},
        {"references": (partial,), "measurements": (measurement,)},
    ):
        policy = one.policy.model_copy(update=changes)
        assert replace(one, policy=policy).verify(evidence).code == "attestation.measurement"
    elsewhere = azure_scene(pcr_digest="ab" * 32)
    assert elsewhere.verify(Paravisor().answer(elsewhere)).code == "attestation.measurement"
    assert one.verify(Paravisor(digest=bytes(32)).answer(one)).code == "attestation.measurement"
    fewer = Paravisor(selection=bytes.fromhex("00000001000b03ff0000"))
    assert one.verify(fewer.answer(one)).code == "attestation.measurement"


def test_a_quote_answers_with_the_hash_of_what_was_asked_and_with_nothing_else() -> None:
    one = azure_scene()
    asked = one.binding.report_data()
    for wrong in (b"", asked, hashlib.sha512(asked).digest(), hashlib.sha256(asked).digest()[:31], bytes(32)):
        assert one.verify(Paravisor().answer(one, wrong)).code == "attestation.key_binding"


CHANGES: dict[str, tuple[Paravisor, str]] = {
    "a quote by another key": (Paravisor(signed_with=hashes.SHA384()), "signature"),
    "a shorter key": (Paravisor(key=rsa.generate_private_key(65537, 1024)), "alg"),
    "a longer key": (Paravisor(key=rsa.generate_private_key(65537, 3072)), "alg"),
    "an even modulus": (
        Paravisor(keys={"n": base64.urlsafe_b64encode(b"\xff" * 255 + b"\xfe").decode()[:-2]}),
        "alg",
    ),
    "another exponent": (Paravisor(keys={"e": "Aw"}), "alg"),
    "another kind of key": (Paravisor(keys={"kty": "EC"}), "alg"),
    "a key for encryption": (Paravisor(keys={"key_ops": ["encrypt"]}), "alg"),
    "no key": (Paravisor(keys=[]), "malformed"),
    "a key that is no object": (Paravisor(keys=["HCLAkPub"]), "malformed"),
    "a key by another name": (Paravisor(keys={"kid": "HCLEkPub"}), "malformed"),
    "a modulus that is no number": (Paravisor(keys={"n": "=="}), "malformed"),
    "a modulus that is none": (Paravisor(keys={"n": 7}), "malformed"),
    "no JSON": (Paravisor(runtime=b"{"), "malformed"),
    "another JSON": (Paravisor(runtime=b"[]"), "malformed"),
    "a name twice": (Paravisor(runtime=b'{"keys":[],"keys":[]}'), "malformed"),
    "a text that is too long": (Paravisor(runtime=b'"' + b"a" * 17000 + b'"'), "malformed"),
    "a deep text": (Paravisor(runtime=b"[" * 2000 + b"]" * 2000), "malformed"),
    "another blob": (Paravisor(header=(b"HCLB", 2, 2, 0, bytes(12))), "malformed"),
    "a blob with an error": (Paravisor(header=(b"HCLA", 2, 2, 1, bytes(12))), "malformed"),
    "a blob with reserved bytes": (Paravisor(header=(b"HCLA", 2, 2, 0, bytes(11) + b"\1")), "malformed"),
    "a blob of another version": (Paravisor(header=(b"HCLA", 3, 2, 0, bytes(12))), "unsupported"),
    "a blob of another request": (Paravisor(header=(b"HCLA", 2, 1, 0, bytes(12))), "unsupported"),
    "a TDX blob": (Paravisor(runtime_fields=(1, 4, 1)), "unsupported"),
    "another hash": (Paravisor(runtime_fields=(1, 2, 2)), "unsupported"),
    "another text version": (Paravisor(runtime_fields=(2, 2, 1)), "unsupported"),
    "no TPM's structure": (Paravisor(magic=bytes.fromhex("ff5443488018")), "malformed"),
    "a certification, no quote": (Paravisor(magic=bytes.fromhex("ff5443478017")), "malformed"),
    "PCRs of SHA-1": (Paravisor(selection=bytes.fromhex("00000001000403ffffff")), "unsupported"),
    "no PCRs": (Paravisor(selection=bytes.fromhex("00000000000b03ffffff")), "malformed"),
    "a digest of another length": (Paravisor(digest=bytes(20)), "malformed"),
    "a clock that is neither": (Paravisor(safe=2), "malformed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_unsound_answer_of_a_virtual_tpm_is_refused_with_its_own_code(name: str) -> None:
    made, code = CHANGES[name]
    one = azure_scene()
    assert one.verify(made.answer(one)).code == f"attestation.{code}"


def test_a_key_that_stands_twice_is_none() -> None:
    key = json.loads(Paravisor().text())["keys"][0]
    one = azure_scene()
    assert one.verify(Paravisor(keys=[key, key]).answer(one)).code == "attestation.malformed"


def test_a_text_that_the_report_does_not_vouch_for_is_refused() -> None:
    one = azure_scene()
    evidence = Paravisor().answer(one)
    other = Paravisor(key=rsa.generate_private_key(65537, 2048)).answer(one)
    stolen = bytearray(other.extras[HCL])
    stolen[HEADER_BYTES : HEADER_BYTES + REPORT_BYTES] = evidence.report
    mixed = replace(evidence, extras={**other.extras, HCL: bytes(stolen)})
    assert one.verify(mixed).code == "attestation.key_binding"
    assert one.verify(replace(evidence, extras=other.extras)).code == "attestation.malformed"


def test_report_data_holds_the_hash_and_zeros() -> None:
    one = azure_scene()
    evidence = Paravisor().answer(one)
    report = SnpReport.parse(evidence.report)
    other = resigned(one.platform, replace(report, report_data=report.report_data[:32] + b"\1" * 32))
    blob = bytearray(evidence.extras[HCL])
    blob[HEADER_BYTES : HEADER_BYTES + REPORT_BYTES] = other.report
    changed = replace(evidence, report=other.report, extras={**evidence.extras, HCL: bytes(blob)})
    assert one.verify(changed).code == "attestation.key_binding"


def test_evidence_of_azure_survives_its_encoding() -> None:
    one = azure_scene()
    evidence = Paravisor().answer(one)
    assert one.verify(Evidence.decode(evidence.encode())).status is Status.TRUSTED


@given(st.binary(max_size=300))
def test_garbage_in_a_quotes_place_raises_nothing_but_the_rooms_error(data: bytes) -> None:
    with pytest.raises(AttestationError):
        Quote.parse(data)


@given(st.binary(max_size=2000), st.binary(max_size=10))
def test_garbage_in_a_blobs_place_raises_nothing_but_the_rooms_error(data: bytes, more: bytes) -> None:
    for blob in (data, b"HCLA" + data, b"HCLA\2\0\0\0" + (8 + len(data)).to_bytes(4, "little") + data + more):
        with pytest.raises(AttestationError):
            split_blob(blob)
