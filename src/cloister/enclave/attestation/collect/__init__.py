"""Evidence of the machine this process runs on: one collector for each way Linux offers.

A collector asks the device and hands on what it answered, as ``Evidence``; it judges nothing. What it does
hold: an answer is complete, of the device's form, and to the question that was asked, or there is none.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.enclave.attestation.collect.device import Device, LinuxDevice
    from cloister.enclave.attestation.collect.gramine import GramineEnclave
    from cloister.enclave.attestation.collect.machine import Machine
    from cloister.enclave.attestation.collect.nsm import NitroEnclave
    from cloister.enclave.attestation.collect.nvml import GpuMode, GpuPort, Nvml, gpu_evidence
    from cloister.enclave.attestation.collect.sevguest import SevGuest
    from cloister.enclave.attestation.collect.source import Collector, EvidenceSource, collector_for
    from cloister.enclave.attestation.collect.tdxguest import TdReport, td_report
    from cloister.enclave.attestation.collect.tsm import TsmGuest

_HOMES = {
    "Collector": "source",
    "Device": "device",
    "EvidenceSource": "source",
    "GpuMode": "nvml",
    "GpuPort": "nvml",
    "GramineEnclave": "gramine",
    "LinuxDevice": "device",
    "Machine": "machine",
    "NitroEnclave": "nsm",
    "Nvml": "nvml",
    "SevGuest": "sevguest",
    "TdReport": "tdxguest",
    "TsmGuest": "tsm",
    "collector_for": "source",
    "gpu_evidence": "nvml",
    "td_report": "tdxguest",
}

__all__ = [
    "Collector",
    "Device",
    "EvidenceSource",
    "GpuMode",
    "GpuPort",
    "GramineEnclave",
    "LinuxDevice",
    "Machine",
    "NitroEnclave",
    "Nvml",
    "SevGuest",
    "TdReport",
    "TsmGuest",
    "collector_for",
    "gpu_evidence",
    "td_report",
]

__getattr__ = on_first_use(__name__, _HOMES)
