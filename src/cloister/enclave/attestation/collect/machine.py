"""A whole machine's evidence: the processor's, and that of every GPU its driver shows, bound to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cloister.enclave.attestation.binding import device_nonce
from cloister.enclave.attestation.collect.nvml import GpuPort, gpu_evidence
from cloister.enclave.attestation.collect.source import Collector
from cloister.enclave.attestation.evidence import Evidence


@dataclass(frozen=True)
class Machine:
    """This machine as it answers challenges.

    Attributes:
        collector: its attestation device.
        gpus: its GPUs' driver; None where there is none.
    """

    collector: Collector
    gpus: GpuPort | None = None

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in; the GPUs answer the nonce that follows from them.

        Returns:
            The evidence of the machine with its devices.

        Raises:
            CollectError: what kept one of them from an answer.
        """
        evidence = self.collector.quote(report_data)
        if self.gpus is None:
            return evidence
        return replace(evidence, devices=gpu_evidence(self.gpus, device_nonce(report_data)))
