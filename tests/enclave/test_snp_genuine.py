"""Genuine vendor-signed reports: the layout is the real one, the chains are AMD's, mutations are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloister.enclave import AttestationError, TrustStore
from cloister.enclave.attestation import Evidence, SnpReport, authenticate
from cloister.enclave.attestation.snp import REPORT_BYTES
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
HCL_HEADER = 32


class Sample:
    """One sample folder: report, chain, and what is known about it."""

    def __init__(self, root: Path, name: str) -> None:
        folder = root / name
        self.known = json.loads((folder / "expected.json").read_text())
        plain, wrapped = folder / "report.bin", folder / "hcl_report.bin"
        if plain.exists():
            report = plain.read_bytes()
        else:
            report = wrapped.read_bytes()[HCL_HEADER : HCL_HEADER + REPORT_BYTES]
        issuers = x509.load_pem_x509_certificates((root / self.known["trust_chain"]).read_bytes())
        chain = tuple(one.public_bytes(serialization.Encoding.DER) for one in issuers)
        self.evidence = Evidence(report, ((folder / "vek.der").read_bytes(), *chain))
        self.at = datetime.fromisoformat(self.known["verify_at"])


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
    assert found.report.measurement.hex() == expected["measurement"]
    assert found.report.report_data.hex() == expected["report_data"]
    assert found.report.vmpl == expected["vmpl"]
    tcb = expected["reported_tcb"]
    assert (found.tcb.boot_loader, found.tcb.tee, found.tcb.snp, found.tcb.microcode) == (
        tcb["bl"],
        tcb["tee"],
        tcb["snp"],
        tcb["ucode"],
    )
    if "debug" in expected:
        assert found.report.debug == expected["debug"]
        assert found.report.chip_id.hex() == expected["chip_id"]
        assert f"{found.report.policy:#x}" == expected["policy_hex"]


def test_the_listed_mutations_of_a_genuine_report_are_refused(sample: Sample) -> None:
    for mutation in sample.known.get("mutations", ()):
        changed = bytearray(sample.evidence.report)
        changed[mutation["offset"]] ^= mutation["xor"]
        with pytest.raises(AttestationError):
            authenticate(Evidence(bytes(changed), sample.evidence.chain), TrustStore.production(), sample.at)


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
    evidence = Evidence(good.evidence.report, (leaf, *good.evidence.chain[1:]))
    with pytest.raises(AttestationError) as refused:
        authenticate(evidence, TrustStore.production(), good.at)
    assert refused.value.code == "attestation.chain"


@pytest.mark.nightly
def test_every_flipped_bit_of_a_genuine_report_is_refused(
    sample: Sample, record_property: Callable[[str, object], None]
) -> None:
    for bit in spread(range(REPORT_BYTES * 8), record_property):
        changed = bytearray(sample.evidence.report)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AttestationError):
            authenticate(Evidence(bytes(changed), sample.evidence.chain), TrustStore.production(), sample.at)
