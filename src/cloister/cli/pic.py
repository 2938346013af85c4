"""The ``pic`` command: the immune system of watched services, from outside of them.

Exit codes are those of ``cloister``: 0 done; 1 the audit doesn't verify; 2 wrong input or usage; 5 the
machine.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from cloister.cli import pic_code, pic_detectors, pic_operating, pic_service, pic_status
from cloister.cli.program import run_program


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: what was typed after ``pic``; by default the process's own.
    """
    sys.exit(run_program("pic", _application, sys.argv[1:] if arguments is None else arguments))


def _application(_: list[str]) -> typer.Typer:
    app = typer.Typer(
        name="pic",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Watch how functions behave, see what is unusual, and stop it before it happens.",
        epilog="Start with:  pic demo",
    )
    pic_service.attach(app)
    pic_status.attach(app)
    pic_operating.attach(app)
    app.add_typer(pic_detectors.group(), name="detectors")
    app.add_typer(pic_code.group(), name="code")
    return app


if __name__ == "__main__":
    main()
