"""Machines played back at the door to the kernel: files, configfs entries and ioctls, down to their frames.

An ioctl's frame holds addresses, as the kernel gets them; a recorded device reads and writes there. So what
is tested is the layout that collectors hand to the kernel, and not a call between two Python functions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

import cbor2

from cloister.enclave.attestation.amd.report import SnpReport
from cloister.enclave.attestation.collect.device import Device
from cloister.enclave.attestation.collect.nvml import GpuMode
from cloister.enclave.attestation.collect.snp_answer import ARK, ASK, VCEK
from cloister.enclave.errors import CollectError

Ioctl = Callable[[bytearray], None]
Answer = Callable[[bytes], bytes]
"""From 64 bytes of report data to a report or quote."""


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass
class RecordedMachine:
    """A machine's files and devices.

    Attributes:
        files: content by path.
        errors: paths whose use ends with an error number.
        ioctls: devices by path and request number.
        written: what was written, in order.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    ioctls: dict[tuple[str, int], Ioctl] = field(default_factory=dict)
    written: list[tuple[str, bytes]] = field(default_factory=list)

    def _known(self, path: str) -> None:
        if path in self.errors:
            raise refusal(self.errors[path])

    def present(self, path: str) -> bool:
        return path in self.files or path in self.errors or any(path == one for one, _ in self.ioctls)

    def read(self, path: str, limit: int) -> bytes:
        self._known(path)
        if path not in self.files:
            raise refusal(errno.ENOENT)
        if len(self.files[path]) > limit:
            raise refusal(errno.EFBIG)
        return self.files[path]

    def read_at(self, path: str, offset: int, length: int) -> bytes:
        return self.read(f"{path}@{offset:#x}", length)

    def write(self, path: str, data: bytes) -> None:
        self._known(path)
        if path not in self.files:
            raise refusal(errno.ENOENT)
        self.written.append((path, data))
        self.files[path] = data

    def ioctl(self, path: str, number: int, frame: bytearray) -> None:
        self._known(path)
        if not self.present(path):
            raise refusal(errno.ENOENT)
        if (path, number) not in self.ioctls:
            raise refusal(errno.ENOTTY)
        self.ioctls[path, number](frame)

    def make_folder(self, path: str) -> None:
        self._known(path)
        raise refusal(errno.ENOENT)

    def remove_folder(self, path: str) -> None:
        raise refusal(errno.ENOENT)


REPORTS = "/sys/kernel/config/tsm/report"


@dataclass
class TsmMachine(RecordedMachine):
    """A guest with configfs-tsm, as Documentation/ABI/testing/configfs-tsm-report describes it.

    Attributes:
        provider: what the kernel says it is.
        answer: makes the report.
        table: the host's certificate table; None where the kind of guest has no such attribute.
        floor: the guest's privilege level; None where the kind of guest has none.
        intruders: how many more times somebody else writes to the entry before it is read.
    """

    provider: str = "sev_guest"
    answer: Answer = bytes
    table: bytes | None = None
    floor: int | None = None
    intruders: int = 0
    entries: dict[str, dict[str, bytes]] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def present(self, path: str) -> bool:
        return path == REPORTS or super().present(path)

    def make_folder(self, path: str) -> None:
        self._known(REPORTS)
        assert path.startswith(f"{REPORTS}/")
        if path in self.entries:
            raise refusal(errno.EEXIST)
        self.entries[path] = {}
        self.generations[path] = 0

    def remove_folder(self, path: str) -> None:
        if path not in self.entries:
            raise refusal(errno.ENOENT)
        del self.entries[path]
        self.removed.append(path)

    def write(self, path: str, data: bytes) -> None:
        entry, _, name = path.rpartition("/")
        if entry not in self.entries:
            return super().write(path, data)
        if name == "inblob":
            assert 0 < len(data) <= 64
        elif name == "privlevel":
            assert self.floor is not None
            if not self.floor <= int(data) <= 3:
                raise refusal(errno.EINVAL)
        else:
            raise refusal(errno.EACCES)
        self.entries[entry][name] = data
        self.generations[entry] += 1
        return None

    def read(self, path: str, limit: int) -> bytes:
        entry, _, name = path.rpartition("/")
        if entry not in self.entries:
            return super().read(path, limit)
        if name == "outblob" and self.intruders > 0:
            self.intruders -= 1
            self.generations[entry] += 1
        match name:
            case "generation":
                content = f"{self.generations[entry]}\n".encode()
            case "provider":
                content = f"{self.provider}\n".encode()
            case "outblob":
                content = self.answer(self.entries[entry]["inblob"])
            case "auxblob" if self.table is not None:
                content = self.table
            case "privlevel_floor" if self.floor is not None:
                content = f"{self.floor}\n".encode()
            case _:
                raise refusal(errno.ENOENT)
        if len(content) > limit:
            raise refusal(errno.EFBIG)
        return content


def certificate_table(certificates: dict[UUID, bytes]) -> bytes:
    """The host's table of certificates, as the GHCB specification lays it out."""
    offset = 24 * (len(certificates) + 1)
    entries, bodies = b"", b""
    for kind, der in certificates.items():
        entries += struct.pack("<16sII", kind.bytes_le, offset + len(bodies), len(der))
        bodies += der
    return entries + bytes(24) + bodies


def snp_table(chain: tuple[bytes, ...]) -> bytes:
    return certificate_table(dict(zip((VCEK, ASK, ARK), chain, strict=True)))


def rewritten(report: bytes, report_data: bytes, **fields: object) -> bytes:
    """A genuine report that says something else; its signature no longer holds."""
    return replace(SnpReport.parse(report), report_data=report_data, **fields).encode()  # type: ignore[arg-type]


def sev_guest(answer: Answer, table: bytes = b"", *, status: int = 0, size: int | None = None) -> Ioctl:
    """``/dev/sev-guest`` answering SNP_GET_EXT_REPORT, by the frames of include/uapi/linux/sev-guest.h."""

    def ioctl(frame: bytearray) -> None:
        assert len(frame) == 32
        version, request, room, errors = struct.unpack("<B7xQQQ", frame)
        assert (version, errors) == (1, 0)
        asked = ctypes.string_at(request, 112)
        report_data, _vmpl = asked[:64], int.from_bytes(asked[64:68], "little")
        assert asked[68:96] == bytes(28)
        address, length = struct.unpack("<QI", asked[96:108])
        assert length % 4096 == 0
        assert length <= 0x4000
        report = answer(report_data)
        body = struct.pack("<II24x", status, len(report) if size is None else size) + report
        ctypes.memmove(room, body.ljust(4000, b"\0"), 4000)
        ctypes.memmove(address, table, len(table))

    return ioctl


def refusing_sev_guest(firmware: int, host: int, number: int = errno.EIO) -> Ioctl:
    def ioctl(frame: bytearray) -> None:
        frame[24:32] = struct.pack("<II", firmware, host)
        raise refusal(number)

    return ioctl


def tdx_guest(td: bytes | None = None, *, report_data: bytes | None = None) -> Ioctl:
    """``/dev/tdx_guest`` answering TDX_CMD_GET_REPORT0: a TDREPORT of this test's own making."""

    def ioctl(frame: bytearray) -> None:
        assert len(frame) == 64 + 1024
        report = bytearray(1024)
        report[0] = 0x81
        report[128:192] = bytes(frame[:64]) if report_data is None else report_data
        info = td if td is not None else bytes(512)
        report[512:1024] = info
        frame[64:] = report

    return ioctl


def nsm(answer: Callable[[dict[str, object]], bytes], *, length: int | None = None) -> Ioctl:
    """``/dev/nsm``: two iovecs, CBOR in and out, as the kernel's driver passes them on."""

    def ioctl(frame: bytearray) -> None:
        assert len(frame) == 32
        request, size, room, most = struct.unpack("<QQQQ", frame)
        assert size <= 0x1000
        assert most == 0x3000
        reply = answer(cbor2.loads(ctypes.string_at(request, size)))
        ctypes.memmove(room, reply, min(len(reply), most))
        frame[24:32] = struct.pack("<Q", len(reply) if length is None else length)

    return ioctl


def nitro_document(genuine: bytes, user_data: bytes, public_key: bytes | None = None) -> bytes:
    """A genuine document that says something else; its signature no longer holds."""
    protected, unprotected, payload, signature = cbor2.loads(genuine)
    said = cbor2.loads(payload) | {"user_data": user_data, "public_key": public_key, "nonce": None}
    return cbor2.dumps([protected, unprotected, cbor2.dumps(said), signature])


PROTECTING = GpuMode(confidential=True, production=True, developer_tools=False)


@dataclass
class RecordedGpus:
    """GPUs as the driver shows them.

    Attributes:
        reports: what each answers, given the nonce.
        chains: the PEM chain of each.
        state: the system's mode.
        ready: whether they were let work.
    """

    reports: tuple[Answer, ...]
    chains: tuple[bytes, ...]
    state: GpuMode = PROTECTING
    ready: bool = False

    def count(self) -> int:
        return len(self.reports)

    def mode(self) -> GpuMode:
        return self.state

    def report(self, index: int, nonce: bytes) -> bytes:
        return self.reports[index](nonce)

    def chain(self, index: int) -> bytes:
        return self.chains[index]

    def accept_work(self) -> None:
        self.ready = True


def no_gpus() -> RecordedGpus:
    raise CollectError("collect.absent", "NVIDIA's driver is not on this machine.")


def is_device(machine: RecordedMachine) -> Device:
    """Held to the port's type by mypy."""
    return machine
