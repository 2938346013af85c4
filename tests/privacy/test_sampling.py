"""Poisson sampling is what the accountant assumes, nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cloister.privacy.errors import PrivacyError
from cloister.privacy.randomness import OsRandom
from cloister.privacy.sampling import PoissonSampler


@pytest.mark.parametrize("q", [0.03, 0.2, 0.77])
def test_every_record_is_included_with_the_stated_probability(q: float) -> None:
    records, rounds = 60, 4000
    sampler = PoissonSampler(records, q, OsRandom("sampling"))
    counts = np.zeros(records)
    sizes = np.zeros(rounds)
    for i in range(rounds):
        batch = sampler.sample()
        counts[batch] += 1
        sizes[i] = len(batch)
    spread = rounds * q * (1 - q)
    assert stats.chi2.cdf(float(((counts - rounds * q) ** 2 / spread).sum()), records) < 1 - 1e-7
    # The total tells a probability that is a few percent off; the sizes' variance tells fixed-size batches.
    assert abs(counts.sum() - records * rounds * q) < 6 * math.sqrt(records * spread)
    assert 0.85 < sizes.var() / (records * q * (1 - q)) < 1.15


def test_records_join_independently_of_each_other() -> None:
    records, rounds = 12, 8000
    sampler = PoissonSampler(records, 0.4, OsRandom("sampling"))
    masks = np.zeros((rounds, records))
    for row in masks:
        row[sampler.sample()] = 1
    correlation = np.corrcoef(masks.T) - np.eye(records)
    assert np.abs(correlation).max() < 6 / math.sqrt(rounds)


def test_a_batch_holds_each_record_at_most_once_and_may_be_empty() -> None:
    sampler = PoissonSampler(5, 0.05, OsRandom("sampling"))
    batches = [sampler.sample() for _ in range(500)]
    assert any(len(batch) == 0 for batch in batches)
    for batch in batches:
        assert len(np.unique(batch)) == len(batch)
        assert batch.dtype == np.int64


def test_probability_one_takes_everybody() -> None:
    assert PoissonSampler(7, 1.0, OsRandom("sampling")).sample().tolist() == list(range(7))


@pytest.mark.parametrize(("records", "q"), [(0, 0.5), (5, 0.0), (5, -0.1), (5, 1.1), (5, math.nan)])
def test_an_impossible_sampler_is_refused(records: int, q: float) -> None:
    with pytest.raises(PrivacyError) as refusal:
        PoissonSampler(records, q, OsRandom("sampling"))
    assert refusal.value.code == "privacy.plan_invalid"
