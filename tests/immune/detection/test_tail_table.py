"""A decayed histogram that says how rarely a quantity is as large as this."""

from __future__ import annotations

import math
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.detection.tail_table import BUCKETS, WIDTH, TailTable
from cloister.immune.errors import ImmuneError

distances = st.floats(min_value=-20.0, max_value=20.0)


def learned(values: list[float], weight: float = 1.0) -> TailTable:
    table = TailTable()
    for value in values:
        table.look(value)
        table.learn(weight)
    table.refit(1.0)
    return table


def counts_of(table: TailTable) -> list[float]:
    """The weights of all buckets."""
    written: Any = table.as_json()
    below, counts = [0.0] * written["bottom"], written["counts"]
    return below + counts + [0.0] * (BUCKETS - len(below) - len(counts))


def reference(counts: list[float], unit: float) -> list[float]:
    """The surprises as the definition has them, bucket by bucket."""
    total = sum(counts)
    at_least = [sum(counts[i:]) for i in range(BUCKETS)]
    p = [(at_least[i] - 0.5 * counts[i] + 0.5 * unit) / (total + unit) for i in range(BUCKETS)]
    edge = max(i for i in range(BUCKETS) if at_least[i] >= 0.03 * total or i == 0)
    above = sum(counts[edge + 1 :])
    distance = sum((i - edge) * counts[i] for i in range(edge + 1, BUCKETS))
    mean = max((distance + 6.0 * unit) / (above + 2.0 * unit), 0.5)
    tail = max(above / total, 0.5 * unit / (total + unit))
    for i in range(edge + 2, BUCKETS):
        p[i] = tail * math.exp(-(i - edge - 0.5) / mean)
    smallest = 1.0
    found = []
    for value in p:
        smallest = min(smallest, max(value, math.exp(-27.6)))
        found.append(-math.log(smallest))
    return found


@settings(max_examples=150)
@given(st.lists(distances, min_size=1, max_size=300), st.floats(min_value=0.5, max_value=1e3))
def test_the_surprises_are_those_of_the_definition_computed_bucket_by_bucket(
    values: list[float], unit: float
) -> None:
    table = learned(values)
    table.refit(unit)
    expected = reference(counts_of(table), unit)
    found = [table.look_at(index) for index in range(BUCKETS)]
    assert found == pytest.approx(expected, abs=1e-6)


@settings(max_examples=150)
@given(st.lists(distances, max_size=200), distances, distances)
def test_what_lies_farther_out_is_never_less_surprising(
    values: list[float], one: float, other: float
) -> None:
    table = learned(values)
    assert table.look(min(one, other)) <= table.look(max(one, other))


def test_nothing_is_surprising_before_anything_was_learned() -> None:
    table = TailTable()
    table.refit(1.0)
    assert [table.look(distance) for distance in (-50.0, 0.0, 50.0)] == [0.0, 0.0, 0.0]


def test_beyond_both_ends_lies_the_last_bucket() -> None:
    table = learned([0.0])
    table.look(1e6)
    assert table.place == BUCKETS - 1
    table.look(-1e6)
    assert table.place == 0


def test_the_tail_of_a_pareto_is_extrapolated_to_where_nothing_was_seen() -> None:
    rng = random.Random(5)
    table = learned([math.log(rng.paretovariate(1.2)) for _ in range(20_000)])
    for p in (3e-3, 1e-3, 2e-4):
        surprise = table.look(-math.log(p) / 1.2)
        assert surprise == pytest.approx(-math.log(p), rel=0.15)


def test_quantiles_are_right_to_half_a_bucket() -> None:
    rng = random.Random(6)
    values = sorted(rng.gauss(0.0, 0.5) for _ in range(5000))
    table = learned(values)
    for share in (0.5, 0.95, 0.99):
        assert table.quantile(share) == pytest.approx(values[int(share * 5000)], abs=WIDTH)


def test_of_an_empty_table_every_quantile_is_its_middle() -> None:
    assert TailTable().quantile(0.5) == 0.0


def test_an_event_of_little_weight_changes_little() -> None:
    table = learned([0.0] * 1000)
    before = table.look(2.0)
    for _ in range(20):
        table.look(2.0)
        table.learn(0.1)
    table.refit(1.0)
    little = table.look(2.0)
    for _ in range(20):
        table.learn(0.9)
    table.refit(1.0)
    assert before > little > table.look(2.0)


def test_rescaling_with_its_unit_changes_no_surprise() -> None:
    table = learned([0.1 * index for index in range(30)], weight=8.0)
    table.refit(8.0)
    before = [table.look_at(index) for index in range(BUCKETS)]
    table.rescale(1.0 / 8.0)
    table.refit(1.0)
    assert [table.look_at(index) for index in range(BUCKETS)] == pytest.approx(before, abs=1e-9)


@settings(max_examples=100)
@given(st.lists(distances, max_size=100))
def test_a_table_that_was_written_down_is_the_same_when_it_is_read(values: list[float]) -> None:
    table = learned(values)
    again = TailTable.from_json(table.as_json())
    assert again.as_json() == table.as_json()
    assert [again.look_at(i) for i in range(BUCKETS)] == [table.look_at(i) for i in range(BUCKETS)]


def test_each_event_is_in_its_bucket_in_whatever_order_the_buckets_come() -> None:
    chance = random.Random(8)
    places = [0, BUCKETS - 1, *range(40, 60), 41, 0]
    for _ in range(20):
        chance.shuffle(places)
        table, expected = TailTable(), [0.0] * BUCKETS
        for place in places:
            table.look_at(place)
            table.learn(0.5)
            expected[place] += 0.5
            assert counts_of(table) == expected
        assert table.events() == 0.5 * len(places)


def test_a_table_is_read_and_written_in_one_form_whatever_it_keeps_in_memory() -> None:
    written = {"bottom": 94, "counts": [1.0, 0.0, 2.5]}
    table = TailTable.from_json(written)
    assert table.as_json() == written
    assert TailTable.from_json({"bottom": 92, "counts": [0.0, 0.0, 1.0, 0.0, 2.5, 0.0]}).as_json() == written
    assert TailTable.from_json({"bottom": 7, "counts": [0.0]}).as_json() == {"bottom": 0, "counts": []}
    table.look_at(93)
    table.learn(1.0)
    assert table.as_json() == {"bottom": 93, "counts": [1.0, 1.0, 0.0, 2.5]}


def test_a_table_has_room_for_the_buckets_that_had_events_and_no_others() -> None:
    chance = random.Random(9)
    values = [chance.gauss(0.0, 0.4) for _ in range(1000)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tables = [learned(values) for _ in range(20)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / len(tables) < 2500


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"bottom": 0},
        {"bottom": 0, "counts": [], "more": 1},
        {"bottom": 0, "counts": None},
        {"bottom": 0, "counts": [1.0] * 193},
        {"bottom": 100, "counts": [1.0] * 100},
        {"bottom": -1, "counts": [1.0]},
        {"bottom": True, "counts": [1.0]},
        {"bottom": 0, "counts": [float("nan")]},
        {"bottom": 0, "counts": [float("inf")]},
        {"bottom": 0, "counts": [-1.0]},
        {"bottom": 0, "counts": ["1"]},
        {"bottom": 0, "counts": [True]},
        {"bottom": 0, "counts": [10**400]},
    ],
)
def test_a_damaged_table_is_refused(document: object) -> None:
    with pytest.raises(ImmuneError) as refused:
        TailTable.from_json(document)
    assert refused.value.code == "immune.baseline_damaged"
