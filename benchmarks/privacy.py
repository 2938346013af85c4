"""Prints figures of the privacy room, section by section, beside peers measured in the same run.

Use: python benchmarks/privacy.py [--section engine] [--json]
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module

SECTIONS = ("engine",)


def main() -> None:
    """Measures the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", action="append", choices=SECTIONS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for name in asked.section or SECTIONS:
        section = import_module(f"privacy_parts.{name}")
        figures[name] = section.measure()
        if not asked.json:
            print(f"## {name}\n\n{section.table(figures[name])}\n")
    if asked.json:
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
