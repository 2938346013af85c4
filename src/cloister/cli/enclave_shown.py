"""How an examination of evidence looks: a table of checks and what the machine says, or one JSON object."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from cloister.cli.text import printable
from cloister.core.canonical import JSON
from cloister.core.clock import format_time
from cloister.enclave.attestation.claims import Claims
from cloister.enclave.attestation.examination import Answer, Examination, ExaminedCheck
from cloister.enclave.attestation.trimming import evidence_sha256

BANNER: Final = "SIMULATED  the evidence was signed by a simulated chip: no hardware vouches for it"
_WORDS: Final = {
    Answer.PASSED: "passed",
    Answer.FAILED: "FAILED",
    Answer.NOT_RUN: "not run",
    Answer.NOT_ASKED: "not asked",
}
_COLOURS: Final = {Answer.PASSED: "\x1b[32m", Answer.FAILED: "\x1b[1;31m"}
_YELLOW, _PLAIN = "\x1b[1;30;43m", "\x1b[0m"
_WIDEST: Final = len("not asked")
_NARROWEST: Final = 20


def show(found: Examination, now: datetime, *, as_json: bool) -> None:
    """Print an examination.

    Args:
        found: what was found out.
        now: the time it was held against.
        as_json: print one JSON object.
    """
    if as_json:
        print(json.dumps(examination_json(found, now), indent=2))
        return
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    print("\n".join(lines(found, now, width=width, colours=terminal and "NO_COLOR" not in os.environ)))


def examination_json(found: Examination, now: datetime) -> dict[str, JSON]:
    """The examination as plain JSON values."""
    return {
        "accepted": found.passed,
        "tee": found.evidence.tee.value,
        "simulated": found.simulated,
        "evaluated_at": format_time(now),
        "evidence_sha256": evidence_sha256(found.evidence),
        "refused_because": [*found.failed],
        "checks": [
            {"name": one.name, "outcome": one.answer.value, "detail": one.detail} for one in found.checks
        ],
        "claims": None if found.claims is None else _claims_json(found.claims),
        "devices": [_claims_json(one) for one in found.devices],
    }


def _claims_json(claims: Claims) -> dict[str, JSON]:
    return {
        "tee": claims.tee.value,
        "registers": dict(claims.registers),
        "sealed_in": claims.sealed_in.hex(),
        "sealing": claims.sealing.value,
        "debug": claims.debug,
        "simulated": claims.simulated,
        "revocation": claims.revocation.value,
        "tcb_status": claims.tcb_status.value,
        "advisories": [*claims.advisories],
        "identity_sha256": claims.identity_sha256,
        "collateral": [
            {
                "what": one.what,
                "sha256": one.sha256,
                "issued_at": format_time(one.issued_at),
                "next_update": None if one.next_update is None else format_time(one.next_update),
            }
            for one in claims.collateral_dates
        ],
    }


def lines(found: Examination, now: datetime, *, width: int | None, colours: bool) -> Iterator[str]:
    """The examination as lines: banner, a table of checks, what the machine says, and the outcome last.

    Args:
        found: what was found out.
        now: the time it was held against.
        width: columns to fold details at, or None for lines as long as they are.
        colours: whether lines carry a terminal's colours.
    """
    if found.simulated:
        yield f"{_YELLOW} {BANNER} {_PLAIN}" if colours else f" {BANNER} "
    first = max(len("check"), *(len(check.name) for check in found.checks))
    yield f"{'check':<{first}}  {'outcome':<{_WIDEST}}  detail"
    for check in found.checks:
        yield from _row(check, first, width, colours=colours)
    yield f"kind: {found.evidence.tee.value}"
    yield f"evaluated at: {format_time(now)}"
    yield f"evidence sha256: {evidence_sha256(found.evidence)}"
    if found.claims is not None:
        yield from map(printable, _facts(found.claims, ""))
    for number, claims in enumerate(found.devices):
        yield from map(printable, _facts(claims, f"device {number}: "))
    if found.passed:
        unasked = sum(check.answer is Answer.NOT_ASKED for check in found.checks)
        rest = f"; {unasked} not asked" if unasked else ""
        yield f"accepted: every check that was asked passed{rest}"
    else:
        yield f"refused: {printable(', '.join(found.failed))}"


def _facts(claims: Claims, prefix: str) -> Iterator[str]:
    yield f"{prefix}TCB status: {claims.tcb_status.value}"
    yield f"{prefix}advisories: {', '.join(claims.advisories) or 'none'}"
    yield f"{prefix}revocation: {claims.revocation.value}"
    for one in claims.collateral_dates:
        until = "no end" if one.next_update is None else format_time(one.next_update)
        yield f"{prefix}{one.what}: issued {format_time(one.issued_at)}, until {until}"
    yield f"{prefix}sealed in: {claims.sealed_in.hex()}"
    for name, value in claims.registers.items():
        yield f"{prefix}{name}: {value}"


def _row(check: ExaminedCheck, first: int, width: int | None, *, colours: bool) -> Iterator[str]:
    word = f"{_WORDS[check.answer]:<{_WIDEST}}"
    colour = _COLOURS.get(check.answer)
    start = f"{check.name:<{first}}  " + (f"{colour}{word}{_PLAIN}" if colours and colour else word)
    indent = first + _WIDEST + 4
    detail = printable(check.detail)
    folded = [detail] if width is None else textwrap.wrap(detail, max(_NARROWEST, width - indent))
    yield f"{start}  {folded[0] if folded else ''}".rstrip()
    for more in folded[1:]:
        yield " " * indent + more
