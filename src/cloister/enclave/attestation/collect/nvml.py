"""Evidence of the GPUs of this machine, by NVIDIA's management library.

Rules kept here:

* A GPU's report is asked for only where the system is in confidential mode, in production, with developer
  tools off: with those on, the host may look into the GPU, and its report says so to nobody.
* Every GPU that the driver shows is asked; one that gives no report leaves none.
* A GPU takes work only after `GpuPort.accept_work`, which the launcher calls when its report was verified.

The library is ``nvidia-ml-py`` (the extra ``gpu``), loaded when first used. Never run on a GPU in
confidential mode: the tests stand in at `GpuPort` with reports that NVIDIA's GPUs made, and at the library's
own functions.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Protocol

from cloister.enclave.attestation.collect.device import malformed_answer, other_answer
from cloister.enclave.attestation.evidence import MAX_DEVICES, Evidence, Tee
from cloister.enclave.errors import CollectError

NONCE_BYTES = 32
NONCE_AT = 4
_REQUEST_BYTES = 37
_MAX_REPORT_BYTES = 64 * 1024
_MAX_CHAIN_BYTES = 64 * 1024
_PRODUCTION = 2
_WHAT = "The GPU"


@dataclass(frozen=True)
class GpuMode:
    """In what mode the driver says the system's GPUs are.

    Attributes:
        confidential: whether confidential computing is on.
        production: whether it is the production environment, not a simulation.
        developer_tools: whether debuggers and profilers may look into the GPU.
    """

    confidential: bool
    production: bool
    developer_tools: bool


class GpuPort(Protocol):
    """What the driver answers. Every method raises CollectError where it doesn't."""

    def count(self) -> int:
        """How many GPUs there are."""
        ...

    def mode(self) -> GpuMode:
        """In what mode they are."""
        ...

    def report(self, index: int, nonce: bytes) -> bytes:
        """A GPU's signed answer to a nonce of 32 bytes: request and response."""
        ...

    def chain(self, index: int) -> bytes:
        """The certificates of a GPU's attestation key, PEM, the key's own first."""
        ...

    def accept_work(self) -> None:
        """Let the GPUs take work."""
        ...


def gpu_evidence(gpus: GpuPort, nonce: bytes) -> tuple[Evidence, ...]:
    """Have every GPU of the machine answer a nonce.

    Args:
        gpus: the driver.
        nonce: 32 bytes, see `Binding.device_nonce`.

    Returns:
        The evidence of each GPU, in the driver's order; none where there is no GPU.

    Raises:
        CollectError: collect.gpu_mode, or what kept one of them from an answer.
    """
    if len(nonce) != NONCE_BYTES:
        raise CollectError("collect.request", "A GPU's nonce has another length than 32 bytes.")
    count = gpus.count()
    if count == 0:
        return ()
    if not 0 < count <= MAX_DEVICES:
        raise CollectError("collect.refused", f"More than {MAX_DEVICES} GPUs can't be shown as one machine.")
    require_confidential(gpus.mode())
    return tuple(_evidence(gpus, index, nonce) for index in range(count))


def require_confidential(mode: GpuMode) -> None:
    """Refuse GPUs that the host can look into.

    Raises:
        CollectError: collect.gpu_mode with every reason.
    """
    reasons = [
        reason
        for reason, wrong in (
            ("confidential computing is off", not mode.confidential),
            ("the environment isn't the production one", not mode.production),
            ("developer tools are on", mode.developer_tools),
        )
        if wrong
    ]
    if reasons:
        raise CollectError(
            "collect.gpu_mode",
            "The GPUs of this machine don't protect what they work on.",
            "Have the host put them into confidential mode (CC mode on, not devtools), and start again.",
            details=reasons,
        )


def _evidence(gpus: GpuPort, index: int, nonce: bytes) -> Evidence:
    report = gpus.report(index, nonce)
    if not _REQUEST_BYTES < len(report) <= _MAX_REPORT_BYTES:
        raise malformed_answer(_WHAT)
    if report[NONCE_AT : NONCE_AT + NONCE_BYTES] != nonce:
        raise other_answer(_WHAT)
    return Evidence(Tee.NVIDIA_GPU, report, _der_chain(gpus.chain(index)))


def _der_chain(pem: bytes) -> tuple[bytes, ...]:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    if len(pem) > _MAX_CHAIN_BYTES:
        raise malformed_answer(_WHAT)
    try:
        certificates = x509.load_pem_x509_certificates(pem.rstrip(b"\0"))
    except ValueError:
        raise malformed_answer(_WHAT) from None
    return tuple(one.public_bytes(Encoding.DER) for one in certificates)


class Nvml:
    """The driver of this machine, through ``pynvml``.

    Args:
        library: the module ``pynvml``, with its library initialised.
    """

    def __init__(self, library: ModuleType) -> None:
        self._library = library

    @classmethod
    def open(cls) -> Nvml:
        """The driver of this machine.

        Raises:
            CollectError: collect.library where ``nvidia-ml-py`` is not installed; collect.absent where
                there is no driver.
        """
        try:
            pynvml = import_module("pynvml")
        except ImportError:
            raise CollectError(
                "collect.library",
                "The library that speaks to NVIDIA's driver is not installed.",
                'Install it:  pip install ".[gpu]"',
            ) from None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            raise CollectError("collect.absent", "NVIDIA's driver is not on this machine.") from None
        return cls(pynvml)

    def count(self) -> int:
        """See `GpuPort.count`."""
        return int(self._ask("nvmlDeviceGetCount"))

    def mode(self) -> GpuMode:
        """See `GpuPort.mode`."""
        state = self._ask("nvmlSystemGetConfComputeState")
        return GpuMode(
            confidential=state.ccFeature == 1,
            production=state.environment == _PRODUCTION,
            # Anything but a plain "off" counts as on.
            developer_tools=state.devToolsMode != 0,
        )

    def report(self, index: int, nonce: bytes) -> bytes:
        """See `GpuPort.report`."""
        answer = self._ask("nvmlDeviceGetConfComputeGpuAttestationReport", self._device(index), nonce)
        return _bytes(answer.attestationReport, answer.attestationReportSize)

    def chain(self, index: int) -> bytes:
        """See `GpuPort.chain`."""
        answer = self._ask("nvmlDeviceGetConfComputeGpuCertificate", self._device(index))
        return _bytes(answer.attestationCertChain, answer.attestationCertChainSize)

    def accept_work(self) -> None:
        """See `GpuPort.accept_work`."""
        self._ask("nvmlSystemSetConfComputeGpusReadyState", 1)

    def _device(self, index: int):  # type: ignore[no-untyped-def]  # the library ships no types
        return self._ask("nvmlDeviceGetHandleByIndex", index)

    def _ask(self, name: str, *arguments: object):  # type: ignore[no-untyped-def]
        try:
            return getattr(self._library, name)(*arguments)
        except self._library.NVMLError as error:
            number = int(getattr(error, "value", 0))
            raise CollectError("collect.refused", f"NVIDIA's driver refused {name} ({number}).") from None


def _bytes(array: ctypes.Array[ctypes.c_uint8], size: int) -> bytes:
    if not 0 < size <= len(array):
        raise malformed_answer(_WHAT)
    return bytes(array)[:size]
