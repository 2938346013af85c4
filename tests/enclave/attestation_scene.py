"""A simulated vendor, one of its machines, and a relying party, for the tests of attestation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from cloister.core.clock import fixed_clock
from cloister.enclave import (
    AppraisalPolicy,
    Binding,
    Evidence,
    Platforms,
    SimulatedPlatform,
    SimulatedVendor,
    TrustStore,
    Verdict,
    Verifier,
)
from cloister.enclave.attestation import Collateral, GuestSettings, SnpReport, Tee

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
MEASUREMENT = bytes(range(48))
JOB = "1b4e28ba-2fa1-4d2a-883f-0016d3cca427"
SITE_KEY = "sha256:" + "ab" * 32


@lru_cache(maxsize=1)
def vendor() -> SimulatedVendor:
    return SimulatedVendor.create(fixed_clock(NOW))


@dataclass(frozen=True)
class Scene:
    """One challenge and what is asked of its answer."""

    platform: SimulatedPlatform
    trust: TrustStore
    policy: AppraisalPolicy
    binding: Binding
    now: datetime = NOW
    collateral: Collateral = field(default_factory=lambda: vendor().collateral)

    def evidence(self) -> Evidence:
        return self.platform.quote(self.binding.report_data())

    def verify(self, evidence: Evidence | None = None) -> Verdict:
        verifier = Verifier(self.trust, fixed_clock(self.now), self.collateral)
        return verifier.verify(evidence or self.evidence(), expected=self.binding, policy=self.policy)

    def with_guest(self, settings: GuestSettings) -> Scene:
        return replace(self, platform=vendor().platform("north", MEASUREMENT, settings))


def scene() -> Scene:
    policy = AppraisalPolicy(
        measurements=(MEASUREMENT.hex(),),
        platforms=Platforms.HARDWARE_OR_SIMULATED,
    )
    return Scene(
        platform=vendor().platform("north", MEASUREMENT),
        trust=TrustStore.simulated(vendor().root_der),
        policy=policy,
        binding=Binding(nonce=bytes(32), key_id=SITE_KEY, job_id=JOB, policy_id=policy.sha256),
    )


def resigned(platform: SimulatedPlatform, report: SnpReport) -> Evidence:
    """A report signed anew by the machine's own key, as a hostile but endorsed platform could."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    body = report.encode_body()
    r, s = decode_dss_signature(platform._key.sign(body, ec.ECDSA(hashes.SHA384())))
    return Evidence(Tee.AMD_SEV_SNP, replace(report, signature_r=r, signature_s=s).encode(), platform.chain)


def later(days: float) -> Callable[[Scene], Scene]:
    return lambda one: replace(one, now=NOW + timedelta(days=days))
