"""How old the lists of revoked certificates are that evidence was held against."""

from __future__ import annotations

from datetime import datetime, timedelta

from cloister.enclave.attestation.checks import Finding
from cloister.enclave.attestation.claims import Claims
from cloister.enclave.attestation.policy import AppraisalPolicy


def collateral_age(claims: Claims, policy: AppraisalPolicy, now: datetime) -> Finding:
    """Hold the oldest document that was used against the age that a policy asks for.

    Args:
        claims: with the dates of what was used.
        policy: how old it may be.
        now: the time of evaluation.
    """
    limit = policy.maximum_collateral_age_days
    oldest = min((one.issued_at for one in claims.collateral_dates), default=now)
    young = limit is None or now - oldest <= timedelta(days=limit)
    asked = f"maximum_collateral_age_days {'not asked for' if limit is None else limit}"
    detail = f"oldest issued {oldest:%Y-%m-%d}; {asked}" if claims.collateral_dates else f"none used; {asked}"
    return Finding("collateral-age", "attestation.collateral_expired", young, detail)
