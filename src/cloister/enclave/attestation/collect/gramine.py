"""Evidence from inside a Gramine SGX enclave, by the pseudo-files under ``/dev/attestation``.

Gramine documentation, "Attestation and Secret Provisioning": ``user_report_data`` takes 64 bytes, ``quote``
then gives an SGX quote. ``attestation_type`` must be ``dcap``; ``epid`` is retired and ``none`` proves
nothing. Outside an enclave these paths don't exist; inside one, the host can't serve them, as the library OS
answers itself.
"""

from __future__ import annotations

from cloister.enclave.attestation.collect.dcap_answer import dcap_evidence
from cloister.enclave.attestation.collect.device import Device, asking, require_report_data
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Evidence, Tee
from cloister.enclave.errors import CollectError

ATTESTATION_TYPE = "/dev/attestation/attestation_type"
REPORT_DATA = "/dev/attestation/user_report_data"
QUOTE = "/dev/attestation/quote"
DCAP = b"dcap"
_WHAT = "Gramine's /dev/attestation"
_MAX_TEXT = 64


class GramineEnclave:
    """This enclave.

    Args:
        device: the operating system, which is Gramine itself.
    """

    def __init__(self, device: Device) -> None:
        self._device = device

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in.

        Returns:
            An SGX quote, which carries its own chain.

        Raises:
            CollectError: collect.no_quote for another attestation type; what else kept it from an answer.
        """
        require_report_data(report_data)
        with asking(_WHAT):
            kind = self._device.read(ATTESTATION_TYPE, _MAX_TEXT).strip()
            if kind != DCAP:
                raise CollectError(
                    "collect.no_quote",
                    "Gramine runs with another attestation type than dcap.",
                    'Set sgx.remote_attestation = "dcap" in the manifest and sign it anew.',
                )
            self._device.write(REPORT_DATA, report_data)
            quote = self._device.read(QUOTE, MAX_EVIDENCE_BYTES)
        return dcap_evidence(Tee.INTEL_SGX, quote, report_data, _WHAT)
