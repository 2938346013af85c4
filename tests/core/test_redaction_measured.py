"""What the redactor reaches on text that others labelled, and how fast it is: the benchmark's own figures.

The floors are those of the shared half of each set; the rules were written with that half at hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.conftest import ROOT, SharedData

SETS = ("generated_large", "synth_dataset_v2")
RECALL = {"EMAIL": 1.0, "PHONE": 0.95, "CC": 0.98, "SSN": 1.0, "IP": 1.0, "IBAN": 1.0}
PRECISION = 0.98


def figures(section: str, data: SharedData) -> Mapping[str, float]:
    ended = subprocess.run(
        [sys.executable, "benchmarks/redaction.py", "--json", "--section", section],
        check=True,
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
        env={**os.environ, "CLOISTER_DATA": str(data.root), "PYTHONPATH": str(ROOT / "src")},
    )
    return json.loads(ended.stdout)[section]


@pytest.fixture(scope="module")
def accuracy(shared_data: SharedData) -> Mapping[str, float]:
    shared_data("pii")
    return figures("accuracy", shared_data)


@pytest.mark.parametrize("kind", RECALL)
@pytest.mark.parametrize("name", SETS)
def test_recall_and_precision_of_each_kind_stay_above_their_floors(
    name: str, kind: str, accuracy: Mapping[str, float]
) -> None:
    assert accuracy[f"{name}/{kind}/ours/labels"] >= 5
    assert accuracy[f"{name}/{kind}/ours/recall"] >= RECALL[kind]
    assert accuracy[f"{name}/{kind}/ours/precision"] >= PRECISION


@pytest.mark.parametrize("name", SETS)
def test_kinds_that_are_not_labelled_are_not_found_where_none_are(
    name: str, accuracy: Mapping[str, float]
) -> None:
    assert accuracy[f"{name}/other kinds/ours/marked"] == 0


def test_names_and_places_are_beyond_rules_and_counted_apart(accuracy: Mapping[str, float]) -> None:
    assert [accuracy[f"{name}/beyond rules"] for name in SETS] == [1856, 1445]


def test_of_sentences_without_personal_data_two_are_changed(accuracy: Mapping[str, float]) -> None:
    """An address and an email that are called tests; both are what they look like."""
    changed = {
        group: accuracy[f"dlp/Negative/{group}/ours"] for group in ("Direct", "Typo", "False Keywords")
    }
    assert changed == {"Direct": 0, "Typo": 0, "False Keywords": 2}


def test_it_is_faster_than_six_simple_patterns(shared_data: SharedData) -> None:
    speed = figures("speed", shared_data)
    assert speed["ours, lines"] > 1.2 * speed["six patterns, lines"]
    assert speed["ours, blocks"] > 1.5 * speed["six patterns, blocks"]
