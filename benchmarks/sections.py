"""Measures the sections of one room's benchmark that were asked for, and prints them as tables or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module

from shared_data import AbsentError


def measure_sections(package: str, sections: Sequence[str], description: str | None) -> None:
    """Measure the sections named on the command line; one that can't be measured here is skipped by name.

    Args:
        package: where the sections are: modules with ``measure() -> figures`` and ``table(figures) -> str``.
        sections: their names, in the order in which they're measured.
        description: what `--help` says.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", action="append", choices=sections, help="one of them; all without it")
    parser.add_argument("--json", action="store_true", help="figures for a program")
    asked = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for name in asked.section or sections:
        section = import_module(f"{package}.{name}")
        try:
            figures[name] = section.measure()
        except AbsentError as absent:
            print(f"{name}: skipped, {absent}", file=sys.stderr)
            continue
        if not asked.json:
            print(f"## {name}\n\n{section.table(figures[name])}\n")
    if asked.json:
        print(json.dumps(figures, indent=2))
