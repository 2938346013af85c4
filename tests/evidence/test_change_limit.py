"""How far private training can move a model: the bound holds in the worst case, and not far above it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import InputError
from cloister.evidence.change_limit import SENSITIVITY_SLACK, ChangeLimit, Descent, change_limit
from cloister.privacy.errors import PrivacyError
from cloister.privacy.noise import choose_grid

PLAN = Descent(
    clip_norm=1.0,
    noise_multiplier=1.0,
    sampling_probability=0.1,
    units=1000,
    steps=20,
    learning_rate=0.5,
    parameters=100,
)


def but(**changes: object) -> Descent:
    return Descent(**{name: getattr(PLAN, name) for name in Descent.__slots__} | changes)


def worst_change(plan: Descent, seed: int) -> np.ndarray:
    """Training in which every drawn unit pulls the same way with all its clip norm."""
    random = np.random.default_rng(seed)
    scale = plan.learning_rate / (plan.sampling_probability * plan.units)
    drawn = random.binomial(plan.units, plan.sampling_probability, plan.steps).sum()
    change = random.normal(size=(plan.steps, plan.parameters)).sum(axis=0)
    change *= plan.noise_multiplier * plan.clip_norm
    change[0] += drawn * plan.clip_norm
    scaled: np.ndarray = change * scale
    return scaled


plans = st.builds(
    Descent,
    clip_norm=st.floats(1e-3, 1e3),
    noise_multiplier=st.floats(0, 100),
    sampling_probability=st.floats(1e-3, 1),
    units=st.integers(1, 10_000),
    steps=st.integers(1, 200),
    learning_rate=st.floats(1e-4, 10),
    parameters=st.integers(1, 300),
)


@given(plans, st.integers(0, 2**32))
def test_no_training_passes_the_bound(plan: Descent, seed: int) -> None:
    limit, change = change_limit(plan), worst_change(plan, seed)
    assert np.linalg.norm(change) <= limit.l2
    assert np.abs(change).max() <= limit.largest <= limit.l2


def test_the_bound_is_nearly_reached_where_nothing_is_left_to_chance() -> None:
    plan = but(sampling_probability=1.0, noise_multiplier=0.0)
    limit = change_limit(plan)
    assert 1 < limit.l2 / np.linalg.norm(worst_change(plan, 0)) < 1.01
    private = change_limit(PLAN)
    assert private.l2 < 1.6 * np.linalg.norm(worst_change(PLAN, 0))


@pytest.mark.parametrize(("units", "sampling", "steps"), [(100, 0.01, 10), (1000, 0.1, 3), (20, 0.5, 40)])
def test_more_units_than_the_bound_counts_are_drawn_once_in_two_to_the_forty(
    units: int, sampling: float, steps: int
) -> None:
    plan = but(units=units, sampling_probability=sampling, steps=steps, noise_multiplier=0.0)
    whole = change_limit(plan).l2 * sampling * units / plan.learning_rate
    most = math.floor(whole / (1 + SENSITIVITY_SLACK) / (1 + steps * 2.0**-20) - steps + 1e-9)
    chances = units * steps
    more = math.fsum(
        math.exp(
            math.lgamma(chances + 1)
            - math.lgamma(drawn + 1)
            - math.lgamma(chances - drawn + 1)
            + drawn * math.log(sampling)
            + (chances - drawn) * math.log1p(-sampling)
        )
        for drawn in range(most + 1, chances + 1)
    )
    assert more <= 2.0**-40


@given(plans, st.sampled_from(["clip_norm", "learning_rate", "noise_multiplier"]), st.floats(1.01, 10))
def test_more_of_anything_allows_no_less(plan: Descent, name: str, factor: float) -> None:
    values = {one: getattr(plan, one) for one in Descent.__slots__}
    more = Descent(**values | {name: values[name] * factor})
    assert change_limit(more).l2 >= change_limit(plan).l2
    assert change_limit(more).largest >= change_limit(plan).largest


@given(
    st.floats(1e-3, 1e3),
    st.floats(0.1, 100),
    st.integers(1, 10_000_000),
    st.integers(1, 100_000),
    st.integers(1, 10_000),
)
def test_the_slack_covers_every_grid_of_the_engine(
    clip: float, noise: float, parameters: int, units: int, summands: int
) -> None:
    try:
        grid = choose_grid(clip, noise, parameters=parameters, units=units, summands=summands)
    except PrivacyError:
        return
    assert grid.sensitivity <= clip * (1 + SENSITIVITY_SLACK)


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_norm": 0.0},
        {"clip_norm": math.inf},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"sampling_probability": 0.0},
        {"sampling_probability": 1.01},
        {"units": 0},
        {"steps": 0},
        {"parameters": 0},
        {"learning_rate": 0.0},
    ],
)
def test_figures_that_cannot_be_have_no_bound(changes: dict[str, object]) -> None:
    with pytest.raises(InputError):
        but(**changes)


@pytest.mark.parametrize("values", [(0, 1, 0), (1, 0, 0), (1, 1, -1), (math.inf, 1, 0), (1, 1, math.nan)])
def test_a_limit_is_finite_and_above_zero(values: tuple[float, float, float]) -> None:
    with pytest.raises(InputError):
        ChangeLimit(*values)


def test_figures_too_large_for_a_bound_are_refused() -> None:
    with pytest.raises(InputError):
        change_limit(but(clip_norm=1e200, learning_rate=1e200))
