"""Redaction: how fast, how slow at worst, and how much it finds; `redaction.py` has the same by type."""

from __future__ import annotations

from immune_parts._figures import Figures, Row, Target
from redaction_parts import accuracy, speed, worst
from shared_data import AbsentError

OURS, SIMPLE = "ours", "six patterns"
SPEED, WORST = "MB a second", "worst 100 KB, ms"
TARGETS = (Target(OURS, SPEED, "at least", 10.0), Target(OURS, WORST, "at most", 50.0))
_SETS = ("generated_large", "synth_dataset_v2")
_KINDS = ("EMAIL", "PHONE", "CC", "SSN", "IP", "IBAN")


def measure(share: float = 1.0) -> Figures:
    """Rates in blocks of a hundred lines and line by line; recall on labelled text of others."""
    rates = speed.measure(max(100, round(10_000 * share)))
    found: dict[str, Row] = {
        way: {SPEED: rates[f"{way}, blocks"], "line by line": rates[f"{way}, lines"]}
        for way in (OURS, SIMPLE)
    }
    size = max(1000, round(100_000 * share))
    slowest = worst.measure(size)
    twice = f", {2 * size // 1000} KB"
    name, least = max((one for one in slowest.items() if not one[0].endswith(twice)), key=lambda one: one[1])
    found[OURS] |= {WORST: least, "of 200 KB": slowest[name + twice]}
    notes = [f"the slowest shape is {name}, repeated"]
    try:
        labelled = accuracy.measure() if share >= 1 else {}
    except AbsentError as absent:
        notes.append(f"recall isn't measured: {absent}")
        labelled = {}
    if labelled:
        for one in _SETS:
            for way in (OURS, SIMPLE):
                for kind in _KINDS:
                    at = f"{one}/{kind}/{way}"
                    row = found.setdefault(f"{one}, {way}", {})
                    row[f"{kind} recall"] = labelled[f"{at}/recall"]
                    row[f"{kind} precision"] = labelled[f"{at}/precision"]
    return Figures(
        "Redaction of made-up log text; thread processor time, best of five.", found, TARGETS, tuple(notes)
    )
