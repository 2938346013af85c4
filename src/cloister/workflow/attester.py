"""What the sites of a run prove themselves with, and how the run is protected: fixed before it begins.

Rules kept here:

- A run on simulated chips never says that it is protected; one that was started as insecure says that in the
  chips' certificates, too.
- A proven machine is one that the launcher has verified. What it proves to the hub is proved anew, over the
  hub's own nonces; the launcher's word counts for nothing.
- A job names the attestation it asks for, and isn't started with another.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from cloister.enclave.attestation import Collateral, Evidence, SimulatedVendor, Tee, TrustStore
from cloister.enclave.attestation.collect import Machine
from cloister.enclave.attestation.trust import VENDOR_ROOTS
from cloister.enclave.errors import LaunchError
from cloister.enclave.launch import SelfTest
from cloister.enclave.measure import code_measurement
from cloister.enclave.protection import Protection
from cloister.workflow.jobfile import JobSpec

if TYPE_CHECKING:
    from cloister.federation.site import Platform


class Attester(Protocol):
    """What the sites of a run prove themselves with."""

    @property
    def protection(self) -> Protection:
        """How the run is protected."""
        ...

    @property
    def trust(self) -> TrustStore:
        """The roots that the hub pins."""
        ...

    @property
    def roots(self) -> Mapping[str, bytes]:
        """The same roots by name, DER, for whoever verifies the receipt."""
        ...

    @property
    def collateral(self) -> Collateral:
        """The vendors' documents that the hub has at hand."""
        ...

    def platform(self, site: str) -> Platform:
        """The attestation device of a site's machine."""
        ...


class SimulatedChips:
    """Made-up chips of a workspace's own made-up vendor.

    Args:
        vendor: their maker.
        protection: SIMULATED, or INSECURE for a run that is started without protection on purpose.
    """

    def __init__(self, vendor: SimulatedVendor, protection: Protection = Protection.SIMULATED) -> None:
        if protection is Protection.PROTECTED:
            raise ValueError("simulated chips protect nothing")
        self._vendor = vendor
        self.protection = protection
        self.collateral = vendor.collateral

    @property
    def trust(self) -> TrustStore:
        """See `Attester.trust`."""
        return TrustStore.simulated(self._vendor.root_der)

    @property
    def roots(self) -> Mapping[str, bytes]:
        """See `Attester.roots`."""
        return {self.protection.value: self._vendor.root_der}

    def platform(self, site: str) -> Platform:
        """See `Attester.platform`."""
        insecure = self.protection is Protection.INSECURE
        return self._vendor.platform(f"INSECURE {site}" if insecure else site, code_measurement())


@dataclass(frozen=True)
class ProvenMachine:
    """This machine, which has proved itself to the launcher.

    Attributes:
        machine: answers challenges.
        proof: what it proved.
        collateral: the vendors' documents at hand.
    """

    machine: Machine
    proof: SelfTest
    collateral: Collateral = field(default_factory=Collateral)

    @property
    def protection(self) -> Protection:
        """See `Attester.protection`."""
        return Protection.PROTECTED

    @property
    def trust(self) -> TrustStore:
        """See `Attester.trust`."""
        return TrustStore.production()

    @cached_property
    def roots(self) -> Mapping[str, bytes]:
        """See `Attester.roots`."""
        return vendor_roots(self.proof.verdict.evidence)

    def platform(self, site: str) -> Platform:
        """See `Attester.platform`."""
        del site
        return self.machine


def vendor_roots(evidence: Evidence) -> dict[str, bytes]:
    """The vendors' root certificates that came with evidence: by the pinned hashes, so they can't be others.

    Args:
        evidence: verified, of a machine with its devices.

    Returns:
        DER by the name of the kind of hardware.
    """
    found: dict[str, bytes] = {}
    for one in (evidence, *evidence.devices):
        for der in _certificates(one):
            root = VENDOR_ROOTS.get(hashlib.sha256(der).hexdigest())
            if root is not None and one.tee in root.tees:
                found[one.tee.value] = der
    return found


def _certificates(evidence: Evidence) -> Iterator[bytes]:
    """The certificates beside a report and in it."""
    yield from evidence.chain
    if evidence.tee in (Tee.INTEL_TDX, Tee.INTEL_SGX):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        start = evidence.report.find(b"-----BEGIN CERTIFICATE-----")
        if start >= 0:
            for certificate in x509.load_pem_x509_certificates(evidence.report[start:]):
                yield certificate.public_bytes(Encoding.DER)
    elif evidence.tee is Tee.AWS_NITRO:
        import cbor2

        outer = cbor2.load(io.BytesIO(evidence.report))
        parts = outer.value if isinstance(outer, cbor2.CBORTag) else outer
        yield from cbor2.loads(parts[2])["cabundle"]


def require_fitting_attestation(spec: JobSpec, protection: Protection) -> None:
    """Refuse to start a job with other attestation than it asks for.

    Args:
        spec: the job.
        protection: how it is to be started.

    Raises:
        LaunchError: launch.job_attestation.
    """
    asked = spec.file.attestation
    started = "hardware" if protection is Protection.PROTECTED else "simulated"
    if asked == started or protection is Protection.INSECURE:
        return
    hints = {
        "hardware": "Start it in a confidential VM or enclave:  cloister enclave start JOB",
        "simulated": "Write `attestation: hardware` into the job file, or rehearse it:  "
        "cloister enclave start JOB --simulation",
    }
    raise LaunchError(
        "launch.job_attestation",
        f"The job {spec.file.name} asks for {asked} attestation, and was started with {started}.",
        hints[asked],
    )
