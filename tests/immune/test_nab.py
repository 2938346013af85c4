"""The scorer of Numenta's benchmark gives the scores that were published for it."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT, SharedData

PROFILES = ("standard", "reward_low_FP_rate", "reward_low_FN_rate")


@pytest.fixture
def nab(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from immune_parts import _nab_scoring as module

    return module


@pytest.fixture
def folder(shared_data: SharedData) -> Path:
    return shared_data("nab")


def _published(folder: Path, detector: str, profile: str) -> dict[str, float]:
    with (folder / "results" / "per_series_scores.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["series"]: float(row["score"])
            for row in csv.DictReader(file)
            if (row["detector"], row["profile"]) == (detector, profile)
        }


def test_the_windowed_gaussian_scores_on_every_series_what_was_published_for_it(
    nab: ModuleType, folder: Path
) -> None:
    results = nab.run(nab.load(folder), nab.WindowedGaussian)
    assert len(results) == 39
    for name in PROFILES:
        profile = nab.PROFILES[name]
        published = _published(folder, "windowedGaussian", name)
        ours = {one.name: nab.score_series(one, scores, 1.0, profile) for one, scores in results}
        # The files hold twelve digits.
        assert ours == pytest.approx(published, abs=1e-9)
        windows = sum(len(one.windows) for one, _ in results)
        total = nab.normalized(sum(published.values()), windows, profile)
        threshold, best = nab.best_threshold(results, profile)
        assert best >= total - 1e-6
        again = sum(nab.score_series(one, scores, threshold, profile) for one, scores in results)
        assert best == pytest.approx(nab.normalized(again, windows, profile), abs=1e-6)


def test_normalized_sums_of_the_published_scores_are_the_published_totals(
    nab: ModuleType, folder: Path
) -> None:
    expected = json.loads((folder / "results" / "subset_normalized_standard.json").read_text())["detectors"]
    assert nab.published(folder, "standard") == pytest.approx(expected, abs=0.1)


def test_detecting_nothing_is_0_and_the_first_row_of_every_window_is_100(
    nab: ModuleType, folder: Path
) -> None:
    series = nab.load(folder)
    for profile in nab.PROFILES.values():
        for found, expected in ((False, 0.0), (True, 100.0)):
            results = []
            for one in series:
                scores = [0.0] * len(one.values)
                for first, _ in one.windows if found else ():
                    scores[max(first, one.probation)] = 1.0
                results.append((one, scores))
            total = sum(nab.score_series(one, scores, 1.0, profile) for one, scores in results)
            assert nab.normalized(total, 78, profile) == pytest.approx(expected, abs=0.5)


def test_probation_is_15_percent_and_750_rows_at_most(nab: ModuleType) -> None:
    assert nab.Series("a", (0.0,) * 1000, ()).probation == 150
    assert nab.Series("a", (0.0,) * 22_695, ()).probation == 750


def test_weights_by_hand(nab: ModuleType) -> None:
    series = nab.Series("a", (0.0,) * 1000, ((400, 499),))
    worth = lambda row: nab.worth(series, row, nab.STANDARD)  # noqa: E731
    assert worth(400) == (0, pytest.approx(1.0))
    assert worth(499)[1] == pytest.approx((2 / (1 + math.exp(-0.05)) - 1) / (2 / (1 + math.exp(-5)) - 1))
    assert worth(399) == (-1, -0.11)
    assert worth(500)[1] == pytest.approx(0.11 * (2 / (1 + math.exp(5 / 99)) - 1))
    assert worth(999) == (-1, -0.11)


@settings(max_examples=100)
@given(st.data())
def test_the_best_threshold_is_that_of_trying_all(data: st.DataObject) -> None:
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(ROOT / "benchmarks")
    from immune_parts import _nab_scoring as module

    patch.undo()
    results = []
    for name in "ab":
        count = data.draw(st.integers(20, 60))
        first = data.draw(st.integers(5, 12))
        windows = ((first, first + data.draw(st.integers(1, 6))),)
        scores = data.draw(st.lists(st.integers(0, 5).map(float), min_size=count, max_size=count))
        results.append((module.Series(name, (0.0,) * count, windows), scores))
    totals = {
        threshold: sum(
            module.score_series(one, scores, threshold, module.STANDARD) for one, scores in results
        )
        for threshold in (math.inf, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    }
    _, best = module.best_threshold(results, module.STANDARD)
    assert best == pytest.approx(module.normalized(max(totals.values()), 2, module.STANDARD), abs=1e-9)
