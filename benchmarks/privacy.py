"""Prints figures of the privacy room, section by section, beside peers measured in the same run.

Use: python benchmarks/privacy.py [--section engine|jax_peer|fed_heart|mnist] [--json]

Without a section all are measured; MNIST alone takes six minutes of CPU time. A section whose data or peer
isn't on this machine is skipped by name.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module

from privacy_parts._data import AbsentError

SECTIONS = ("engine", "jax_peer", "ledger", "fed_heart", "mnist")


def main() -> None:
    """Measures the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--section", action="append", choices=SECTIONS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for name in asked.section or SECTIONS:
        section = import_module(f"privacy_parts.{name}")
        try:
            figures[name] = section.measure()
        except AbsentError as absent:
            print(f"{name}: skipped, {absent}", file=sys.stderr)
            continue
        if not asked.json:
            print(f"## {name}\n\n{section.table(figures[name])}\n")
    if asked.json:
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
