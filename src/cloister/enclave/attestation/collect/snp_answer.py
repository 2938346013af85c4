"""From an SNP device's answer to evidence: the report it must be, and the certificates beside it.

The host may hand a guest the certificates that endorse its report, as a table (AMD publication 56421, SEV-ES
Guest-Hypervisor Communication Block, section 4.1.8.1): entries of a GUID, an offset and a length, up to a
zero GUID. Nothing in it is trusted; the verifier follows the chain. Where the host gives no full chain, the
operator's own copies stand in; the two are never mixed.
"""

from __future__ import annotations

import struct
from uuid import UUID

from cloister.enclave.attestation.amd.report import KEY_VLEK, SnpReport
from cloister.enclave.attestation.collect.device import malformed_answer, other_answer
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.errors import AttestationError, CollectError

MAX_TABLE_BYTES = 64 * 1024
_ENTRY = struct.Struct("<16sII")
_MAX_ENTRIES = 16
_TABLE = "The host's certificate table"

VCEK = UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
ARK = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")


def snp_evidence(
    report: bytes, table: bytes, report_data: bytes, vmpl: int | None, certificates: tuple[bytes, ...]
) -> Evidence:
    """Make evidence of a report that answers what was asked.

    Args:
        report: the report as the device gave it.
        table: the host's certificate table; empty where there is none.
        report_data: what was to be sealed in.
        vmpl: the privilege level that was asked for; None where the device chose.
        certificates: the operator's own copies, DER, the endorsed key's first.

    Returns:
        The report with its chain.

    Raises:
        CollectError: collect.malformed, collect.mismatch, or collect.certificates where neither the host nor
            the operator has a full chain.
    """
    try:
        fields = SnpReport.parse(report)
    except AttestationError:
        raise malformed_answer("The SNP firmware") from None
    if fields.report_data != report_data or vmpl not in (None, fields.vmpl):
        raise other_answer("The SNP firmware")
    found = certificate_table(table)
    leaf = VLEK if fields.signing_key == KEY_VLEK else VCEK
    chain = tuple(found[kind] for kind in (leaf, ASK, ARK) if kind in found)
    chain = chain if len(chain) == 3 else certificates
    if len(chain) != 3:
        raise CollectError(
            "collect.certificates",
            "The host gave no full chain for the report's key, and none was named.",
            "Fetch the chip's VCEK (or the provider's VLEK), ASK and ARK from AMD, and name the three files "
            "as `certificates` in the launcher's configuration.",
        )
    return Evidence(Tee.AMD_SEV_SNP, report, chain)


def certificate_table(table: bytes) -> dict[UUID, bytes]:
    """Read a certificate table.

    Args:
        table: as the host gave it; empty or zero where it has none.

    Returns:
        What each GUID stands for; none of it is verified.

    Raises:
        CollectError: collect.malformed.
    """
    found: dict[UUID, bytes] = {}
    if not any(table):
        return found
    if len(table) > MAX_TABLE_BYTES:
        raise malformed_answer(_TABLE)
    places: list[tuple[UUID, int, int]] = []
    for number in range(_MAX_ENTRIES + 1):
        if number == _MAX_ENTRIES or _ENTRY.size * (number + 1) > len(table):
            raise malformed_answer(_TABLE)
        guid, offset, length = _ENTRY.unpack_from(table, _ENTRY.size * number)
        if not any(guid):
            break
        places.append((UUID(bytes_le=guid), offset, length))
    first = _ENTRY.size * (len(places) + 1)
    for kind, offset, length in places:
        if kind in found or offset < first or length == 0 or offset + length > len(table):
            raise malformed_answer(_TABLE)
        found[kind] = table[offset : offset + length]
    return found
