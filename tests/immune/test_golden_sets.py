"""Held-out golden sets: ordinary sessions and episodes of five attacks, under the shipped default sampling.

No threshold, feature or constant was chosen with these seeds in sight.
"""

from __future__ import annotations

from types import ModuleType

import pytest

from cloister.immune.detection import TailDetector
from cloister.immune.generators import BUDGETED, ONE_IN_TEN, SPIKE_PATTERNS
from tests.conftest import ROOT
from tests.nightly import needs


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from immune_parts import detection

    return detection


def test_at_the_default_alpha_few_ordinary_sessions_are_flagged_and_most_attacks(bench: ModuleType) -> None:
    """PIC-30.1.c and d: FPR of 5 % or less, TPR of 75 % or more, per session."""
    found = bench.measure_one(TailDetector, BUDGETED, range(200, 208), SPIKE_PATTERNS)
    assert found["benign_sessions"] > 700
    assert found["attack_sessions"] == 40
    assert found["fixed_fpr"] <= 0.05
    assert found["fixed_tpr"] >= 0.75


def test_a_detector_that_learned_nothing_finds_nothing(bench: ModuleType) -> None:
    class Asleep:
        def __init__(self) -> None:
            self.score = TailDetector().score

        def learn(self, observed: object) -> None:
            pass

    found = bench.measure_one(Asleep, BUDGETED, range(200, 201), SPIKE_PATTERNS)
    assert found["fixed_tpr"] == found["fixed_fpr"] == found["tpr_at_fpr_5"] == 0.0
    assert found["call_auc"] == 0.5


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_thirty_streams_keep_the_targets_and_one_in_ten_would_not(bench: ModuleType) -> None:
    needs(120)
    found = bench.measure_one(TailDetector, BUDGETED, range(200, 230), SPIKE_PATTERNS)
    assert found["tpr_at_fpr_5"] >= 0.85
    assert found["tpr_at_fpr_1"] >= 0.70
    assert found["fixed_tpr"] >= 0.80
    assert found["fixed_fpr"] <= 0.02
    thinned = bench.measure_one(TailDetector, ONE_IN_TEN, range(200, 230), SPIKE_PATTERNS)
    assert thinned["fixed_tpr"] < found["fixed_tpr"] - 0.2


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_of_ten_thousand_ordinary_sessions_few_are_flagged_and_of_two_thousand_attacks_most_are(
    bench: ModuleType,
) -> None:
    """PIC-R21.1 and R21.2: 10,000 ordinary sessions and 2,000 episodes, held out; PIC-30.1.c and d."""
    needs(300)
    found = bench.measure_one(TailDetector, BUDGETED, range(1000, 1400), SPIKE_PATTERNS)
    assert found["benign_sessions"] >= 10_000
    assert found["attack_sessions"] >= 2_000
    assert found["fixed_fpr"] <= 0.05
    assert found["fixed_tpr"] >= 0.75
