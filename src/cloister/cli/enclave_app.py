"""``cloister enclave``: the commands around protected machines, each in a module of its own."""

from __future__ import annotations

import typer

from cloister.cli import enclave_detect, enclave_launch, enclave_simulate, enclave_verify


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    enclave_detect.attach(group)
    enclave_verify.attach(group)
    enclave_launch.attach(group)
    enclave_simulate.attach(group)
