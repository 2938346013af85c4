"""How an error looks to a person and to a machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from cloister.cli.text import printable

EXIT_REFUTED = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 5
EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130

_ADVICE = {
    "input.not_json": "Write a finite number there.",
    "input.duplicate_key": "Keep one of the two.",
    "input": "Correct that file, or name another, and run again.",
    "health": "Correct the table, or what is declared about it.",
    "privacy": "Correct the privacy and training sections of the job.",
    "model": "Correct the model in the job and in the request.",
    "policy": "Compare the request with the manifest.",
    "federation": "The log in the workspace tells what happened before.",
    "attestation": "Ask the party whose evidence it is to make it anew.",
    "evidence.trust_malformed": "Name the folder in which hub/, site/, hospital/ and tee-root/ are.",
    "evidence.trust_unknown": "Ask that party for its public key over a channel you trust.",
    "evidence": "Restore the file from a copy; what was signed can't be repaired.",
    "ledger": "Restore the ledger from a copy; a budget can't be begun anew.",
    "storage": "Look at the disk's space and at the folder's permissions, then run again.",
}


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
    hint = hint or _ADVICE.get(code) or _ADVICE.get(code.partition(".")[0], "")
    if as_json:
        error = {"code": code, "message": message, "hint": hint, "details": list(details)}
        print(json.dumps({"error": error}, indent=2))
        return
    lines = [f"cloister: {message} [{code}]", *(f"  - {detail}" for detail in details)]
    if hint:
        lines.append(f"  hint: {hint}")
    print("\n".join(map(printable, lines)), file=sys.stderr)
