"""What there is to see on a machine that may be a trusted execution environment: facts, not judged.

One function looks, through the door that the collectors use too. What a user may not read is named, so that
"not there" and "not allowed to look" stay apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloister.enclave.attestation.collect.device import Device
from cloister.enclave.attestation.collect.gramine import ATTESTATION_TYPE, QUOTE
from cloister.enclave.attestation.collect.nsm import NSM
from cloister.enclave.attestation.collect.nvml import GpuMode, GpuPort
from cloister.enclave.attestation.collect.sevguest import SEV_GUEST
from cloister.enclave.attestation.collect.tdxguest import TDX_GUEST
from cloister.enclave.attestation.collect.tsm import REPORTS, tsm_provider
from cloister.enclave.errors import CollectError

CPU_FILE = "/proc/cpuinfo"
COMMAND_LINE = "/proc/cmdline"
SEV_VMPL = "/sys/devices/system/cpu/sev/vmpl"
SEV_STATUS_FILE = "/dev/cpu/0/msr"
SEV_STATUS_REGISTER = 0xC0010131
EVENT_LOG_TABLE = "/sys/firmware/acpi/tables/CCEL"
HOST_SEV = "/dev/sev"
HOST_SGX = "/dev/sgx_enclave"
HOST_TDX = "/sys/module/kvm_intel/parameters/tdx"
HOST_SNP = "/sys/module/kvm_amd/parameters/sev_snp"
WATCHED = (QUOTE, REPORTS, SEV_GUEST, NSM, TDX_GUEST, EVENT_LOG_TABLE, HOST_SEV, HOST_SGX, SEV_STATUS_FILE)
_MAX_TEXT = 4 * 1024 * 1024
_MAX_WORD = 64


@dataclass(frozen=True)
class Observed:
    """Facts about one machine.

    Attributes:
        cpu_flags: the first processor's feature flags.
        kernel_parameters: the words of the kernel's command line.
        present: which of ``WATCHED`` exist.
        tsm_provider: which kind of guest configfs-tsm says this is; None where it says nothing.
        gramine_type: Gramine's attestation type; None outside of Gramine.
        vmpl: the SNP guest's privilege level, as the kernel says; None where it doesn't.
        sev_status: AMD's SEV_STATUS register; None where it can't be read.
        host_modules: which of the host's own switches are on: "snp", "tdx".
        gpus: how many GPUs NVIDIA's driver shows; None where there is no driver, or no library to ask it.
        gpu_mode: in what mode they are; None where there is none.
        unreadable: what this user may not look at.
    """

    cpu_flags: frozenset[str] = frozenset()
    kernel_parameters: frozenset[str] = frozenset()
    present: frozenset[str] = frozenset()
    tsm_provider: str | None = None
    gramine_type: str | None = None
    vmpl: int | None = None
    sev_status: int | None = None
    host_modules: frozenset[str] = frozenset()
    gpus: int | None = None
    gpu_mode: GpuMode | None = None
    unreadable: tuple[str, ...] = ()


def observe(device: Device, open_gpus: Callable[[], GpuPort]) -> Observed:
    """Look at this machine.

    Args:
        device: the operating system.
        open_gpus: gives the GPUs' driver, or raises CollectError where there is none.

    Returns:
        What there is to see; looking never fails.
    """
    unreadable: list[str] = []

    def text(path: str, limit: int = _MAX_WORD) -> str | None:
        try:
            return device.read(path, limit).decode("ascii", "replace").strip()
        except PermissionError:
            unreadable.append(path)
        except OSError:
            pass
        return None

    present = frozenset(path for path in WATCHED if device.present(path))
    modules = {"snp": text(HOST_SNP), "tdx": text(HOST_TDX)}
    gpus, mode = _gpus(open_gpus)
    provider: str | None = None
    if REPORTS in present:
        try:
            provider = tsm_provider(device)
        except CollectError as error:
            if error.code == "collect.denied":
                unreadable.append(REPORTS)
    return Observed(
        cpu_flags=_flags(text(CPU_FILE, _MAX_TEXT) or ""),
        kernel_parameters=frozenset((text(COMMAND_LINE, 1 << 16) or "").split()),
        present=present,
        tsm_provider=provider,
        gramine_type=text(ATTESTATION_TYPE) if QUOTE in present else None,
        vmpl=_small(text(SEV_VMPL)),
        sev_status=_status(device, present, unreadable),
        host_modules=frozenset(name for name, value in modules.items() if value in ("Y", "1")),
        gpus=gpus,
        gpu_mode=mode,
        unreadable=tuple(unreadable),
    )


def _flags(cpuinfo: str) -> frozenset[str]:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _small(word: str | None) -> int | None:
    return int(word) if word is not None and word in ("0", "1", "2", "3") else None


def _status(device: Device, present: frozenset[str], unreadable: list[str]) -> int | None:
    if SEV_STATUS_FILE not in present:
        return None
    try:
        value = device.read_at(SEV_STATUS_FILE, SEV_STATUS_REGISTER, 8)
    except PermissionError:
        unreadable.append(SEV_STATUS_FILE)
        return None
    except OSError:
        return None
    return int.from_bytes(value, "little") if len(value) == 8 else None


def _gpus(open_gpus: Callable[[], GpuPort]) -> tuple[int | None, GpuMode | None]:
    try:
        driver = open_gpus()
        count = driver.count()
    except CollectError:
        return None, None
    try:
        return count, driver.mode() if count else None
    except CollectError:
        return count, None
