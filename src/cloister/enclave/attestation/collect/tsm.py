"""Evidence through configfs-tsm, the kernel's own interface for guests (Linux 6.7, SNP and TDX).

Documentation/ABI/testing/configfs-tsm-report: who makes a folder below ``report/`` has an entry of their own;
``inblob`` takes 64 bytes, ``outblob`` then gives the report or quote, ``auxblob`` the certificate table of an
SNP host. ``generation`` counts every write; it must have counted this process's own writes and no other, or
the answer may be to somebody else's question. The entry is removed again whatever happens.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cloister.enclave.attestation.collect.ccel import with_event_log
from cloister.enclave.attestation.collect.dcap_answer import dcap_evidence
from cloister.enclave.attestation.collect.device import (
    Device,
    asking,
    malformed_answer,
    require_report_data,
)
from cloister.enclave.attestation.collect.snp_answer import MAX_TABLE_BYTES, snp_evidence
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Evidence, Tee
from cloister.enclave.errors import CollectError

REPORTS = "/sys/kernel/config/tsm/report"
SNP_PROVIDER, TDX_PROVIDER = "sev_guest", "tdx_guest"
_WHAT = "The kernel's report interface (configfs-tsm)"
_TRIES = 3
_MAX_TEXT = 64
_NOTHING_THERE = (errno.ENOENT, errno.ENXIO, errno.ENODATA, errno.EOPNOTSUPP)
_MEANWHILE = (errno.EWOULDBLOCK, errno.EBUSY)


@dataclass(frozen=True)
class _Answer:
    provider: str
    report: bytes
    table: bytes
    vmpl: int | None


class TsmGuest:
    """This guest, asked through configfs-tsm.

    Args:
        device: the operating system.
        certificates: the operator's own chain for an SNP guest whose host gives none; DER, the endorsed key's
            first.
    """

    def __init__(self, device: Device, certificates: tuple[bytes, ...] = ()) -> None:
        self._device = device
        self._certificates = certificates

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in.

        Returns:
            An SNP report with its chain, or a TDX quote with the firmware's event log where there is one.

        Raises:
            CollectError: what kept it from an answer.
        """
        require_report_data(report_data)
        answer = self._ask(report_data)
        if answer.provider == SNP_PROVIDER:
            return snp_evidence(answer.report, answer.table, report_data, answer.vmpl, self._certificates)
        if answer.provider == TDX_PROVIDER:
            quote = dcap_evidence(Tee.INTEL_TDX, answer.report, report_data, _WHAT)
            with asking("The firmware's event log (CCEL)"):
                return with_event_log(self._device, quote)
        raise CollectError("collect.absent", f"{_WHAT} has a provider that is not known here.")

    def _ask(self, report_data: bytes) -> _Answer:
        with _entry(self._device) as entry:
            for _ in range(_TRIES):
                answer = self._ask_once(entry, report_data)
                if answer is not None:
                    return answer
        raise CollectError("collect.race", f"{_WHAT}: another process wrote to the same entry, each time.")

    def _ask_once(self, entry: str, report_data: bytes) -> _Answer | None:
        """The answer; None where somebody else wrote to the entry meanwhile."""
        try:
            before = _number(self._device, f"{entry}/generation")
            floor = _optional(self._device, f"{entry}/privlevel_floor", _MAX_TEXT)
            vmpl = None if floor is None else _as_number(floor)
            writes = 1
            if vmpl is not None:
                # Without it the kernel asks for level 0, which a guest below an SVSM may not have.
                self._device.write(f"{entry}/privlevel", str(vmpl).encode("ascii"))
                writes += 1
            self._device.write(f"{entry}/inblob", report_data)
            report = self._device.read(f"{entry}/outblob", MAX_EVIDENCE_BYTES)
            table = _optional(self._device, f"{entry}/auxblob", MAX_TABLE_BYTES) or b""
            provider = self._device.read(f"{entry}/provider", _MAX_TEXT)
            after = _number(self._device, f"{entry}/generation")
        except OSError as error:
            if error.errno in _MEANWHILE:
                return None
            raise
        if after != before + writes:
            return None
        return _Answer(_text(provider), report, table, vmpl)


def tsm_provider(device: Device) -> str:
    """Which kind of guest the kernel says this is.

    Raises:
        CollectError: collect.absent, collect.denied or collect.refused.
    """
    with _entry(device) as entry:
        return _text(device.read(f"{entry}/provider", _MAX_TEXT))


@contextmanager
def _entry(device: Device) -> Iterator[str]:
    """An entry of this call's own, removed at its end."""
    entry = f"{REPORTS}/cloister-{os.getpid()}-{secrets.token_hex(8)}"
    with asking(_WHAT):
        device.make_folder(entry)
        try:
            yield entry
        finally:
            device.remove_folder(entry)


def _optional(device: Device, path: str, limit: int) -> bytes | None:
    """What an attribute holds that not every kind of guest has."""
    try:
        return device.read(path, limit)
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise


def _number(device: Device, path: str) -> int:
    return _as_number(device.read(path, _MAX_TEXT))


def _as_number(text: bytes) -> int:
    digits = text.strip()
    if not digits.isdigit() or len(digits) > 20:
        raise malformed_answer(_WHAT)
    return int(digits)


def _text(data: bytes) -> str:
    word = data.strip()
    if not word.replace(b"_", b"").isalnum():
        raise malformed_answer(_WHAT)
    return word.decode("ascii", "replace")
