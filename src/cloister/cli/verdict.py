"""How a verdict on an artifact looks: plain text for people, one object for machines, without any library."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from enum import Enum

from cloister.cli.text import printable
from cloister.evidence.artifacts.verdict import ArtifactVerdict
from cloister.evidence.checks import Check, Outcome

_WORDS = {Outcome.PASSED: "passed", Outcome.FAILED: "FAILED", Outcome.NOT_RUN: "NOT RUN"}
_GREEN, _RED, _YELLOW, _PLAIN = "\x1b[32m", "\x1b[1;31m", "\x1b[1;30;43m", "\x1b[0m"
_VERDICT_WIDTH = len(_WORDS[Outcome.NOT_RUN])
_NARROWEST = 20

SIMULATED = "SIMULATED  attestation was signed by a simulated chip: no hardware protected this run"
TEST_RANDOMNESS = "TEST RANDOMNESS  seeded noise: repeatable, and not private"
OWNERS_WORD = (
    "OWNER'S WORD  what lies outside the period is so on a log's owner's word alone, as was accepted"
)


class Paint(Enum):
    """Whether lines carry a terminal's colours."""

    COLOUR = "colour"
    PLAIN = "plain"


def verdict_json(verdict: ArtifactVerdict, *, production: bool) -> dict[str, object]:
    """The verdict as a JSON object.

    Args:
        verdict: What was found.
        production: Whether simulated platforms were refused on demand.
    """
    return {
        "kind": None if verdict.kind is None else verdict.kind.value,
        "accepted": verdict.accepted,
        "refused_because": [check.id for check in verdict.failures],
        "simulated": verdict.simulated,
        "test_randomness": verdict.test_randomness,
        "owners_word": verdict.owners_word,
        "production_required": production,
        "measurements": list(verdict.measurements),
        "facts": dict(verdict.facts),
        "checks": [{"id": c.id, "outcome": c.outcome.value, "detail": c.detail} for c in verdict.checks],
    }


def verdict_lines(verdict: ArtifactVerdict, name: str, *, width: int | None, paint: Paint) -> Iterator[str]:
    """The verdict as lines: banners, a table of checks, what it is about, and the outcome last.

    Args:
        verdict: What was found.
        name: The artifact's file name.
        width: Columns to fold details at, or None for lines as long as they are.
        paint: Whether to colour them.
    """
    if verdict.simulated:
        yield _painted(f" {SIMULATED} ", _YELLOW, paint)
    if verdict.test_randomness:
        yield _painted(f" {TEST_RANDOMNESS} ", _RED, paint)
    if verdict.owners_word:
        yield _painted(f" {OWNERS_WORD} ", _YELLOW, paint)
    first = max(len("check"), *(len(check.id) for check in verdict.checks))
    yield f"{'check':<{first}}  {'verdict':<{_VERDICT_WIDTH}}  detail"
    for check in verdict.checks:
        yield from _row(check, first, width, paint)
    if verdict.accepted:
        for fact, value in verdict.facts.items():
            yield f"{fact}: {printable(value)}"
        for measured in verdict.measurements:
            yield f"code measured: {printable(measured)}"
        yield f"{_painted('accepted', _GREEN, paint)} {printable(name)}: every check passed"
    else:
        yield f"{_painted('refused', _RED, paint)} {printable(name)}: {_because(verdict)}"


def _because(verdict: ArtifactVerdict) -> str:
    """The checks that failed, and how many weren't run; where none failed, those that weren't run."""
    failed = [check.id for check in verdict.failures if check.outcome is Outcome.FAILED]
    unrun = [check.id for check in verdict.failures if check.outcome is Outcome.NOT_RUN]
    if not failed:
        return f"not run: {', '.join(unrun)}"
    return ", ".join(failed) + (f"; {len(unrun)} not run" if unrun else "")


def _row(check: Check, first: int, width: int | None, paint: Paint) -> Iterator[str]:
    code = _GREEN if check.outcome is Outcome.PASSED else _RED
    word = _painted(f"{_WORDS[check.outcome]:<{_VERDICT_WIDTH}}", code, paint)
    start = f"{check.id:<{first}}  {word}"
    indent = first + _VERDICT_WIDTH + 4
    detail = printable(check.detail)
    folded = [detail] if width is None else textwrap.wrap(detail, max(_NARROWEST, width - indent))
    yield f"{start}  {folded[0] if folded else ''}".rstrip()
    for more in folded[1:]:
        yield " " * indent + more


def _painted(text: str, code: str, paint: Paint) -> str:
    return f"{code}{text}{_PLAIN}" if paint is Paint.COLOUR else text
