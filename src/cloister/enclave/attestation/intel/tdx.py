"""Intel TDX, as the verifier sees it: a trust domain's quote, and what only a domain is asked."""

from __future__ import annotations

from cloister.enclave.attestation.authenticator import Ground
from cloister.enclave.attestation.checks import Finding, Steps
from cloister.enclave.attestation.claims import Claims
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.attestation.intel.platform import (
    DOMAIN_STEPS,
    QUOTE_FINDINGS,
    QUOTE_STEPS,
    QuoteDetail,
    appraise_quote,
    authenticate_quote,
)
from cloister.enclave.attestation.intel.reports import TdReport
from cloister.enclave.attestation.policy import AppraisalPolicy

STEPS = (*QUOTE_STEPS, *DOMAIN_STEPS)
FINDINGS = (*QUOTE_FINDINGS, "page-removal", "migration", "attributes", "service-domain")


def authenticate(evidence: Evidence, ground: Ground, steps: Steps) -> Claims:
    """See `Authenticator.authenticate`."""
    return authenticate_quote(evidence, ground, steps)


def appraise(claims: Claims, policy: AppraisalPolicy, ground: Ground) -> tuple[Finding, ...]:
    """See `Authenticator.appraise`."""
    detail = claims.detail
    if not isinstance(detail, QuoteDetail) or not isinstance(detail.quote.body, TdReport):
        raise TypeError("claims of another kind of hardware")
    return (*appraise_quote(claims, policy, ground), *_domain(detail.quote.body))


def _domain(body: TdReport) -> tuple[Finding, ...]:
    bound = body.mrservicetd is not None and any(body.mrservicetd)
    return (
        Finding(
            "page-removal",
            "attestation.policy_bits",
            body.sept_ve_disabled,
            "SEPT_VE_DISABLE is " + ("set" if body.sept_ve_disabled else "not set"),
        ),
        Finding(
            "migration",
            "attestation.policy_bits",
            not body.migratable,
            "migration is " + ("allowed" if body.migratable else "off"),
        ),
        Finding(
            "attributes",
            "attestation.policy_bits",
            not body.unknown_attributes,
            "attributes " + ("without a known meaning" if body.unknown_attributes else "are known ones"),
        ),
        Finding(
            "service-domain",
            "attestation.policy_bits",
            not bound,
            "a service domain is bound" if bound else "no service domain is bound",
        ),
    )
