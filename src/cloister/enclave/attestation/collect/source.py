"""Which way to evidence a machine offers, and the collector for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from cloister.enclave.attestation.collect.device import Device
from cloister.enclave.attestation.collect.gramine import GramineEnclave
from cloister.enclave.attestation.collect.nsm import NitroEnclave
from cloister.enclave.attestation.collect.sevguest import SevGuest
from cloister.enclave.attestation.collect.tdxguest import TdxGuest
from cloister.enclave.attestation.collect.tsm import TsmGuest
from cloister.enclave.attestation.evidence import Evidence


class EvidenceSource(StrEnum):
    """Ways to evidence, best first."""

    GRAMINE = "gramine"
    CONFIGFS_TSM = "configfs-tsm"
    SEV_GUEST = "sev-guest"
    NITRO = "nsm"
    TDX_GUEST = "tdx_guest"


class Collector(Protocol):
    """The machine's attestation device, as a site's node asks it."""

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in.

        Returns:
            What the device signed, with what is needed to verify it.

        Raises:
            CollectError: what kept it from an answer; there is never part of one.
        """
        ...


def collector_for(
    source: EvidenceSource, device: Device, *, vmpl: int = 0, certificates: tuple[bytes, ...] = ()
) -> Collector:
    """The collector of one way to evidence.

    Args:
        source: the way.
        device: the operating system.
        vmpl: the guest's privilege level, which ``/dev/sev-guest`` has to be told.
        certificates: the operator's own chain for an SNP guest whose host gives none; DER, the endorsed key's
            first.
    """
    match source:
        case EvidenceSource.GRAMINE:
            return GramineEnclave(device)
        case EvidenceSource.CONFIGFS_TSM:
            return TsmGuest(device, certificates)
        case EvidenceSource.SEV_GUEST:
            return SevGuest(device, vmpl, certificates)
        case EvidenceSource.NITRO:
            return NitroEnclave(device)
        case EvidenceSource.TDX_GUEST:
            return TdxGuest(device)
