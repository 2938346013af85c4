"""Genuine Nitro documents: read whole, authentic under AWS's root, and no change of them is accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cbor2
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.attestation import (
    AppraisalPolicy,
    Claims,
    Evidence,
    ReferenceValues,
    Revocation,
    Steps,
    Tee,
    TrustStore,
    appraise,
)
from cloister.enclave.attestation.authenticator import Ground, authenticator
from cloister.enclave.attestation.aws.document import SignedDocument, sign1
from cloister.enclave.attestation.aws.revocation import SHORT_LIFE
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError
from tests.enclave.edits import edits, flipped
from tests.nightly import spread

SAMPLES = (
    "debug-2022-10-pubkey",
    "debug-2023-01",
    "debug-2023-09-a",
    "debug-2023-09-b",
    "debug-2023-09-c",
    "debug-2024-11",
    "prod-2022-10",
)
NITRO = authenticator(Tee.AWS_NITRO)
FACTS = VerifiedFacts()
TODAY = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
CODES = {"root": "malformed"}


class Sample:
    """One document, and what is known about it."""

    def __init__(self, root: Path, name: str) -> None:
        self.known = json.loads((root / name / "expected.json").read_text())
        self.document = (root / name / "document.cbor").read_bytes()
        self.at = datetime.fromtimestamp(self.known["verify_at_ms"] / 1000, UTC)

    def ground(self, at: datetime | None = None) -> Ground:
        return Ground(TrustStore.production(), at or self.at, facts=FACTS)

    def authenticate(self, document: bytes | None = None, at: datetime | None = None) -> Claims:
        evidence = Evidence(Tee.AWS_NITRO, self.document if document is None else document)
        return NITRO.authenticate(evidence, self.ground(at), Steps(NITRO.STEPS))

    def refused(self, document: bytes, at: datetime | None = None) -> str:
        with pytest.raises(AttestationError) as refused:
            self.authenticate(document, at)
        return refused.value.code.removeprefix("attestation.")


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> Sample:
    return Sample(shared_data("attestation/nitro"), request.param)


@pytest.fixture
def production(shared_data: Callable[[str], Path]) -> Sample:
    return Sample(shared_data("attestation/nitro"), "prod-2022-10")


def test_a_genuine_document_is_exactly_the_encoding_of_its_reading(sample: Sample) -> None:
    read = SignedDocument.parse(sample.document)
    payload = cbor2.loads(sample.document)[2]
    assert read.document.payload() == payload
    assert sign1(payload, read.signature) == sample.document


def test_a_genuine_document_is_authentic_and_says_what_is_expected(sample: Sample) -> None:
    claims, expected = sample.authenticate(), sample.known["expect"]
    document = claims.detail.document
    assert not claims.simulated
    assert claims.debug == expected["debug"]
    assert claims.revocation is Revocation.UNKNOWN
    assert document.module_id == expected["module_id"]
    assert "module_id" not in claims.registers
    assert sorted(document.pcrs) == expected["pcr_indices"]
    zero = "00" * 48
    for index in expected["pcr_indices"]:
        assert claims.registers[f"pcr{index}"] == expected["pcrs"].get(str(index), zero)
    for name in ("public_key", "user_data", "nonce"):
        value = getattr(document, name)
        assert (None if value is None else value.hex()) == expected[name]
    assert claims.sealed_in.hex() == (expected["user_data"] or "")


def test_the_genuine_authorities_that_need_a_list_are_those_that_name_its_address(sample: Sample) -> None:
    """The regional and the zonal authority; those of instance and module end within a day."""
    claims = sample.authenticate()
    chain = [x509.load_der_x509_certificate(der) for der in claims.detail.document.chain]
    naming = [
        any(isinstance(one.value, x509.CRLDistributionPoints) for one in certificate.extensions)
        for certificate in chain
    ]
    lives = [one.not_valid_after_utc - one.not_valid_before_utc > SHORT_LIFE for one in chain]
    assert naming == [False, False, True, True, False]
    assert lives[:-1] == naming[:-1]


def test_a_document_behind_tag_18_is_the_same_and_behind_another_none(sample: Sample) -> None:
    assert sample.authenticate(b"\xd2" + sample.document) == sample.authenticate()
    for tag in (b"\xd2\xd2", b"\xd1", b"\xd8\x12", b"\xd8\x3d\xd2"):
        assert sample.refused(tag + sample.document) == "malformed"


def test_the_listed_mutations_are_refused_with_their_codes(sample: Sample) -> None:
    for mutation in sample.known["mutations"]:
        changed = bytearray(sample.document)
        changed[mutation["offset"]] ^= mutation["xor"]
        expected = mutation["spike_reject_code"]
        code = sample.refused(bytes(changed))
        assert code == CODES.get(expected, expected) or mutation["region"].endswith("_cert"), mutation


def test_every_sample_is_out_of_date_today_and_not_valid_before_its_window(sample: Sample) -> None:
    first, last = (datetime.fromisoformat(one) for one in sample.known["verify_at_window"])
    assert sample.known["expect"]["at_now"] == "reject:expired"
    assert sample.refused(sample.document, TODAY) == "expired"
    assert sample.refused(sample.document, last + timedelta(seconds=1)) == "expired"
    assert sample.refused(sample.document, first - timedelta(seconds=1)) == "not_yet_valid"
    sample.authenticate(at=first)
    sample.authenticate(at=last)


def test_debug_mode_is_refused_and_a_production_enclave_accepted_for_its_registers(sample: Sample) -> None:
    claims = sample.authenticate()
    registers = {name: claims.registers[name] for name in ("pcr0", "pcr1", "pcr2")}
    policy = AppraisalPolicy(
        references=(ReferenceValues(tee=Tee.AWS_NITRO, registers=registers),),
        without_revocation=(Tee.AWS_NITRO,),
    )
    wrong = [one.code for one in appraise(claims, policy, claims.sealed_in, sample.ground()) if not one.right]
    if sample.known["strict_policy"] == "accept":
        assert wrong == []
    else:
        assert sample.known["strict_policy"] == "reject:debug"
        assert wrong == ["attestation.debug"]


def test_other_registers_and_other_sealed_in_bytes_are_refused(production: Sample) -> None:
    claims = production.authenticate()
    registers = {**{name: claims.registers[name] for name in ("pcr0", "pcr1")}, "pcr2": "ab" * 48}
    policy = AppraisalPolicy(
        references=(ReferenceValues(tee=Tee.AWS_NITRO, registers=registers),),
        without_revocation=(Tee.AWS_NITRO,),
    )
    wrong = {one.code for one in appraise(claims, policy, bytes(64), production.ground()) if not one.right}
    assert wrong == {"attestation.measurement", "attestation.key_binding"}


def test_a_genuine_document_is_refused_under_simulated_trust(production: Sample) -> None:
    with pytest.raises(AttestationError) as refused:
        NITRO.authenticate(
            Evidence(Tee.AWS_NITRO, production.document),
            Ground(TrustStore.simulated(), production.at),
            Steps(NITRO.STEPS),
        )
    assert refused.value.code == "attestation.untrusted_root"


def accepted(one: Sample, documents: Iterable[bytes]) -> int:
    count = 0
    for document in documents:
        try:
            one.authenticate(document)
            count += 1
        except AttestationError:
            pass
    return count


def test_a_flipped_bit_is_refused_at_sampled_positions(sample: Sample) -> None:
    bits = range(0, len(sample.document) * 8, 149)
    assert accepted(sample, (flipped(sample.document, bit) for bit in bits)) == 0


@pytest.mark.nightly
def test_every_flipped_bit_is_refused(sample: Sample, record_property: Callable[[str, object], None]) -> None:
    bits = spread(range(len(sample.document) * 8), record_property)
    assert accepted(sample, (flipped(sample.document, bit) for bit in bits)) == 0


@given(st.data())
def test_a_truncated_extended_or_overwritten_document_is_refused(
    production: Sample, data: st.DataObject
) -> None:
    production.refused(data.draw(edits(production.document)))


def test_certificates_of_another_document_are_refused(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("attestation/nitro")
    first, second = Sample(root, "debug-2023-09-a"), Sample(root, "debug-2023-09-c")
    one, other = cbor2.loads(first.document), cbor2.loads(second.document)
    ours, theirs = cbor2.loads(one[2]), cbor2.loads(other[2])

    def with_payload(**changes: object) -> bytes:
        return cbor2.dumps([one[0], {}, cbor2.dumps({**ours, **changes}), one[3]])

    assert first.refused(with_payload(certificate=theirs["certificate"])) in ("chain", "signature")
    assert first.refused(with_payload(cabundle=theirs["cabundle"])) in ("chain", "signature")
    assert first.refused(with_payload(cabundle=ours["cabundle"][::-1])) in ("untrusted_root", "chain")
    assert first.refused(with_payload(cabundle=ours["cabundle"][:-1])) == "chain"
    assert first.refused(with_payload(cabundle=ours["cabundle"][1:])) == "untrusted_root"
    assert first.refused(cbor2.dumps([one[0], {}, one[2], other[3]])) == "signature"


def test_the_certificates_are_the_documents_own(production: Sample) -> None:
    for changed in (
        replace(Evidence(Tee.AWS_NITRO, production.document), chain=(b"x",)),
        replace(Evidence(Tee.AWS_NITRO, production.document), extras={"a": b"x"}),
    ):
        with pytest.raises(AttestationError) as refused:
            NITRO.authenticate(changed, production.ground(), Steps(NITRO.STEPS))
        assert refused.value.code == "attestation.malformed"


def test_what_was_verified_once_is_judged_anew_for_time_and_trust(production: Sample) -> None:
    facts = VerifiedFacts()
    evidence = Evidence(Tee.AWS_NITRO, production.document)
    for _ in range(2):
        NITRO.authenticate(
            evidence, Ground(TrustStore.production(), production.at, facts=facts), Steps(NITRO.STEPS)
        )
    for ground, code in (
        (Ground(TrustStore.production(), TODAY, facts=facts), "expired"),
        (Ground(TrustStore.simulated(), production.at, facts=facts), "untrusted_root"),
    ):
        with pytest.raises(AttestationError) as refused:
            NITRO.authenticate(evidence, ground, Steps(NITRO.STEPS))
        assert refused.value.code == f"attestation.{code}"
