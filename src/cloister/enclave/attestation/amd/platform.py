"""AMD SEV-SNP, as the verifier sees it: a report, its chain, and what only an SNP guest is asked.

A guest of Azure answers through a virtual TPM (`cloister.enclave.attestation.amd.azure`); for any other the
last two steps have nothing to look at, and say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.enclave.attestation.amd.azure import (
    PCR_REGISTERS,
    VirtualTpm,
    read_virtual_tpm,
    verify_quote,
    verify_runtime,
)
from cloister.enclave.attestation.amd.chain import (
    Chain,
    parse_chain,
    reported_tcb,
    verify_chain,
    verify_endorsed_chip,
    verify_endorsed_version,
    verify_report_signature,
    verify_validity,
)
from cloister.enclave.attestation.amd.report import ECDSA_P384_SHA384, SIGNED_BYTES, SnpReport, Tcb
from cloister.enclave.attestation.amd.revocation import lists_of, require_unrevoked
from cloister.enclave.attestation.authenticator import Ground
from cloister.enclave.attestation.checks import Finding, Steps
from cloister.enclave.attestation.claims import Claims, PlatformDetail, Revocation, Sealing
from cloister.enclave.attestation.collateral import CollateralKind
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.list_age import collateral_age
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.attestation.revocation_list import RevocationList
from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import ProductLine

STEPS = (
    "structure",
    "root",
    "chain",
    "validity",
    "revocation-list",
    "signature",
    "endorsed-version",
    "endorsed-chip",
    "runtime-data",
    "tpm-quote",
)
FINDINGS = ("migration", "privilege-level", "product-line", "minimum-version", "collateral-age")
_NO_TPM = "not asked: the report answers by itself, without a virtual TPM"


@dataclass(frozen=True)
class SnpDetail(PlatformDetail):
    """A report that AMD's root vouches for.

    Attributes:
        report: its fields.
        tcb: the component versions it states, as its product line lays them out.
        line: the generation of processors, by the root; None for a simulated one.
        virtual_tpm: what answered in the report's place, on Azure.
    """

    report: SnpReport
    tcb: Tcb
    line: ProductLine | None
    virtual_tpm: VirtualTpm | None = None


def authenticate(evidence: Evidence, ground: Ground, steps: Steps) -> Claims:
    """See `Authenticator.authenticate`."""
    with steps.step("structure"):
        report = SnpReport.parse(evidence.report)
        if report.signature_algorithm != ECDSA_P384_SHA384:
            raise AttestationError("attestation.alg", "The report's signature algorithm is unknown.")
        chain = parse_chain(evidence.chain)
        virtual_tpm = read_virtual_tpm(evidence.extras, evidence.report)
    with steps.step("root"):
        root = ground.pinned_root(chain.root_sha256, Tee.AMD_SEV_SNP)
    with steps.step("chain"):
        verify_chain(chain)
    with steps.step("validity"):
        verify_validity(chain, ground.now)
    listed = _revocation_list(chain, ground, steps)
    with steps.step("signature"):
        verify_report_signature(report, evidence.report[:SIGNED_BYTES], chain)
    with steps.step("endorsed-version"):
        verify_endorsed_version(report, chain, root.line)
    with steps.step("endorsed-chip"):
        verify_endorsed_chip(report, chain)
    if virtual_tpm is None:
        steps.skipped("runtime-data", _NO_TPM)
        steps.skipped("tpm-quote", _NO_TPM)
    else:
        with steps.step("runtime-data", "the report vouches for the virtual TPM's key"):
            key = verify_runtime(virtual_tpm, report)
        with steps.step(
            "tpm-quote", f"signed by that key, PCRs {virtual_tpm.quote.pcr_digest.hex()[:16]}..."
        ):
            verify_quote(virtual_tpm, key)
    quote = None if virtual_tpm is None else virtual_tpm.quote
    return Claims(
        tee=Tee.AMD_SEV_SNP,
        registers={**report.identity(), **({} if quote is None else quote.registers())},
        sealed_in=report.report_data if quote is None else quote.extra_data,
        debug=report.debug,
        simulated=root.simulated,
        revocation=Revocation.UNKNOWN if listed is None else Revocation.CHECKED,
        detail=SnpDetail(
            report, reported_tcb(report, root.line), None if root.simulated else root.line, virtual_tpm
        ),
        collateral=() if listed is None else (listed.document,),
        collateral_dates=() if listed is None else (listed.dates,),
        sealing=Sealing.WHOLE if quote is None else Sealing.SHA256,
        must_be_named=frozenset() if quote is None else PCR_REGISTERS,
    )


def _revocation_list(chain: Chain, ground: Ground, steps: Steps) -> RevocationList | None:
    with steps.step("revocation-list", "none of the chain is on the vendor's newest list"):
        steps.uses(ground.collateral.of(CollateralKind.AMD_CRL))
        at_hand = lists_of(chain.root, ground.collateral, ground.collateral_now)
        steps.uses(at_hand.documents)
        require_unrevoked(chain, at_hand)
        listed = at_hand.current(ground.collateral_now)
    if listed is None:
        steps.skipped("revocation-list", "no list of this root at hand")
    return listed


def appraise(claims: Claims, policy: AppraisalPolicy, ground: Ground) -> tuple[Finding, ...]:
    """See `Authenticator.appraise`."""
    detail = claims.detail
    if not isinstance(detail, SnpDetail):
        raise TypeError("claims of another kind of hardware")
    report = detail.report
    # A simulated platform is of no generation; it is laid out as Milan's are.
    lowest = policy.minimum_tcb.get(detail.line or ProductLine.MILAN)
    older = () if lowest is None else lowest.shortfalls(detail.tcb.as_dict())
    return (
        Finding(
            "migration",
            "attestation.policy_bits",
            not report.migratable,
            "migration is " + ("allowed" if report.migratable else "off"),
        ),
        Finding(
            "privilege-level",
            "attestation.vmpl",
            report.vmpl == policy.vmpl,
            f"VMPL {report.vmpl}; vmpl asks for {policy.vmpl}",
        ),
        Finding(
            "product-line",
            "attestation.unsupported",
            detail.line is None or detail.line in policy.amd_lines,
            f"{detail.line or 'simulated'}; amd_lines names {', '.join(policy.amd_lines) or 'none'}",
        ),
        Finding(
            "minimum-version",
            "attestation.tcb_unacceptable",
            not older,
            f"{_versions(detail)}; minimum_tcb "
            + ("names none" if lowest is None else "is kept" if not older else "isn't: " + ", ".join(older)),
        ),
        collateral_age(claims, policy, ground.collateral_now),
    )


def _versions(detail: SnpDetail) -> str:
    stated = detail.tcb.as_dict()
    if detail.line is not ProductLine.TURIN:
        del stated["fmc"]
    return ", ".join(f"{name} {version}" for name, version in stated.items())
