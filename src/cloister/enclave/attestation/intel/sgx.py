"""Intel SGX, as the verifier sees it: an enclave's quote."""

from __future__ import annotations

from cloister.enclave.attestation.authenticator import Ground
from cloister.enclave.attestation.checks import Finding, Steps
from cloister.enclave.attestation.claims import Claims
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.attestation.intel.platform import (
    QUOTE_FINDINGS,
    QUOTE_STEPS,
    appraise_quote,
    authenticate_quote,
)
from cloister.enclave.attestation.policy import AppraisalPolicy

STEPS = QUOTE_STEPS
FINDINGS = QUOTE_FINDINGS


def authenticate(evidence: Evidence, ground: Ground, steps: Steps) -> Claims:
    """See `Authenticator.authenticate`."""
    return authenticate_quote(evidence, ground, steps)


def appraise(claims: Claims, policy: AppraisalPolicy, ground: Ground) -> tuple[Finding, ...]:
    """See `Authenticator.appraise`."""
    return appraise_quote(claims, policy, ground)
