"""``cloister enclave detect``: what this machine is, and why it is or isn't a trusted environment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import typer

from cloister.cli.options import Debug, Json
from cloister.cli.text import printable

if TYPE_CHECKING:
    from cloister.enclave.detect import Detection

NAMES: Final = {
    "amd-sev-snp": "an AMD SEV-SNP guest",
    "intel-tdx": "an Intel TDX guest",
    "intel-sgx": "an Intel SGX enclave",
    "aws-nitro": "an AWS Nitro enclave",
}


def attach(group: typer.Typer) -> None:
    """Attach the command to its group."""
    group.command(
        "detect",
        help="Say what this machine is, and why it is or isn't a trusted execution environment. It asks "
        "nothing of the hardware, and what it finds proves nothing: `enclave start` demands the proof.",
        epilog="Example:  cloister enclave detect --json",
    )(_detect)


def _detect(as_json: Json = False, debug: Debug = False) -> int:
    from cloister.enclave.attestation.collect import LinuxDevice, Nvml
    from cloister.enclave.detect import detect
    from cloister.enclave.observed import observe

    found = detect(observe(LinuxDevice(), Nvml.open))
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        print("\n".join(map(printable, lines(found))))
    return 0


def lines(found: Detection) -> list[str]:
    """A detection in plain words.

    Args:
        found: what the machine seems to be.
    """
    if found.kind is not None:
        told = [f"This machine looks like {NAMES[found.kind.value]}."]
    elif found.memory_encryption_only:
        told = [
            "This machine is not a trusted execution environment: its memory may be encrypted, "
            "but it can prove nothing."
        ]
    else:
        told = ["This machine is not a trusted execution environment."]
    told += [f"  - {reason}" for reason in found.reasons]
    if found.host_capabilities:
        told.append("What it could do for guests of its own, which protects nothing that runs here:")
        told += [f"  - {one}" for one in found.host_capabilities]
    if found.gpus:
        told.append(f"GPUs: {found.gpus}.")
    if found.unreadable:
        told.append("This user may not look at these; root may:")
        told += [f"  - {path}" for path in found.unreadable]
    if found.kind is None:
        told.append("`cloister enclave start` refuses to start here, but for --simulation and --insecure.")
    else:
        told.append("The hypervisor may have made that up. `cloister enclave start` demands a signed proof.")
    return told
