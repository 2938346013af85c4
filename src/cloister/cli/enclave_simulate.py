"""``cloister enclave simulate``: a made-up hardware vendor, whose root others can accept beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister.cli.options import Debug, Json

ROOT_FILE: Final = "root.pem"


def attach(group: typer.Typer) -> None:
    """Attach the command to its group."""
    group.command(
        "simulate",
        help="Make a made-up hardware vendor: NOT HARDWARE, it protects nothing. Shows its root, which other "
        "parties of a rehearsal accept by name, and the measurement of the code that is installed here.",
        epilog="Example:  cloister enclave simulate vendor/",
    )(_simulate)


def _simulate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is kept; made on first use.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.core.files import write_new
    from cloister.core.keys.folder import private_folder
    from cloister.enclave import SimulatedVendor, code_measurement
    from cloister.enclave.attestation import certificate_pem

    vendor, root = SimulatedVendor.open(private_folder(folder), system_clock), folder / ROOT_FILE
    if not root.exists():
        write_new(root, certificate_pem(vendor.root_der), mode=0o644)
    facts = {
        "root": str(root),
        "measurement": code_measurement().hex(),
        "platform": "SIMULATED - NOT HARDWARE",
    }
    shown = "\n".join(f"{name:14} {value}" for name, value in facts.items())
    print(json.dumps(facts, indent=2) if as_json else shown)
    return 0
