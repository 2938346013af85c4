"""How an error looks to a person and to a machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

EXIT_REFUTED = 1
EXIT_USAGE = 2
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
        hint: What to do about it.
        details: Every single reason.
        as_json: Print one JSON object on stdout instead, so that a machine reads one stream.
    """
    if as_json:
        error = {"code": code, "message": message, "hint": hint, "details": list(details)}
        print(json.dumps({"error": error}, indent=2))
        return
    lines = [f"cloister: {message} [{code}]", *(f"  - {detail}" for detail in details)]
    if hint:
        lines.append(f"  hint: {hint}")
    print("\n".join(lines), file=sys.stderr)
