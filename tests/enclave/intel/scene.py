"""A simulated vendor of TDX machines, one of its domains, and a relying party."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cloister.core.clock import fixed_clock
from cloister.enclave import AppraisalPolicy, Binding, Evidence, Platforms, TrustStore, Verdict, Verifier
from cloister.enclave.attestation import Collateral, CollateralDocument, ReferenceValues, Tee
from cloister.enclave.attestation.intel.reports import EnclaveReport
from cloister.enclave.attestation.simulated.intel import DomainSettings, SimulatedDomain, SimulatedIntel
from cloister.enclave.attestation.simulated.intel_collateral import Published, publish

NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
ISSUED = NOW - timedelta(days=2)
MRTD = bytes(range(48))
MRENCLAVE = bytes(range(32))
KEY = "sha256:" + "ab" * 32


@lru_cache(maxsize=1)
def vendor() -> SimulatedIntel:
    return SimulatedIntel.create(fixed_clock(NOW - timedelta(days=90)))


@lru_cache(maxsize=1)
def domain() -> SimulatedDomain:
    return vendor().domain("north", MRTD)


def published(said: Published | None = None, at: datetime = ISSUED) -> CollateralDocument:
    return publish(vendor(), at, said if said is not None else Published())


def policy(**changes: Any) -> AppraisalPolicy:
    zero = "00" * 48
    values = {"mrtd": MRTD.hex(), "rtmr0": zero, "rtmr1": zero, "rtmr2": zero}
    return AppraisalPolicy(
        measurements=(MRENCLAVE.hex(),),
        references=(ReferenceValues(tee=Tee.INTEL_TDX, registers=values),),
        platforms=Platforms.HARDWARE_OR_SIMULATED,
        **changes,
    )


@dataclass(frozen=True)
class Scene:
    """One challenge, the collateral at hand, and what is asked of the answer."""

    domain: SimulatedDomain = field(default_factory=domain)
    collateral: tuple[CollateralDocument, ...] = field(default_factory=lambda: (published(),))
    trust: TrustStore = field(default_factory=lambda: TrustStore.simulated(vendor().root_der))
    policy: AppraisalPolicy = field(default_factory=policy)
    now: datetime = NOW

    @property
    def binding(self) -> Binding:
        return Binding(nonce=bytes(32), key_id=KEY, job_id="job", policy_id=self.policy.sha256)

    def evidence(self) -> Evidence:
        return self.domain.quote(self.binding.report_data())

    def enclave(self, **changes: Any) -> Evidence:
        """The quote of an enclave on the same machine."""
        report = EnclaveReport(
            cpusvn=bytes(16),
            miscselect=bytes(4),
            isvextprodid=bytes(16),
            attributes=b"\x05".ljust(16, b"\0"),
            mrenclave=MRENCLAVE,
            mrsigner=bytes(32),
            configid=bytes(64),
            isvprodid=1,
            isvsvn=1,
            configsvn=0,
            isvfamilyid=bytes(16),
            report_data=self.binding.report_data(),
        )
        return self.domain.sign(replace(report, **changes), version=3)

    def verify(self, evidence: Evidence | None = None) -> Verdict:
        verifier = Verifier(self.trust, fixed_clock(self.now), Collateral(self.collateral))
        return verifier.verify(evidence or self.evidence(), expected=self.binding, policy=self.policy)

    def said(self, **changes: Any) -> Scene:
        """The same, with other collateral."""
        return replace(self, collateral=(published(Published(**changes)),))

    def quoting(self, **changes: Any) -> Scene:
        """The same machine's kind, with a domain that says something else."""
        return replace(self, domain=vendor().domain("north", MRTD, DomainSettings(**changes)))


def failing(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.outcome.value == "failed"]


def edited(change: Callable[[bytearray], None], data: bytes) -> bytes:
    changed = bytearray(data)
    change(changed)
    return bytes(changed)
