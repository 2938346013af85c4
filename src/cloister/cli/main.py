"""The ``cloister`` command: its subcommands and what a wrong word in it leads to.

Heavy libraries are imported inside the commands that need them, so that ``--help`` stays quick.

Exit codes: 0 done and accepted; 1 a verification failed or the model missed its threshold; 2 wrong
input or usage; 3 refused by policy, budget or airlock; 4 attestation refused; 5 the machine (disk,
permission, something in use); 70 a defect in cloister; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from cloister.cli import commands
from cloister.cli.failure import EXIT_INTERRUPTED, EXIT_USAGE, guarded, interrupted, show_error

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
commands.attach(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: What was typed after ``cloister``; by default the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    as_json = "--json" in words
    return guarded(lambda: _typed(words, as_json=as_json), as_json=as_json, debug="--debug" in words)


def _typed(words: list[str], *, as_json: bool) -> int:
    try:
        code = app(words, prog_name="cloister", standalone_mode=False)
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        # Without any argument the help was shown, and the exception says no more.
        if message:
            context = getattr(error, "ctx", None)
            command = "cloister" if context is None else context.command_path
            show_error("usage.wrong", message, f"See: {command} --help", as_json=as_json)
        return EXIT_USAGE
    except typer.Abort:
        return interrupted(as_json=as_json)
    if code == EXIT_INTERRUPTED:
        # Typer turns an interrupt into this code.
        return interrupted(as_json=as_json)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
