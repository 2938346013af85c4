"""The kernel command line of a confidential VM, and the SEV-SNP launch digest that follows from it.

    ops/cvm/launch_digest.py --ovmf OVMF.amdsev.fd --kernel vmlinuz --initrd initrd.img \
        --root-hash HEX --vcpus 16 --vcpu-type EPYC-Genoa

With direct boot, firmware that measures hashes (OVMF built for AmdSev) puts kernel, initial file system and
command line into the launch digest. The command line names the root of a dm-verity tree, so the digest names
every block of the read-only system. `sev-snp-measure` computes it offline; this script only calls it. It was
compared with no real machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

SNP_ACTIVE = 0x1
_ROOT_HASH = re.compile(r"[0-9a-f]{64}")

ALWAYS = (
    # Freed memory holds nothing of a record, and memory is handed out empty.
    "init_on_free=1",
    "init_on_alloc=1",
    # Nothing of memory reaches a disk: no swap, no hibernation, no crash kernel, no core file.
    "systemd.swap=0",
    "nohibernate",
    "sysctl.kernel.kexec_load_disabled=1",
    "systemd.mask=kdump.service",
    "systemd.mask=kdump-tools.service",
    "sysctl.kernel.core_pattern=|/bin/false",
    # Root in the guest can't read the kernel's memory or load code that isn't signed.
    "lockdown=confidentiality",
    "module.sig_enforce=1",
    # Nothing that wasn't measured is mounted, and no shell opens when that fails.
    "systemd.gpt_auto=0",
    "rd.systemd.gpt_auto=0",
    "rd.shell=0",
    "rd.emergency=halt",
    "panic=-1",
)


def command_line(root_hash: str, data: str = "/dev/vda1", tree: str = "/dev/vda2") -> str:
    """The kernel command line for a verity-protected image.

    Args:
        root_hash: the root of the dm-verity tree as ``veritysetup format`` prints it, 64 hex digits.
        data: the partition with the read-only system.
        tree: the partition with the hash tree.

    Raises:
        ValueError: the root hash isn't one, or a device has a space in its name.
    """
    if not _ROOT_HASH.fullmatch(root_hash):
        raise ValueError("a root hash has 64 hex digits in lower case")
    if any(not device.startswith("/dev/") or device.split() != [device] for device in (data, tree)):
        raise ValueError("a device is named /dev/...")
    verity = (
        f"roothash={root_hash}",
        f"systemd.verity_root_data={data}",
        f"systemd.verity_root_hash={tree}",
        "systemd.verity_root_options=panic-on-corruption",
        "root=/dev/mapper/root",
        "ro",
    )
    return " ".join((*verity, *ALWAYS))


def launch_digest(ovmf: Path, kernel: Path, initrd: Path, append: str, *, vcpus: int, vcpu_type: str) -> str:
    """The launch digest that an SNP guest started by QEMU/KVM reports, 96 hex digits.

    Args:
        ovmf: firmware that measures kernel hashes.
        kernel: the kernel.
        initrd: the initial file system.
        append: the command line, exactly as QEMU passes it.
        vcpus: number of virtual processors.
        vcpu_type: their model, as QEMU names it.

    Raises:
        ImportError: ``sev-snp-measure`` is not installed.
    """
    from sevsnpmeasure import guest, vcpu_types
    from sevsnpmeasure.sev_mode import SevMode

    digest: bytes = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        vcpus,
        vcpu_types.CPU_SIGS[vcpu_type],
        str(ovmf),
        str(kernel),
        str(initrd),
        append,
        SNP_ACTIVE,
    )
    return digest.hex()


def main(words: Sequence[str] | None = None) -> int:
    """Print the command line and the digest."""
    parser = argparse.ArgumentParser(description="The SEV-SNP launch digest of a verity-protected image.")
    add = parser.add_argument
    add("--ovmf", type=Path, required=True, help="firmware, built for AmdSev")
    add("--kernel", type=Path, required=True)
    add("--initrd", type=Path, required=True)
    add("--root-hash", required=True, help="what veritysetup format printed")
    add("--data", default="/dev/vda1", help="partition with the read-only system")
    add("--tree", default="/dev/vda2", help="partition with the hash tree")
    add("--vcpus", type=int, required=True)
    add("--vcpu-type", required=True, help="as QEMU names it, such as EPYC-Genoa")
    typed = parser.parse_args(words)
    append = command_line(typed.root_hash, typed.data, typed.tree)
    try:
        digest = launch_digest(
            typed.ovmf, typed.kernel, typed.initrd, append, vcpus=typed.vcpus, vcpu_type=typed.vcpu_type
        )
    except ImportError:
        print('sev-snp-measure is not installed:  pip install ".[launch-digest]"', file=sys.stderr)
        return 2
    print(f"append:      {append}")
    print(f"measurement: {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
