"""Noise on a grid: the law it states, the bound on the sensitivity, no output that gives a record away."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cloister.privacy.errors import PrivacyError
from cloister.privacy.noise import (
    _CERTAIN,
    _NEAR,
    GRID_SLACK,
    NORM_ERROR,
    SUM_SLACK,
    GaussianIntegers,
    _cells,
    choose_grid,
)
from cloister.privacy.randomness import OsRandom
from cloister.privacy.testing import SeededTestRandom
from tests.racing import race

DRAWS = 400_000


@pytest.mark.parametrize("bits", [12, 20, 40])
def test_the_noise_is_normal_with_the_stated_scale(bits: int) -> None:
    drawn = GaussianIntegers(OsRandom("noise")).draw(DRAWS, bits)
    assert drawn.dtype == np.int64
    # Half a step makes up for rounding down.
    values = (drawn + 0.5) / 2.0**bits
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], DRAWS)
    total = float(values @ values)
    assert low < total < high
    assert not low < total * 0.98**2 < high
    assert stats.kstest(values, "norm").pvalue > 1e-6
    assert abs(float(values[:-1] @ values[1:])) / DRAWS < 6 / math.sqrt(DRAWS)


def test_the_coarsest_noise_has_the_exact_law_of_a_normal_rounded_down() -> None:
    drawn = GaussianIntegers(OsRandom("noise")).draw(DRAWS, 12)
    # 16 steps are one of the sampler's cells: bins of 5 steps find errors within cells, at both signs.
    edges = np.arange(-3 * 4096, 3 * 4096 + 1, 5)
    seen, _ = np.histogram(drawn, bins=np.concatenate(([-(2**40)], edges, [2**40])))
    expected = np.diff(np.concatenate(([0], stats.norm.cdf(edges / 4096), [1]))) * DRAWS
    assert stats.chisquare(seen, expected).pvalue > 1e-6


def test_the_table_of_cells_holds_exactly_its_weights() -> None:
    table = _cells()
    columns = len(table.threshold)
    column = 2**64 // columns
    mass = [0] * columns
    for own, (threshold, alias) in enumerate(zip(table.threshold, table.alias, strict=True)):
        mass[own] += int(threshold)
        mass[int(alias)] += column - int(threshold)
    assert sum(mass) == 2**64
    peaks = [math.exp(-((cell / 256) ** 2) / 2) for cell in range(columns)]
    total = math.fsum(peaks)
    assert math.fsum(abs(m / 2**64 - p / total) for m, p in zip(mass, peaks, strict=True)) / 2 < 2.0**-50


@pytest.mark.parametrize("cell", [0, 3, 1279, 1280, 2500])
@pytest.mark.parametrize("position", [0, 2**31, 2**32 - 1])
def test_a_position_is_kept_with_the_chance_its_density_asks_for(cell: int, position: int) -> None:
    edge, offset = cell / 256, (position + 0.5) / 2**40
    density = math.exp((edge**2 - (edge + offset) ** 2) / 2) * 2**31
    noise = GaussianIntegers(OsRandom("noise"))

    def kept(chance: int) -> bool:
        return bool(
            noise._decide(np.array([cell]), np.array([(position << 31) | chance]), np.array([chance]))[0]
        )

    assert kept(math.floor(density) - 1)
    assert not kept(math.floor(density) + 1)


def test_a_position_that_is_not_kept_is_left_out() -> None:
    class FarEnds:
        """The far end of the first cell, four times, with the largest and then the smallest chance."""

        generator = "chosen"

        def words(self, count: int) -> np.ndarray:
            places = [(2**32 - 1) << 31 | (2**31 - 1)] * 2 + [(2**32 - 1) << 31] * 2
            return np.array([0] * 4 + places if count == 8 else [0] * count, dtype=np.uint64)

    assert GaussianIntegers(FarEnds())._block(4, 20).tolist() == [2**12 - 1] * 2


def test_chances_that_are_kept_unseen_are_below_every_near_density() -> None:
    cells = np.arange(_NEAR)
    lowest = np.exp(((cells / 256) ** 2 - ((cells + 1) / 256) ** 2) / 2) * 2**31
    assert lowest.min() > _CERTAIN > 0.97 * 2**31


def test_noise_is_drawn_once() -> None:
    noise = GaussianIntegers(OsRandom("noise"))
    drawn = np.concatenate([noise.draw(count, 40) for count in [1, 5, 0, 3000, 5000, 2, 9000]])
    assert len(drawn) == 17_008
    assert len(np.unique(drawn)) == len(drawn)


def test_equal_seeds_give_equal_noise_and_the_private_source_never_does() -> None:
    def drawn(source: object) -> list[int]:
        return GaussianIntegers(source).draw(50, 30).tolist()  # type: ignore[arg-type, no-any-return]

    assert drawn(SeededTestRandom(1)) == drawn(SeededTestRandom(1))
    assert drawn(SeededTestRandom(1)) != drawn(SeededTestRandom(2))
    assert drawn(OsRandom("a")) != drawn(OsRandom("a"))


def test_a_forked_child_does_not_add_the_noise_its_parent_adds() -> None:
    noise = GaussianIntegers(OsRandom("noise"))
    noise.draw(3, 30)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, noise.draw(4, 30).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32) != noise.draw(4, 30).tobytes()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(("count", "bits"), [(-1, 20), (3, 11), (3, 41)])
def test_impossible_draws_are_refused(count: int, bits: int) -> None:
    with pytest.raises(PrivacyError) as refusal:
        GaussianIntegers(OsRandom("noise")).draw(count, bits)
    assert refusal.value.code == "privacy.randomness_invalid"


@given(
    clip=st.floats(1e-3, 1e3),
    sigma=st.floats(0.3, 50),
    parameters=st.integers(1, 10**6),
    units=st.integers(1, 10**6),
)
def test_the_slack_is_small_and_the_noise_covers_it(
    clip: float, sigma: float, parameters: int, units: int
) -> None:
    grid = choose_grid(clip, sigma, parameters=parameters, units=units, summands=1024)
    rounding = 2 * grid.step * math.sqrt(parameters)
    adding_up = 2 * units * (1025 + parameters) * 2.0**-53
    floating = clip * (adding_up + NORM_ERROR)
    assert grid.sensitivity >= (clip + rounding + floating) * (1 - 1e-12)
    assert 0 < grid.slack <= GRID_SLACK + NORM_ERROR + 1.01 * adding_up + 1e-6
    assert math.isclose(grid.deviation, sigma * grid.sensitivity, rel_tol=1e-12)
    assert units * clip / grid.step < 2.0**52


def test_sums_too_large_for_the_grid_are_refused() -> None:
    with pytest.raises(PrivacyError, match="grid"):
        choose_grid(1.0, 1e-3, parameters=100, units=2**40, summands=1)


def possible_outputs(value: np.ndarray, sigma: float, rounded: np.ndarray) -> float:
    """Share of ``rounded`` that ``value + noise`` can't give for any float32 noise.

    Following Mironov 2012: x + n, rounded to float32, leaves gaps that depend on x. An output y is possible
    under x if one of the floats next to y - x gives it.
    """
    near = (rounded - value).astype(np.float32)
    steps = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    reached = np.any([(value + step).astype(np.float32) == rounded for step in steps], axis=0)
    return float(1 - reached.mean())


def test_the_scalar_attack_tells_float_noise_apart_and_none_of_ours() -> None:
    sigma, draws = 1.0, 100_000
    # In floating point, an output of 0 + noise is often impossible as an output of 1 + noise.
    floats = (np.float32(sigma) * OsRandom("noise").normal(draws).astype(np.float32)).astype(np.float32)
    assert possible_outputs(np.float32(1), sigma, floats) > 0.10

    # On the grid every output of either neighbour is a whole number of steps, and so is the difference.
    grid = choose_grid(1.0, sigma, parameters=1, units=100, summands=1)
    noise = GaussianIntegers(OsRandom("noise"))
    without, with_record = 0, round(1.0 / grid.step)
    outputs = without + noise.draw(draws, grid.bits)
    needed = outputs - with_record
    # The neighbour gives the same output with noise `needed`, which the sampler can draw: all whole numbers
    # within 16 standard deviations are positions of a cell that has a weight.
    weight = _cells().threshold[np.clip(np.abs(needed) >> (grid.bits - 8), 0, 4095)]
    assert (np.abs(needed) < 16 * 2**grid.bits).all()
    assert (weight > 0).all()
    # And the released float is a function of the output alone.
    released = (outputs * grid.step).astype(np.float32)
    also = ((with_record + needed) * grid.step).astype(np.float32)
    assert (released == also).all()


def test_sums_that_float64_can_not_hold_closely_enough_are_refused() -> None:
    def slack(positions: int) -> float:
        return choose_grid(
            1.0, 1.0, parameters=100, units=10**5, summands=positions * 2**14, parts=10**5
        ).slack

    assert slack(1024) <= GRID_SLACK + NORM_ERROR + SUM_SLACK
    with pytest.raises(PrivacyError, match="closely") as refusal:
        slack(64 * 1024)
    assert refusal.value.code == "privacy.plan_invalid"


def test_two_threads_never_get_the_same_noise() -> None:
    """One instance used by several threads: no value is handed out twice."""
    draws = GaussianIntegers(OsRandom("threads"))
    found: list[np.ndarray] = []

    def take() -> None:
        for _ in range(400):
            found.append(draws.draw(7, 40))

    race([take] * 4)
    words = np.concatenate(found)
    assert len(words) == 4 * 400 * 7
    assert len(np.unique(words)) == len(words)
