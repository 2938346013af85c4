"""Milliseconds for 100 KB of shapes that are made to be slow, and for twice as much."""

from __future__ import annotations

import time

from cloister.core.redaction import Redactor

_SHAPES = (
    *(
        "a.",
        "a@",
        "a@b.c",
        "@",
        ":",
        "[::1",
        "+",
        "+1 ",
        "((1",
        "[[[(",
        "1 ",
        "1.",
        "1.1.1.1 ",
        "1234-",
        "01 ",
    ),
    *("4111111111111111 ", "4111111111111111-", "DE89 ", "%40", "\u200b", "a\u200b@", "password=", "mrn:"),
    *("phone 1 ", "call me at ", "fax 1-", "fax8", " 4111", "mrn-", "1 1 1 fax ", "://a:b@", " at a dot "),
)


def measure(size: int = 100_000) -> dict[str, float]:
    """Milliseconds, least of five, of the five slowest shapes, at a size in characters and at twice that."""
    redactor = Redactor()
    redactor.text("warm 1.2.3.4")
    texts = {shape: (shape * (size // len(shape) + 1))[:size] for shape in _SHAPES}
    took = {shape: _least(redactor, text) for shape, text in texts.items()}
    slowest = sorted(took, key=took.__getitem__, reverse=True)[:5]
    figures = {f"{shape!r}": took[shape] for shape in slowest}
    return figures | {
        f"{shape!r}, {2 * size // 1000} KB": _least(redactor, texts[shape] * 2) for shape in slowest
    }


def _least(redactor: Redactor, text: str) -> float:
    least = float("inf")
    for _ in range(5):
        start = time.thread_time()
        redactor.text(text)
        least = min(least, time.thread_time() - start)
    return least * 1000


def table(figures: dict[str, float]) -> str:
    """The figures as a Markdown table."""
    return "\n".join(
        [
            "| ms of processor time | |",
            "|---|---:|",
            *(f"| {what} | {took:.1f} |" for what, took in figures.items()),
        ]
    )
