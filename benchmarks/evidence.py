"""Prints figures of the evidence room, section by section.

A section is a module of `evidence_parts` with `measure(scratch) -> dict[str, float]` and `TARGETS`, the bound
each figure has to keep, as ("at least" or "at most", value). Figures are medians where their names don't say
otherwise.

Use: python benchmarks/evidence.py [--only appends --only proofs] [--scratch FOLDER] [--picture FILE] [--json]
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import evidence_parts
from evidence_parts._picture import draw

SECTIONS = sorted(one.name for one in pkgutil.iter_modules(evidence_parts.__path__) if one.name[0] != "_")


def main() -> int:
    """Measures the sections asked for; 1 if a figure misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; all without it")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--picture", type=Path, help="draw the section growth into this file (.png, .svg)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    missed = 0
    for name in asked.only or SECTIONS:
        section = import_module(f"evidence_parts.{name}")
        with tempfile.TemporaryDirectory(dir=asked.scratch, prefix=f"evidence-{name}-") as scratch:
            figures[name] = section.measure(Path(scratch))
        if not asked.json:
            print(f"## {name}\n")
        for figure, value in figures[name].items():
            verdict = judge(value, section.TARGETS.get(figure))
            missed += verdict.startswith("missed")
            if not asked.json:
                print(f"{figure:<52}{value:>14,.4g}  {verdict}")
    if asked.picture and "growth" in figures:
        draw(figures["growth"], asked.picture)
    if asked.json:
        print(json.dumps(figures, indent=2))
    return int(missed > 0)


def judge(value: float, target: tuple[str, float] | None) -> str:
    """How a figure stands to its bound."""
    if target is None:
        return ""
    side, bound = target
    kept = value >= bound if side == "at least" else value <= bound
    return f"{'kept' if kept else 'missed'}: {side} {bound:,g}"


if __name__ == "__main__":
    sys.exit(main())
