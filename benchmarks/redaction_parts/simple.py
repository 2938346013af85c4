"""The peer: six patterns as they are commonly written, each over the whole text."""

from __future__ import annotations

import re

_PATTERNS = (
    ("EMAIL", re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")),
    ("SSN", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("CC", re.compile(r"\b(?:\d[ -]?){13,16}\b")),
    ("IP", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b")),
    ("IP", re.compile(r"\b(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}\b")),
    ("PHONE", re.compile(r"\b(?:\+?1[-. ]?)?\(?\d{3}\)?[-. ]?\d{3}[-. ]?\d{4}\b")),
)


def redact(text: str) -> str:
    """The text with each pattern replaced."""
    for kind, pattern in _PATTERNS:
        text = pattern.sub(f"[{kind}_REDACTED]", text)
    return text


def places(text: str) -> list[tuple[int, int, str]]:
    """Where something was found, an earlier pattern before a later one."""
    found: list[tuple[int, int, str]] = []
    for kind, pattern in _PATTERNS:
        for one in pattern.finditer(text):
            start, end = one.span()
            if all(end <= begun or start >= ended for begun, ended, _ in found):
                found.append((start, end, kind))
    return found
