"""The ``cloister`` command: its subcommands and what a wrong word in it leads to.

Heavy libraries are imported inside the commands that need them, so that ``--help`` stays quick.

Exit codes: 0 done and accepted; 1 a verification failed or the model missed its threshold; 2 wrong
input or usage; 3 refused by policy, budget or airlock; 4 attestation refused; 5 the machine (disk,
permission, something in use); 70 a defect in cloister; 78 the launcher refuses to start on an unprotected
machine; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from cloister.cli import commands
from cloister.cli.program import run_program


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: What was typed after ``cloister``; by default the process's own.
    """
    sys.exit(run_program("cloister", _application, sys.argv[1:] if arguments is None else arguments))


def _application(words: list[str]) -> typer.Typer:
    app = typer.Typer(
        name="cloister",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Train models on records nobody may see, and give every party a proof of what happened.",
        epilog="Start with:  cloister run examples/tumour/job.yaml",
    )
    commands.attach(app, next((word for word in words if not word.startswith("-")), None))
    return app


if __name__ == "__main__":
    main()
