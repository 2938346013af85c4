"""From a DCAP quote to evidence: whether a quote answers what was asked. The verifier reads the rest.

Offsets are those of Intel's ECDSA quote: a header of 48 bytes with the version and the kind of TEE, in
version 5 a body descriptor of 6 bytes, and the body, which holds the report data.
"""

from __future__ import annotations

import struct

from cloister.enclave.attestation.collect.device import malformed_answer, other_answer
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Evidence, Tee

_HEADER = struct.Struct("<HHI")
_HEADER_BYTES = 48
_DESCRIPTOR_BYTES = 6
_TDX = 0x81
_REPORT_DATA = {Tee.INTEL_TDX: 520, Tee.INTEL_SGX: 320}
_VERSIONS = {Tee.INTEL_TDX: (4, 5), Tee.INTEL_SGX: (3, 4)}


def dcap_evidence(tee: Tee, quote: bytes, report_data: bytes, what: str) -> Evidence:
    """Make evidence of a quote that answers what was asked.

    Args:
        tee: Intel TDX or SGX.
        quote: the quote as the device gave it.
        report_data: what was to be sealed in.
        what: the device, as messages name it.

    Returns:
        The quote, which carries its own chain.

    Raises:
        CollectError: collect.malformed or collect.mismatch.
    """
    if not _HEADER_BYTES <= len(quote) <= MAX_EVIDENCE_BYTES:
        raise malformed_answer(what)
    version, _, kind = _HEADER.unpack_from(quote)
    if version not in _VERSIONS[tee] or (kind == _TDX) != (tee is Tee.INTEL_TDX):
        raise malformed_answer(what)
    start = _HEADER_BYTES + (_DESCRIPTOR_BYTES if version == 5 else 0) + _REPORT_DATA[tee]
    if len(quote) < start + len(report_data):
        raise malformed_answer(what)
    if quote[start : start + len(report_data)] != report_data:
        raise other_answer(what)
    return Evidence(tee, quote)
