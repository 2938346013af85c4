"""One kind of hardware as a verifier sees it: how it is authenticated, and what only it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Protocol, cast

from cloister.enclave.attestation.checks import Finding, Steps
from cloister.enclave.attestation.claims import Claims
from cloister.enclave.attestation.collateral import Collateral
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.attestation.trust import TrustedRoot, TrustStore
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError

_HOMES = {
    Tee.AMD_SEV_SNP: "amd.platform",
    Tee.AWS_NITRO: "aws.platform",
    Tee.NVIDIA_GPU: "nvidia.platform",
    Tee.INTEL_TDX: "intel.tdx",
    Tee.INTEL_SGX: "intel.sgx",
}


@dataclass(frozen=True)
class Ground:
    """What evidence is held against.

    Attributes:
        trust: pinned roots.
        now: the time certificates must be valid at.
        collateral: the vendors' documents at hand.
        known_at: the time collateral must hold at, where that is another: old evidence is looked at with the
            knowledge of a later day.
        facts: signatures that were verified before; nothing about trust, time or revocation.
    """

    trust: TrustStore
    now: datetime
    collateral: Collateral = field(default_factory=Collateral)
    facts: VerifiedFacts = field(default_factory=VerifiedFacts, repr=False, compare=False)
    known_at: datetime | None = None

    @property
    def collateral_now(self) -> datetime:
        """The time collateral must hold at."""
        return self.now if self.known_at is None else self.known_at

    def pinned_root(self, sha256: str, tee: Tee) -> TrustedRoot:
        """The pinned root that a chain ends at.

        Args:
            sha256: of the chain's last certificate.
            tee: whose it has to be.

        Raises:
            AttestationError: ``attestation.untrusted_root``.
        """
        root = self.trust.find(sha256, tee)
        if root is None:
            raise AttestationError("attestation.untrusted_root", "The chain does not end at a trusted root.")
        return root


class Authenticator(Protocol):
    """What a module of one kind of hardware offers, as functions and a constant of the module itself."""

    STEPS: tuple[str, ...]
    """The names of the steps of ``authenticate``, in their order."""

    FINDINGS: tuple[str, ...]
    """The names of the findings of ``appraise``, in their order."""

    def authenticate(self, evidence: Evidence, ground: Ground, steps: Steps) -> Claims:
        """Verify that evidence is genuine under the pinned roots.

        Args:
            evidence: of this kind.
            ground: what it is held against.
            steps: takes each step.

        Returns:
            What it says. Missing collateral or revocation isn't an error here: the claims say that it is
            missing, and the appraisal refuses it.

        Raises:
            AttestationError: with the code of the first step that failed.
        """
        ...

    def appraise(self, claims: Claims, policy: AppraisalPolicy, ground: Ground) -> tuple[Finding, ...]:
        """What only this kind of hardware is asked, beside what every kind is.

        Args:
            claims: authentic, of this kind.
            policy: what is acceptable.
            ground: what the evidence was held against.

        Returns:
            Every finding, in a fixed order.
        """
        ...


@cache
def authenticator(tee: Tee) -> Authenticator:
    """The module of one kind of hardware, loaded when it is first asked for.

    Raises:
        AttestationError: attestation.unsupported for a kind that this version doesn't verify.
    """
    home = _HOMES.get(tee)
    if home is None:
        raise AttestationError("attestation.unsupported", f"Evidence of {tee.value} is not verified here.")
    module = import_module(f"cloister.enclave.attestation.{home}")
    return cast(Authenticator, module)
