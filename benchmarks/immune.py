"""Prints figures of the immune room beside its peers, section by section.

Use: python benchmarks/immune.py [--section calls] [--share 0.1] [--json] [--picture FILE]
     make bench-immune      with all peers, in an environment of its own

    calls       a plain function under each wrapper
    async       the same for coroutine functions
    threads     the same on 1, 2 and 4 threads
    scoring     a judged call
    acting      decisions, and the guard of egress
    protection  all of it, by length of the function
    detection   attacks told from ordinary calls, on unseen seeds
    attacks     real attacks on a small HTTP service
    nab         Numenta's benchmark
    pii         redaction
    memory      of 1,000 functions
    audit       durable entries
    upkeep      what looking after the baselines takes
    handler     a FastAPI service: overhead, and attacks on it

Without a section all are measured. One that this machine can't run is skipped by name. Times are processor
time of the thread where nothing else is said; the load of the machine is beside them. It ends with 1 if a
figure misses what was asked.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from rich.console import Console

from immune_parts._figures import Figures
from immune_parts._machine import machine
from shared_data import AbsentError

MODULES = {"async": "awaited"}
SECTIONS = (
    # The guard's hook stays once it is in: what is measured without it comes first.
    *("calls", "async", "threads", "scoring", "acting", "protection", "detection", "attacks"),
    *("nab", "pii", "memory", "audit", "upkeep", "handler"),
)


def main() -> int:
    """Measures the sections asked for; 1 if a figure misses its target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--section", action="append", choices=SECTIONS, help="one of them; all without it")
    parser.add_argument("--share", type=float, default=1.0, help="of the full size, for a first look")
    parser.add_argument("--picture", type=Path, help="draw what was measured into this file (.png, .svg)")
    parser.add_argument("--json", action="store_true", help="figures for a program")
    asked = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    figures: dict[str, Figures] = {}
    # Wide enough for every table: a line that is cut can't be read by anybody.
    console = Console(width=None if sys.stdout.isatty() else 220)
    for name in asked.section or SECTIONS:
        before = machine()
        try:
            one = import_module(f"immune_parts.{MODULES.get(name, name)}").measure(asked.share)
        except AbsentError as absent:
            print(f"{name}: skipped, {absent}", file=sys.stderr)
            continue
        after = machine()
        figures[name] = one
        found[name] = {"machine": {**before, "load at the end": after["load"]}, **one.as_json()}
        if not asked.json:
            console.rule(name)
            one.show(console)
            stood = ", ".join(
                f"{key} {value}" for key, value in {**before, "load at the end": after["load"]}.items()
            )
            console.print(f"({stood})\n", highlight=False)
    if asked.picture:
        from immune_parts._picture import draw

        draw(figures, asked.picture)
    if asked.json:
        json.dump(found, sys.stdout, indent=2)
    return int(any(not kept for one in figures.values() for _, _, kept in one.verdicts()))


if __name__ == "__main__":
    sys.exit(main())
