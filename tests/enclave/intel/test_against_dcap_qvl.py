"""The same quotes and collateral in dcap-qvl, a verifier that others wrote: what it rates, we rate alike.

Where it gives no rating, it says which rule of its own refused; each of those is a finding of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from cloister.enclave import AttestationError, Evidence, TrustStore
from cloister.enclave.attestation import TcbStatus, authenticate
from cloister.enclave.attestation.intel.quote import Quote
from cloister.enclave.attestation.intel.reports import TdReport
from tests.enclave.intel.samples import NAMES, Sample

dcap_qvl = pytest.importorskip("dcap_qvl", reason="dcap-qvl is not installed")

OURS = {
    "No matching TCB level found": lambda claims: claims.tcb_status is TcbStatus.UNKNOWN,
    "Debug mode is enabled": lambda claims: claims.debug,
    "SEPT_VE_DISABLE is not enabled": lambda claims: not claims.detail.quote.body.sept_ve_disabled,
    "Invalid MR service TD": lambda claims: any(claims.detail.quote.body.mrservicetd or b""),
}


def theirs(report: bytes, collateral: bytes, at: datetime) -> tuple[str, list[str]] | str:
    parts = json.loads(collateral)
    for name in ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"):
        parts[name] = bytes.fromhex(parts[name])
    try:
        found = dcap_qvl.verify(report, dcap_qvl.QuoteCollateralV3(**parts), int(at.timestamp()))
    except ValueError as error:
        return str(error).removeprefix("Verification failed: ")
    return found.status, sorted(found.advisory_ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_genuine_quote_is_rated_as_dcap_qvl_rates_it(shared_data: Callable[[str], Path], name: str) -> None:
    sample = Sample(shared_data, name)
    for one in sample.known["appraisals"]:
        at = datetime.fromisoformat(one["verify_at"])
        collateral = sample.collateral(one["collateral"])
        found = authenticate(sample.evidence, TrustStore.production(), at, collateral)
        answer = theirs(sample.report, collateral.documents[0].data, at)
        if isinstance(answer, str):
            assert OURS[answer](found)
        else:
            assert answer == (found.tcb_status.value, list(found.advisories))


@pytest.mark.parametrize("name", NAMES)
def test_both_refuse_a_quote_that_was_changed_in_what_is_signed_and_we_refuse_any_other_change_too(
    shared_data: Callable[[str], Path], name: str
) -> None:
    sample = Sample(shared_data, name)
    signed = Quote.parse(sample.report).signed
    for one in sample.known["appraisals"][:1]:
        at = datetime.fromisoformat(one["verify_at"])
        collateral = sample.collateral(one["collateral"])
        for place in range(0, len(sample.trimmed), 211):
            report = bytearray(sample.trimmed)
            report[place] ^= 4
            if place < len(signed):
                assert isinstance(theirs(bytes(report), collateral.documents[0].data, at), str)
            evidence = Evidence(sample.tee, bytes(report))
            with pytest.raises(AttestationError):
                authenticate(evidence, TrustStore.production(), at, collateral)


def test_the_rules_that_only_one_of_the_two_has_are_about_trust_domains(
    shared_data: Callable[[str], Path],
) -> None:
    for name in NAMES:
        sample = Sample(shared_data, name)
        for one in sample.known["appraisals"]:
            error = one["dcap_qvl_0_7_0"].get("error", "").removeprefix("Verification failed: ")
            assert not error or error in OURS
            if error in {"SEPT_VE_DISABLE is not enabled", "Invalid MR service TD"}:
                assert isinstance(Quote.parse(sample.report).body, TdReport)
