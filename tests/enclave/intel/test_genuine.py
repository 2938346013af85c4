"""Genuine quotes of SGX and TDX machines: chains are Intel's, ratings are those of Intel's own collateral."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.clock import fixed_clock
from cloister.enclave import (
    AppraisalPolicy,
    AttestationError,
    Binding,
    Evidence,
    TrustStore,
    Verdict,
    Verifier,
)
from cloister.enclave.attestation import (
    Collateral,
    ReferenceValues,
    Revocation,
    TcbStatus,
    Tee,
    authenticate,
)
from cloister.enclave.attestation.intel.certificates import pem_of, read_pem
from cloister.enclave.attestation.intel.platform import QuoteDetail, Standing
from cloister.enclave.attestation.intel.quote import Quote
from tests.enclave.intel.samples import NAMES, Sample
from tests.enclave.intel.scene import KEY, failing


@pytest.fixture(params=NAMES)
def sample(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> Sample:
    return Sample(shared_data, request.param)


def judged(
    sample: Sample, collateral: Collateral, at: datetime, evidence: Evidence | None = None, **policy: object
) -> Verdict:
    registers = sample.authenticate().registers
    named = {"mrtd", "rtmr0", "rtmr1", "rtmr2", "mrenclave"} & registers.keys()
    reference = ReferenceValues(tee=sample.tee, registers={name: registers[name] for name in named})
    accepted = AppraisalPolicy.model_validate({"references": (reference,), **policy})
    binding = Binding(nonce=bytes(32), key_id=KEY, job_id="job", policy_id=accepted.sha256)
    verifier = Verifier(TrustStore.production(), fixed_clock(at), collateral)
    return verifier.verify(evidence or sample.evidence, expected=binding, policy=accepted)


def test_a_genuine_quote_is_exactly_the_encoding_of_its_reading_and_what_follows_it_is_counted(
    sample: Sample,
) -> None:
    quote = Quote.parse(sample.report)
    assert quote.encode() == sample.trimmed
    assert quote.encode_signed() == quote.signed
    assert len(sample.report) - quote.length == sample.known["expect"]["trailing_bytes"]


def test_a_genuine_quote_is_authentic_and_says_what_is_known_of_it(sample: Sample) -> None:
    found = sample.authenticate()
    expected = sample.known["expect"]
    detail = found.detail
    assert isinstance(detail, QuoteDetail)
    assert not found.simulated
    assert found.debug == expected["debug"]
    assert found.sealed_in.hex() == expected["report_data"]
    assert detail.quote.version == expected["version"]
    assert detail.trailing_bytes == expected["trailing_bytes"]
    assert detail.quote_sha256 == hashlib.sha256(sample.trimmed).hexdigest()
    assert detail.platform.fmspc == expected["fmspc"]
    assert detail.platform.pceid == expected["pceid"]
    assert detail.pck_issuer == expected["pck_issuer"]
    if sample.tee is Tee.INTEL_SGX:
        assert found.measurement == expected["mrenclave"]
        assert found.registers["mrsigner"] == expected["mrsigner"]
        assert found.registers["isvprodid"] == str(expected["isvprodid"])
        assert found.registers["isvsvn"] == str(expected["isvsvn"])
        return
    assert found.measurement == expected["mrtd"]
    assert [found.registers[f"rtmr{index}"] for index in range(4)] == expected["rtmr"]
    assert found.registers["mrconfigid"] == expected["mrconfigid"]
    assert found.registers["tdattributes"] == expected["tdattributes"]
    assert detail.quote.body.tee_tcb_svn.hex() == expected["tee_tcb_svn"]
    assert detail.quote.body.sept_ve_disabled == expected["sept_ve_disable"]
    bound = {None: "absent", True: "00" * 48, False: "another"}[expected["mrservicetd_zero"]]
    if bound != "another":
        assert found.registers.get("mrservicetd", "absent") == bound
    else:
        assert any(bytes.fromhex(found.registers["mrservicetd"]))


def test_a_genuine_quote_is_rated_as_intels_collateral_rates_it(sample: Sample) -> None:
    for one in sample.known["appraisals"]:
        at = datetime.fromisoformat(one["verify_at"])
        found = authenticate(
            sample.evidence, TrustStore.production(), at, sample.collateral(one["collateral"])
        )
        assert found.tcb_status.value == (one["tcb_status"] or "Unknown")
        assert list(found.advisories) == one.get("advisory_ids", [])
        assert found.revocation is Revocation.CHECKED
        assert len(found.collateral) == 1
        assert [date.what.split()[0] for date in found.collateral_dates] == ["TCB", "QE", "PCK", "root"]


def test_the_appraisal_refuses_exactly_what_is_not_acceptable_of_a_genuine_quote(sample: Sample) -> None:
    expected = sample.known["expect"]
    for one in sample.known["appraisals"]:
        verdict = judged(
            sample, sample.collateral(one["collateral"]), datetime.fromisoformat(one["verify_at"])
        )
        wrong = {"binding"}
        if expected["debug"]:
            wrong.add("debug")
        if one["tcb_status"] != "UpToDate":
            wrong.add("tcb-status")
        if expected.get("sept_ve_disable") is False:
            wrong.add("page-removal")
        if expected.get("mrservicetd_zero") is False:
            wrong.add("service-domain")
        assert set(failing(verdict)) == wrong


def test_the_listed_mutations_of_a_genuine_quote_are_refused(sample: Sample) -> None:
    for mutation in sample.known["mutations"]:
        changed = bytearray(sample.trimmed)
        changed[mutation["offset"]] ^= mutation["xor"]
        with pytest.raises(AttestationError):
            sample.authenticate(bytes(changed))


def test_a_genuine_quote_is_refused_under_simulated_trust(sample: Sample) -> None:
    with pytest.raises(AttestationError) as refused:
        authenticate(sample.evidence, TrustStore.simulated(), sample.at)
    assert refused.value.code == "attestation.untrusted_root"


def test_without_collateral_a_genuine_quote_is_authentic_and_not_acceptable(sample: Sample) -> None:
    verdict = judged(sample, Collateral(), sample.at)
    assert verdict.claims is not None
    assert verdict.tcb_status is TcbStatus.UNKNOWN
    assert {"collateral", "tcb-status", "revocation"} <= set(failing(verdict))
    if not verdict.claims.debug:
        assert verdict.code == "attestation.collateral_missing"


def test_collateral_rates_nothing_before_it_was_issued_and_after_it_ended(sample: Sample) -> None:
    for one in sample.known["appraisals"]:
        collateral = sample.collateral(one["collateral"])
        at = datetime.fromisoformat(one["verify_at"])
        for moment in (at - timedelta(days=31), at + timedelta(days=31)):
            try:
                found = authenticate(sample.evidence, TrustStore.production(), moment, collateral)
            except AttestationError as error:
                if error.code != "attestation.not_yet_valid":
                    raise
                continue
            assert isinstance(found.detail, QuoteDetail)
            assert found.detail.standing is Standing.OUT_OF_DATE
            assert found.tcb_status is TcbStatus.UNKNOWN
            assert found.revocation is Revocation.UNKNOWN
            verdict = judged(sample, collateral, moment)
            assert verdict.code == ("attestation.debug" if found.debug else "attestation.collateral_expired")


def test_collateral_of_another_kind_of_platform_is_no_collateral_for_this_one(sample: Sample) -> None:
    used = {one["collateral"] for one in sample.known["appraisals"]}
    fmspc = sample.known["expect"]["fmspc"]
    others = [
        sample.collateral(f"collateral/{path.name}").documents
        for path in sorted((sample.root / "collateral").iterdir())
        if f"collateral/{path.name}" not in used and fmspc[2:6] not in path.name
    ]
    assert others
    found = authenticate(sample.evidence, TrustStore.production(), sample.at, Collateral.joined(*others))
    assert isinstance(found.detail, QuoteDetail)
    assert found.detail.standing is Standing.MISSING


def test_bytes_after_a_quote_change_nothing_but_their_count(sample: Sample) -> None:
    plain, padded = sample.authenticate(sample.trimmed), sample.authenticate(sample.trimmed + b"more" * 50)
    assert isinstance(plain.detail, QuoteDetail)
    assert isinstance(padded.detail, QuoteDetail)
    assert padded.detail.trailing_bytes == 200
    assert replace(padded.detail, trailing_bytes=0) == plain.detail
    assert dict(padded.registers) == dict(plain.registers)


def test_a_quote_is_not_taken_for_another_kind_of_hardware(sample: Sample) -> None:
    other = Tee.INTEL_SGX if sample.tee is Tee.INTEL_TDX else Tee.INTEL_TDX
    with pytest.raises(AttestationError) as refused:
        authenticate(Evidence(other, sample.report), TrustStore.production(), sample.at)
    assert refused.value.code == "attestation.malformed"


def test_a_chain_is_refused_before_its_certificates_are_valid_and_after(sample: Sample) -> None:
    for years, code in ((-20, "attestation.not_yet_valid"), (20, "attestation.expired")):
        moment = sample.at + timedelta(days=365 * years)
        with pytest.raises(AttestationError) as refused:
            authenticate(sample.evidence, TrustStore.production(), moment)
        assert refused.value.code == code


def test_another_platforms_certificate_is_refused_in_a_genuine_quote(
    sample: Sample, shared_data: Callable[[str], Path]
) -> None:
    name = "sgx/v3-debug-occlum" if sample.known["expect"]["fmspc"] != "00606a000000" else "tdx/v4-uptodate"
    other = Quote.parse(Sample(shared_data, name).report)
    quote = Quote.parse(sample.report)
    with pytest.raises(AttestationError) as refused:
        sample.authenticate(replace(quote, certificates=other.certificates).encode())
    assert refused.value.code in {"attestation.signature", "attestation.not_yet_valid"}


@pytest.mark.parametrize("order", [(0, 1), (0, 2, 1), (1, 0, 2), (0, 0, 2), (0, 1, 2, 2), (2, 2, 2), ()])
def test_certificates_left_out_repeated_or_in_another_order_are_refused(
    sample: Sample, order: tuple[int, ...]
) -> None:
    quote = Quote.parse(sample.report)
    ders = read_pem(quote.certificates)
    swapped = b"".join(pem_of(ders[index]) for index in order)
    with pytest.raises(AttestationError):
        sample.authenticate(replace(quote, certificates=swapped).encode())


def test_a_platform_below_up_to_date_is_accepted_only_where_its_state_and_each_advisory_are_named(
    shared_data: Callable[[str], Path],
) -> None:
    sample = Sample(shared_data, "sgx/v3-prod-confighardening")
    one = sample.known["appraisals"][0]
    named = {"accepted_advisories": ("INTEL-SA-00289", "INTEL-SA-00615")}
    for terms, right in (
        (named, False),
        ({**named, "accepted_tcb_statuses": ("SWHardeningNeeded",)}, False),
        ({"accepted_tcb_statuses": ("ConfigurationAndSWHardeningNeeded",)}, False),
        ({**named, "accepted_tcb_statuses": ("ConfigurationAndSWHardeningNeeded",)}, True),
    ):
        at = datetime.fromisoformat(one["verify_at"])
        verdict = judged(sample, sample.collateral(one["collateral"]), at, **terms)
        assert ("tcb-status" not in failing(verdict)) is right
        assert (verdict.code != "attestation.tcb_unacceptable") is right


def test_all_sets_of_collateral_at_hand_give_the_same_rating_as_the_newest_that_holds(
    shared_data: Callable[[str], Path],
) -> None:
    sample = Sample(shared_data, "tdx/v4-debug")
    sets = [sample.collateral(one["collateral"]).documents for one in sample.known["appraisals"]]
    for one in sample.known["appraisals"]:
        at = datetime.fromisoformat(one["verify_at"])
        found = authenticate(sample.evidence, TrustStore.production(), at, Collateral.joined(*sets))
        assert found.tcb_status.value == one["tcb_status"]
