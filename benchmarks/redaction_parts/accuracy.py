"""Recall and precision by type on labelled text that others made."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence

from cloister.core.redaction import Redactor
from redaction_parts import simple
from shared_data import data_folder

Places = Callable[[str], Sequence[tuple[int, int, str]]]
_TYPES = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CC",
    "US_SSN": "SSN",
    "IP_ADDRESS": "IP",
    "IBAN_CODE": "IBAN",
}
_SETS = ("generated_large", "synth_dataset_v2")
_OURS, _SIMPLE = "ours", "six patterns"


def measure() -> dict[str, float]:
    """Figures by ``set/type/redactor/what``."""
    folder = data_folder("pii")
    redactors: dict[str, Places] = {_OURS: Redactor().places, _SIMPLE: simple.places}
    figures: dict[str, float] = {}
    for name in _SETS:
        lines = (folder / "presidio-research" / f"{name}.jsonl").read_text("utf-8").splitlines()
        texts = [json.loads(line) for line in lines]
        beyond = Counter(span["entity_type"] for text in texts for span in text["spans"])
        figures[f"{name}/beyond rules"] = sum(n for kind, n in beyond.items() if kind not in _TYPES)
        for redactor, places in redactors.items():
            figures |= {f"{name}/{key}": value for key, value in _score(texts, redactor, places).items()}
    with (folder / "dlp-benchmark" / "dlp_general.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        key = f"dlp/{row['Type']}/{row['Subtype']}"
        figures[f"{key}/sentences"] = figures.get(f"{key}/sentences", 0) + 1
        for redactor, places in redactors.items():
            changed = bool(places(row["Example"]))
            figures[f"{key}/{redactor}"] = figures.get(f"{key}/{redactor}", 0) + changed
    return figures


def _score(texts: list[dict], redactor: str, places: Places) -> dict[str, float]:  # type: ignore[type-arg]
    labels, hits, marked, right = Counter(), Counter(), Counter(), Counter()  # type: ignore[var-annotated]
    for text in texts:
        wanted = [
            (span["start_position"], span["end_position"], _TYPES[span["entity_type"]])
            for span in text["spans"]
            if span["entity_type"] in _TYPES
        ]
        found = [(start, end, str(kind)) for start, end, kind in places(text["full_text"])]
        for start, end, kind in wanted:
            labels[kind] += 1
            hits[kind] += any(a <= start and end <= b and one == kind for a, b, one in found)
        for start, end, kind in found:
            marked[kind] += 1
            right[kind] += any(start < b and a < end and one == kind for a, b, one in wanted)
    figures: dict[str, float] = {}
    for kind in _TYPES.values():
        figures[f"{kind}/{redactor}/labels"] = labels[kind]
        figures[f"{kind}/{redactor}/recall"] = hits[kind] / labels[kind]
        figures[f"{kind}/{redactor}/precision"] = right[kind] / marked[kind] if marked[kind] else 1.0
    others = set(marked) - set(_TYPES.values())
    figures[f"other kinds/{redactor}/marked"] = sum(marked[kind] for kind in others)
    return figures


def table(figures: dict[str, float]) -> str:
    """The figures as Markdown tables."""
    lines = [
        "| set | type | labels | recall | precision | recall, six patterns | precision, six patterns |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name in _SETS:
        for kind in _TYPES.values():
            at = f"{name}/{kind}"
            lines.append(
                f"| {name} | {kind} | {figures[f'{at}/{_OURS}/labels']:.0f} | "
                + " | ".join(
                    f"{figures[f'{at}/{redactor}/{what}']:.3f}"
                    for redactor in (_OURS, _SIMPLE)
                    for what in ("recall", "precision")
                )
                + " |"
            )
        lines.append(f"| {name} | no rule reaches | {figures[f'{name}/beyond rules']:.0f} | | | | |")
    lines += ["", "| DLP sentences | of | changed | six patterns |", "|---|---:|---:|---:|"]
    for key in sorted(key for key in figures if key.startswith("dlp/") and key.endswith("/sentences")):
        group = key.removesuffix("/sentences")
        ours, peer = figures[f"{group}/{_OURS}"], figures[f"{group}/{_SIMPLE}"]
        lines.append(f"| {group.removeprefix('dlp/')} | {figures[key]:.0f} | {ours:.0f} | {peer:.0f} |")
    return "\n".join(lines)
