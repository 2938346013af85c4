from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.federation import FederationError
from cloister.federation.aggregation import require_same_form, weighted_mean

_values = st.floats(-1e3, 1e3, width=32)


def _update(*values: float) -> dict[str, np.ndarray]:
    return {"w": np.array(values, np.float32)}


def test_a_site_weighs_as_many_records_as_it_has() -> None:
    mean = weighted_mean({"a": _update(1.0), "b": _update(4.0)}, {"a": 100, "b": 50})
    assert mean["w"] == pytest.approx([2.0])


def test_updates_are_added_in_the_order_of_the_sites_names() -> None:
    # In float64, (1e30 - 1e30) + 1 is 1 and (1e30 + 1) - 1e30 is 0.
    values = {"a": 1e30, "b": -1e30, "c": 1.0}
    means = {
        order: weighted_mean({site: _update(values[site]) for site in order}, dict.fromkeys(order, 1.0))["w"][
            0
        ]
        for order in ("abc", "acb", "bca", "cab", "cba")
    }
    assert set(means.values()) == {np.float32(1 / 3)}


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]),
        st.tuples(st.lists(_values, min_size=3, max_size=3), st.integers(1, 10_000)),
        min_size=1,
    ),
    st.randoms(),
)
def test_the_order_of_arrival_does_not_show(
    sites: dict[str, tuple[list[float], int]], random: object
) -> None:
    names = list(sites)
    random.shuffle(names)  # type: ignore[attr-defined]
    shares = {site: float(sites[site][1]) for site in sites}
    there = weighted_mean({site: _update(*sites[site][0]) for site in sorted(sites)}, shares)
    here = weighted_mean({site: _update(*sites[site][0]) for site in names}, shares)
    assert there["w"].tobytes() == here["w"].tobytes()


@given(st.lists(_values, min_size=2, max_size=2), st.integers(2, 5))
def test_equal_updates_average_to_themselves(values: list[float], count: int) -> None:
    updates = {f"s{i}": _update(*values) for i in range(count)}
    mean = weighted_mean(updates, dict.fromkeys(updates, 7.0))
    np.testing.assert_allclose(mean["w"], values, rtol=1e-6)


def test_the_mean_equals_a_float64_reference() -> None:
    random = np.random.default_rng(3)
    updates = {name: {"w": random.normal(size=(5, 4)).astype(np.float32)} for name in "abc"}
    shares = {"a": 190.0, "b": 131.0, "c": 79.0}
    reference = sum(updates[name]["w"].astype(np.float64) * shares[name] for name in "abc") / 400
    np.testing.assert_array_equal(weighted_mean(updates, shares)["w"], reference.astype(np.float32))


@pytest.mark.parametrize("shares", [{"a": 0.0}, {"a": -1.0}, {"a": float("nan")}])
def test_a_share_that_is_not_positive_is_refused(shares: dict[str, float]) -> None:
    with pytest.raises(FederationError):
        weighted_mean({"a": _update(1.0)}, shares)


def test_nothing_has_no_average() -> None:
    with pytest.raises(FederationError):
        weighted_mean({}, {})


@pytest.mark.parametrize(
    "update",
    [
        {},
        {"v": np.zeros(2, np.float32)},
        {"w": np.zeros(2, np.float32), "v": np.zeros(2, np.float32)},
        {"w": np.zeros(3, np.float32)},
        {"w": np.zeros(2, np.float64)},
        {"w": np.array([1.0, np.nan], np.float32)},
        {"w": np.array([1.0, np.inf], np.float32)},
        {"w": [0.0, 0.0]},
    ],
)
def test_an_update_of_another_form_is_refused(update: dict[str, np.ndarray]) -> None:
    with pytest.raises(FederationError) as refusal:
        require_same_form(update, {"w": np.zeros(2, np.float32)})
    assert refusal.value.code == "federation.bad_update"
