"""A program of this package: what was typed, run to an exit code, whatever it leads to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import typer

from cloister.cli.failure import EXIT_INTERRUPTED, EXIT_USAGE, guarded, interrupted, show_error
from cloister.core.outlets import guarded_outlets

Application = Callable[[list[str]], typer.Typer]


def run_program(name: str, application: Application, arguments: Sequence[str]) -> int:
    """Run a command line.

    Args:
        name: of the program, as it is typed.
        application: makes its commands; given the words, so that only what is needed is loaded.
        arguments: what was typed after it.

    Returns:
        The exit code.
    """
    words = list(arguments)
    as_json = "--json" in words
    if "--debug" in words:
        return guarded(lambda: _typed(name, application, words, as_json=as_json), as_json=as_json, debug=True)
    with guarded_outlets():
        return guarded(
            lambda: _typed(name, application, words, as_json=as_json), as_json=as_json, debug=False
        )


def _typed(name: str, application: Application, words: list[str], *, as_json: bool) -> int:
    try:
        code = application(words)(words, prog_name=name, standalone_mode=False)
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        # Without any argument the help was shown, and the exception says no more.
        if message:
            context = getattr(error, "ctx", None)
            command = name if context is None else context.command_path
            show_error("usage.wrong", message, f"See: {command} --help", as_json=as_json)
        return EXIT_USAGE
    except typer.Abort:
        return interrupted(as_json=as_json)
    if code == EXIT_INTERRUPTED:
        # Typer turns an interrupt into this code.
        return interrupted(as_json=as_json)
    return code if isinstance(code, int) else 0
