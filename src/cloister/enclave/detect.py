"""What a machine is, judged by what there is to see on it: a pure function of observed facts.

Rules kept here:

* Every fact but one is the hypervisor's to make up (inside Gramine, the library OS answers). A hint says
  whom to ask for evidence; it never says that a machine is protected. That follows from a verified
  self-quote only.
* What a processor could do for its guests (``sev_snp``, ``sgx``, ``/dev/sev``) is a capability of the host
  and protects nothing that runs on it.
* Encrypted memory of which nobody can be given proof isn't a trusted execution environment.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.core.canonical import JSON
from cloister.enclave.attestation.collect.gramine import QUOTE
from cloister.enclave.attestation.collect.nsm import NSM
from cloister.enclave.attestation.collect.sevguest import SEV_GUEST
from cloister.enclave.attestation.collect.source import EvidenceSource
from cloister.enclave.attestation.collect.tdxguest import TDX_GUEST
from cloister.enclave.attestation.collect.tsm import REPORTS, SNP_PROVIDER, TDX_PROVIDER
from cloister.enclave.attestation.evidence import Tee
from cloister.enclave.observed import EVENT_LOG_TABLE, HOST_SEV, HOST_SGX, Observed

SEV_ON, SEV_ES_ON, SNP_ON = 1 << 0, 1 << 1, 1 << 2
_CAPABILITIES = {
    "sme": "the processor can encrypt memory for its host (sme)",
    "sev": "the processor can run guests with encrypted memory (sev)",
    "sev_es": "the processor can run guests with encrypted registers (sev_es)",
    "sev_snp": "the processor can run SEV-SNP guests (sev_snp)",
    "sgx": "the processor can run SGX enclaves (sgx)",
    "tme": "the processor can encrypt all memory (tme)",
    "tdx_host_platform": "the processor can run TDX guests (tdx_host_platform)",
}


@dataclass(frozen=True)
class Hint:
    """A way to evidence that the machine seems to offer.

    Attributes:
        source: the way.
        tee: the kind of hardware that would answer.
        reason: what was seen.
    """

    source: EvidenceSource
    tee: Tee
    reason: str


@dataclass(frozen=True)
class Detection:
    """What a machine seems to be.

    Attributes:
        hints: ways to evidence, best first; none where the machine is no trusted execution environment.
        reasons: why it is or isn't one, in plain words.
        memory_encryption_only: whether memory is encrypted, or seems to be, without any way to prove it.
        host_capabilities: what the processor could do for guests of its own.
        gpus: what there is to say about GPUs; empty where there is none.
        unreadable: what this user may not look at.
        vmpl: the privilege level that an SNP guest has to name to its device.
    """

    hints: tuple[Hint, ...]
    reasons: tuple[str, ...]
    memory_encryption_only: bool
    host_capabilities: tuple[str, ...]
    gpus: str
    unreadable: tuple[str, ...]
    vmpl: int

    @property
    def kind(self) -> Tee | None:
        """The kind of hardware that the best hint names."""
        return self.hints[0].tee if self.hints else None

    def as_json(self) -> dict[str, JSON]:
        """The detection as plain JSON values."""
        return {
            "kind": None if self.kind is None else self.kind.value,
            "hints": [
                {"source": one.source.value, "tee": one.tee.value, "reason": one.reason} for one in self.hints
            ],
            "reasons": [*self.reasons],
            "memory_encryption_only": self.memory_encryption_only,
            "host_capabilities": [*self.host_capabilities],
            "gpus": self.gpus,
            "unreadable": [*self.unreadable],
        }


def detect(seen: Observed) -> Detection:
    """Judge what a machine is.

    Args:
        seen: the facts.
    """
    hints = _hints(seen)
    encrypted = _unproven_encryption(seen)
    only = bool(encrypted) and not hints
    return Detection(
        hints=hints,
        reasons=(*(hint.reason for hint in hints), *_against(seen), *encrypted, *_nothing(seen, hints)),
        memory_encryption_only=only,
        host_capabilities=_capabilities(seen),
        gpus=_gpus(seen),
        unreadable=seen.unreadable,
        vmpl=seen.vmpl or 0,
    )


def _hints(seen: Observed) -> tuple[Hint, ...]:
    found: list[Hint] = []
    if QUOTE in seen.present and seen.gramine_type == "dcap":
        found.append(
            Hint(EvidenceSource.GRAMINE, Tee.INTEL_SGX, "Gramine serves SGX quotes under /dev/attestation")
        )
    kinds = {SNP_PROVIDER: Tee.AMD_SEV_SNP, TDX_PROVIDER: Tee.INTEL_TDX}
    tee = kinds.get(seen.tsm_provider or "")
    if tee is not None:
        reason = f"the kernel gives reports through configfs-tsm as {seen.tsm_provider}"
        found.append(Hint(EvidenceSource.CONFIGFS_TSM, tee, reason))
    devices = (
        (SEV_GUEST, EvidenceSource.SEV_GUEST, Tee.AMD_SEV_SNP, "gives SNP reports"),
        (NSM, EvidenceSource.NITRO, Tee.AWS_NITRO, "gives Nitro attestation documents"),
    )
    found += [
        Hint(source, kind, f"{path} {what}") for path, source, kind, what in devices if path in seen.present
    ]
    if TDX_GUEST in seen.present and tee is not Tee.INTEL_TDX:
        reason = f"{TDX_GUEST} is there, which gives local evidence only; quotes need configfs-tsm"
        found.append(Hint(EvidenceSource.TDX_GUEST, Tee.INTEL_TDX, reason))
    return tuple(found)


def _against(seen: Observed) -> list[str]:
    """What speaks against a hint, or explains why there is none."""
    reasons: list[str] = []
    if QUOTE in seen.present and seen.gramine_type != "dcap":
        reasons.append("Gramine runs here without DCAP attestation, so nobody elsewhere can verify it")
    if REPORTS in seen.present and seen.tsm_provider is None:
        reasons.append("configfs-tsm is there, but doesn't say for which kind of guest")
    elif seen.tsm_provider not in (None, SNP_PROVIDER, TDX_PROVIDER):
        reasons.append("configfs-tsm serves a kind of guest that is not verified here")
    if SEV_GUEST in seen.present and seen.sev_status is not None and not seen.sev_status & SNP_ON:
        reasons.append(f"{SEV_GUEST} is there although SEV_STATUS says that SNP is off")
    guest_flag = "tdx_guest" in seen.cpu_flags
    if guest_flag and TDX_GUEST not in seen.present and seen.tsm_provider != TDX_PROVIDER:
        reasons.append("the processor says this is a TDX guest, but nothing here gives evidence of it")
    if EVENT_LOG_TABLE in seen.present and not (
        guest_flag or seen.tsm_provider or seen.present & {SEV_GUEST}
    ):
        reasons.append("there is a confidential-computing event log (CCEL), but nothing that signs it")
    return reasons


def _nothing(seen: Observed, hints: tuple[Hint, ...]) -> tuple[str, ...]:
    """What was looked for in vain, on what kind of machine."""
    if hints:
        return ()
    machine = "a virtual machine" if "hypervisor" in seen.cpu_flags else "a machine without a hypervisor"
    return (
        f"it is {machine} that offers no way to evidence: no provider in configfs-tsm, no /dev/sev-guest, "
        "/dev/tdx_guest or /dev/nsm, no Gramine",
    )


def _unproven_encryption(seen: Observed) -> list[str]:
    """Memory that is encrypted, or seems to be, of which there is no proof."""
    reasons: list[str] = []
    status = seen.sev_status or 0
    if status & (SEV_ON | SEV_ES_ON) and not status & SNP_ON:
        kind = "SEV-ES" if status & SEV_ES_ON else "SEV"
        reasons.append(f"memory is encrypted by {kind}, which a guest can't prove to anybody")
    if "sme" in seen.cpu_flags and "mem_encrypt=on" in seen.kernel_parameters:
        reasons.append("memory is encrypted by SME, which nobody can be given proof of")
    if "tme" in seen.cpu_flags:
        reasons.append("memory may be encrypted by TME, which nobody can be given proof of")
    return reasons


def _capabilities(seen: Observed) -> tuple[str, ...]:
    found = [text for flag, text in _CAPABILITIES.items() if flag in seen.cpu_flags]
    if HOST_SEV in seen.present:
        found.append(f"{HOST_SEV} is there: this machine may start SEV guests")
    if HOST_SGX in seen.present:
        found.append(f"{HOST_SGX} is there: this machine may start SGX enclaves")
    names = {"snp": "SEV-SNP", "tdx": "TDX"}
    found += [f"the kernel may start {names[one]} guests" for one in sorted(seen.host_modules)]
    return tuple(found)


def _gpus(seen: Observed) -> str:
    if not seen.gpus:
        return ""
    mode = seen.gpu_mode
    if mode is None:
        return f"{seen.gpus} GPU(s), of which the driver doesn't tell a confidential mode"
    state = "on" if mode.confidential and mode.production else "off"
    tools = ", developer tools on" if mode.developer_tools else ""
    return f"{seen.gpus} GPU(s), confidential mode {state}{tools}"
