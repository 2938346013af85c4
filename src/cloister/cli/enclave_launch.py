"""``cloister enclave start``: run a job on this machine if it proves that it is protected, else refuse.

Without a switch nothing starts that isn't proved (exit code 78). ``--simulation`` rehearses on made-up chips;
``--insecure`` runs without protection and marks everything. No environment variable stands in for either.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import Debug, Json, LaunchFile, LaunchFolder, Workspace

if TYPE_CHECKING:
    from cloister.enclave.launch_file import LaunchConfiguration
    from cloister.workflow.attester import ProvenMachine

INSECURE_WARNING = """\
********************************************************************************
*  INSECURE: this machine has not proved that anything protects the records.   *
*  Its owner can read all that is in memory. No keys are released to this run, *
*  every output and log line says INSECURE, and its receipt is refused.        *
********************************************************************************"""


def attach(group: typer.Typer) -> None:
    """Attach the command to its group."""
    group.command(
        "start",
        help="Run a job if this machine proves that it is protected: a fresh report of its own hardware, "
        "verified to the vendor's root, debugging off, GPUs in confidential mode. Otherwise refuse with 78.",
        epilog="Examples:  cloister enclave start JOB -f /etc/cloister   ·   "
        "cloister enclave start JOB --simulation",
    )(_start)


def _start(
    job: Annotated[
        Path, typer.Argument(metavar="JOB", help="The job file, such as examples/tumour/job.yaml.")
    ],
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE", help="Settings for this run alone, as in cloister.toml.", show_default=False
        ),
    ] = None,
    workspace: Workspace = None,
    conf: LaunchFile = None,
    config_folder: LaunchFolder = Path(),
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            envvar="COREASON_DATA_ROOT",
            show_default="CLOISTER_DATA_DIR, or cloister.toml",
            help="Folder with the data files, if the job needs any.",
        ),
    ] = None,
    simulation: Annotated[
        bool, typer.Option("--simulation", help="Rehearse on made-up chips; every artifact says SIMULATED.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Run without protection; everything says INSECURE and is refused."),
    ] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no tables.")] = False,
    debug: Debug = False,
) -> int:
    from cloister.enclave.launch import require_switches_for
    from cloister.enclave.protection import Protection

    if simulation and insecure:
        raise typer.BadParameter("--simulation and --insecure are two different things: give one of them.")
    settings = _settings(options or [])
    require_switches_for(os.environ, simulation=simulation, insecure=insecure)
    configuration = launch_configuration(config_folder, conf)
    machine = None if simulation or insecure else proven_machine(configuration, quiet=quiet or as_json)
    protection = Protection.SIMULATED
    if insecure:
        protection = Protection.INSECURE
        print(INSECURE_WARNING, file=sys.stderr)

    from cloister.cli.run import run_command

    return run_command(
        job,
        workspace,
        data,
        None,
        as_json=as_json,
        quiet=quiet,
        protection=protection,
        machine=machine,
        options=settings,
    )


def _settings(options: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not (sign and name.isidentifier()) or name in found:
            raise typer.BadParameter("Extra options are written NAME=VALUE, each name once.")
        found[name] = value
    return found


def launch_configuration(folder: Path, conf: Path | None) -> LaunchConfiguration:
    """What a machine is asked to prove.

    Args:
        folder: the configuration folder.
        conf: the file, relative to it; None for ``enclave.toml``, where there is one.

    Raises:
        InputError: a file is missing or wrong.
    """
    from cloister.enclave.launch_file import LAUNCH_FILE, LaunchConfiguration, load_launch_file

    path = folder / (conf if conf is not None else LAUNCH_FILE)
    if conf is None and not path.exists():
        return LaunchConfiguration()
    return load_launch_file(path)


def proven_machine(configuration: LaunchConfiguration, *, quiet: bool) -> ProvenMachine:
    """This machine, once it has proved that it is protected.

    Args:
        configuration: what it has to prove.
        quiet: whether nothing is printed of it.

    Raises:
        LaunchError: ``launch.unprotected``, with every reason.
    """
    from cloister.core.clock import system_clock
    from cloister.enclave.attestation.collect import LinuxDevice, Machine, Nvml, collector_for
    from cloister.enclave.detect import detect
    from cloister.enclave.launch import gpus_of, require_hint, require_protection
    from cloister.enclave.observed import observe
    from cloister.workflow.attester import ProvenMachine

    device = LinuxDevice()
    detection = detect(observe(device, Nvml.open))
    hint = require_hint(detection)
    gpus = gpus_of(device, Nvml.open)
    collector = collector_for(
        hint.source, device, vmpl=detection.vmpl, certificates=configuration.certificates
    )
    machine = Machine(collector, gpus)
    proof = require_protection(machine, configuration.terms, clock=system_clock, random=os.urandom)
    if not quiet:
        verdict = proof.verdict
        what = "allowed by the policy" if proof.code_checked else "not held against a policy"
        print(
            f"PROTECTED: {verdict.hardware_type}, {len(verdict.checks)} checks passed; its code is {what}",
            file=sys.stderr,
        )
    return ProvenMachine(machine, proof, configuration.terms.collateral)
