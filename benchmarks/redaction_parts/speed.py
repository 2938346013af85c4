"""MB a second on made-up log text, line by line and in blocks of a hundred lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloister.core.redaction import Redactor
from redaction_parts import simple
from redaction_parts.log_text import log_lines


def measure(count: int = 10_000) -> dict[str, float]:
    """MB a second on so many lines, best of five, by redactor and size of the piece."""
    lines = log_lines(count)
    blocks = ["\n".join(lines[at : at + 100]) for at in range(0, len(lines), 100)]
    redactor = Redactor()
    ways: dict[str, Callable[[str], object]] = {"ours": redactor.text, "six patterns": simple.redact}
    return {
        f"{way}, {pieces}": max(_rate(redact, texts) for _ in range(5))
        for pieces, texts in (("lines", lines), ("blocks", blocks))
        for way, redact in ways.items()
    }


def _rate(redact: Callable[[str], object], texts: list[str]) -> float:
    start = time.thread_time()
    for text in texts:
        redact(text)
    return sum(map(len, texts)) / (time.thread_time() - start) / 1e6


def table(figures: dict[str, float]) -> str:
    """The figures as a Markdown table."""
    return "\n".join(
        ["| MB a second | |", "|---|---:|", *(f"| {what} | {rate:.1f} |" for what, rate in figures.items())]
    )
