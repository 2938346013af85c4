"""Poisson sampling is what the accountant assumes, nothing else."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloister.privacy.errors import PrivacyError
from cloister.privacy.randomness import OsRandom
from cloister.privacy.sampling import SIZE_DISTANCE, PoissonSampler, size_table


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


def distance_from_binomial(units: int, q: float) -> Fraction:
    """Total variation distance of the table's law from the binomial, in exact fractions."""
    smallest, bounds = size_table(units, q)
    edges = [0, *bounds, 2**64]
    table = {smallest + i: Fraction(edges[i + 1] - edges[i], 2**64) for i in range(len(edges) - 1)}
    chance = Fraction(q)
    exact = (math.comb(units, k) * chance**k * (1 - chance) ** (units - k) for k in range(units + 1))
    return sum((abs(p - table.get(k, Fraction(0))) for k, p in enumerate(exact)), Fraction(0)) / 2


@given(units=st.integers(1, 60), q=st.floats(1e-9, 1.0, exclude_max=True))
def test_the_law_of_sizes_is_the_binomial_within_the_stated_distance(units: int, q: float) -> None:
    assert distance_from_binomial(units, q) < SIZE_DISTANCE


def test_the_law_of_sizes_is_close_on_a_large_dataset_too() -> None:
    units, q = 100_000, 0.01
    smallest, bounds = size_table(units, q)
    assert smallest < 1000 < smallest + len(bounds)
    ours = np.array([bound / 2**64 for bound in bounds])
    np.testing.assert_allclose(
        ours, stats.binom.cdf(np.arange(smallest, smallest + len(bounds)), units, q), atol=1e-11
    )


def test_every_subset_of_a_size_is_as_likely() -> None:
    rounds, sampler = 30_000, PoissonSampler(5, 0.5, OsRandom("sampling"))
    counts = dict.fromkeys((s for k in range(6) for s in combinations(range(5), k)), 0)
    for _ in range(rounds):
        counts[tuple(sorted(sampler.sample().tolist()))] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-7


class Words:
    """Words that a test chose."""

    generator = "chosen"

    def __init__(self, *words: int) -> None:
        self._words = list(words)

    def words(self, count: int) -> np.ndarray:
        taken, self._words = self._words[:count], self._words[count:]
        return np.array(taken, dtype=np.uint64)


def test_a_word_on_a_bound_belongs_to_the_larger_size_and_biased_indices_are_drawn_again() -> None:
    smallest, bounds = size_table(3, 0.25)
    assert smallest == 0
    everyone = 2**64 - 1
    # Two thirds of 2**32 and a word in the part of the range that would favour index 0.
    ones = PoissonSampler(3, 0.25, Words(bounds[0], 0, 2**63))  # type: ignore[arg-type]
    assert ones.sample().tolist() == [1]
    assert PoissonSampler(3, 0.25, Words(bounds[0] - 1)).sample().tolist() == []  # type: ignore[arg-type]
    assert PoissonSampler(3, 0.25, Words(everyone)).sample().tolist() == [0, 1, 2]  # type: ignore[arg-type]


@pytest.mark.parametrize(("records", "q"), [(0, 0.5), (5, 0.0), (5, -0.1), (5, 1.1), (5, math.nan)])
def test_an_impossible_sampler_is_refused(records: int, q: float) -> None:
    with pytest.raises(PrivacyError) as refusal:
        PoissonSampler(records, q, OsRandom("sampling"))
    assert refusal.value.code == "privacy.plan_invalid"
