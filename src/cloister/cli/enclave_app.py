"""``cloister enclave``: the commands around protected machines, each in a module of its own."""

from __future__ import annotations

import typer

from cloister.cli import enclave_detect, enclave_launch, enclave_simulate, enclave_verify


def attach(app: typer.Typer, says: str) -> None:
    """Attach the group to the application.

    Args:
        app: the application.
        says: what its help says of the group.
    """
    group = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help=says,
        epilog="Start with:  cloister enclave detect",
    )
    enclave_detect.attach(group)
    enclave_verify.attach(group)
    enclave_launch.attach(group)
    enclave_simulate.attach(group)
    app.add_typer(group, name="enclave")
