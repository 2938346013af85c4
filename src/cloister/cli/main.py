"""The ``cloister`` command: its subcommands, and the one place where an error becomes an exit code.

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
from cloister.cli.failure import EXIT_DEFECT, EXIT_ENVIRONMENT, EXIT_INTERRUPTED, EXIT_USAGE, show_error
from cloister.core.errors import CloisterError

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
    as_json, debug = "--json" in words, "--debug" in words
    try:
        code = app(words, standalone_mode=False)
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        # Without any argument the help was shown, and the exception says no more.
        if message:
            show_error("usage.wrong", message, "See: cloister --help", as_json=as_json)
        return EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        return _interrupted(as_json=as_json)
    except CloisterError as error:
        if debug:
            raise
        show_error(error.code, error.message, error.hint, error.details, as_json=as_json)
        return error.exit_code
    except BrokenPipeError:
        return EXIT_ENVIRONMENT
    except OSError as error:
        if debug:
            raise
        reason = (error.strerror or type(error).__name__).lower()
        show_error(
            "storage.failed",
            f"the machine refused: {reason}",
            "Look at disk and permissions.",
            as_json=as_json,
        )
        return EXIT_ENVIRONMENT
    except Exception as error:
        if debug:
            raise
        # The message of an unexpected error may hold anything, a record too: its type is all that is shown.
        show_error(
            "internal.defect",
            f"cloister stopped on an unexpected {type(error).__name__}",
            "Run again with --debug on data you may show, and report what it prints.",
            as_json=as_json,
        )
        return EXIT_DEFECT
    if code == EXIT_INTERRUPTED:
        # Typer turns an interrupt into this code.
        return _interrupted(as_json=as_json)
    return code if isinstance(code, int) else 0


def _interrupted(*, as_json: bool) -> int:
    show_error("usage.interrupted", "interrupted; nothing half-written is left", as_json=as_json)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    main()
