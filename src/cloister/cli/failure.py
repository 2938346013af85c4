"""How an error looks to a person and to a machine, and the one place where it becomes an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cloister.cli.advice import advice_on
from cloister.cli.text import printable
from cloister.core.errors import CloisterError

if TYPE_CHECKING:
    from cloister.immune.errors import CallBlocked

EXIT_REFUTED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_ENVIRONMENT = 5
EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130


def show_error(
    code: str, message: str, hint: str = "", details: Sequence[str] = (), *, as_json: bool = False
) -> None:
    """Show one error: a line with its code, every detail, and a hint, on stderr.

    Args:
        code: The error's stable code.
        message: One sentence.
        hint: What to do about it; advice on errors of this kind stands in where there is none.
        details: Every single reason.
        as_json: Print one JSON object on stdout instead, so that a machine reads one stream.
    """
    hint = hint or advice_on(code)
    if as_json:
        error = {"code": code, "message": message, "hint": hint, "details": list(details)}
        print(json.dumps({"error": error}, indent=2))
        return
    lines = [f"cloister: {message} [{code}]", *(f"  - {detail}" for detail in details)]
    if hint:
        lines.append(f"  hint: {hint}")
    print("\n".join(map(printable, lines)), file=sys.stderr)


def guarded(action: Callable[[], int], *, as_json: bool, debug: bool) -> int:
    """Do something and answer with an exit code, whatever it raises.

    Args:
        action: What to do; its answer is the exit code.
        as_json: Show errors as JSON.
        debug: Let errors through with their tracebacks.

    Returns:
        The code: the action's own, the typed error's, or one of those for the machine and for defects.
    """
    try:
        return action()
    except KeyboardInterrupt:
        return interrupted(as_json=as_json)
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
        blocked = _blocked(error)
        if blocked is not None:
            show_error(
                "immune.call_blocked",
                f"the immune system stopped {blocked.function} before it ran (event {blocked.event_id})",
                as_json=as_json,
            )
            return EXIT_REFUSED
        # The message of an unexpected error may hold anything, a record too: its type is all that is shown.
        if _amid_an_interrupt(error):
            show_error(
                "usage.interrupted",
                f"interrupted, and an unexpected {type(error).__name__} came up while it ended",
                as_json=as_json,
            )
            return EXIT_INTERRUPTED
        show_error(
            "internal.defect",
            f"cloister stopped on an unexpected {type(error).__name__}",
            as_json=as_json,
        )
        return EXIT_DEFECT


def _blocked(error: Exception) -> CallBlocked | None:
    """The error as a call that was blocked, where the immune system was loaded: verifying needs none."""
    errors = sys.modules.get("cloister.immune.errors")
    return error if errors is not None and isinstance(error, errors.CallBlocked) else None


def _amid_an_interrupt(error: BaseException) -> bool:
    """Whether an error was raised from an interrupt or while one unwound, by a library or what was closed."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        if isinstance(one, KeyboardInterrupt):
            return True
        seen.add(id(one))
        one = one.__cause__ or one.__context__
    return False


def interrupted(*, as_json: bool) -> int:
    """Say that a command was interrupted, and return the code for it."""
    show_error("usage.interrupted", "interrupted; nothing half-written is left", as_json=as_json)
    return EXIT_INTERRUPTED
