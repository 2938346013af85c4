"""What telemetry tells of a call, and what it never tells."""

from __future__ import annotations

import json
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.wrapping import Recorder, Ring, monitor
from cloister.immune.wrapping.arguments import ArgumentHasher
from cloister.immune.wrapping.events import TelemetryEvent
from tests.immune.wrapping.watching import EVERY, watching

FIELDS_OF_R17_1 = {
    "timestamp",
    "process_id",
    "thread_id",
    "function_name",
    "args_metadata",
    "duration_ms",
    "resource_tags",
    "redaction_hashes",
}
FIELDS_OF_X2 = {
    "event_id",
    "module_name",
    "arg_count",
    "arg_types",
    "arg_hashes",
    "redaction_applied",
    "sampling_rate",
}


@monitor
def payment(*_args: object, **_named: object) -> None: ...


def _events(*calls: tuple[object, ...]) -> list[TelemetryEvent]:
    ring: Ring[TelemetryEvent] = Ring()
    with watching(EVERY, Recorder(ring, tags={"service": "till"}, wall_clock=lambda: 1_000_000.0)):
        for call in calls:
            payment(*call)
    return ring.take(100)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=5,
)


@settings(max_examples=100)
@given(arguments=st.lists(_values, max_size=70))
def test_every_event_has_all_its_fields_as_json(arguments: list[object]) -> None:
    """PIC-P52: Event JSON has the eight fields of R 17.1."""
    (event,) = _events(tuple(arguments))
    shown = json.loads(json.dumps(event.as_json()))
    assert set(shown) >= FIELDS_OF_R17_1 | FIELDS_OF_X2
    assert shown["arg_count"] == len(arguments)
    assert len(shown["arg_types"]) == len(shown["arg_hashes"]) == min(len(arguments), 64)
    assert shown["function_name"] == f"{__name__}:payment"
    assert shown["module_name"] == __name__
    assert shown["resource_tags"] == {"service": "till"}
    assert shown["redaction_applied"] is bool(arguments)
    assert shown["sampling_rate"] == 1.0
    assert 0 <= shown["duration_ms"] < 60_000
    assert shown["timestamp"] <= 1_000_000.0


@settings(max_examples=100)
@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12))
def test_no_value_is_in_an_event(secret: str) -> None:
    class Record:
        def __init__(self) -> None:
            self.secret = secret

        def __repr__(self) -> str:
            return secret

    (event,) = _events((secret, secret.encode(), [secret], {secret: secret}, Record()))
    assert secret not in json.dumps(event.as_json())
    assert event.args_metadata.types == ("str", "bytes", "list", "dict", "Record")
    assert event.args_metadata.sizes == (len(secret), len(secret), 1, 1, 1)
    assert [bool(one) for one in event.args_metadata.hashes] == [True, True, False, False, False]


def test_equal_values_of_one_process_have_equal_hashes_and_unequal_ones_others() -> None:
    one, two = _events(
        ("123-45-6789", 7, 7.0, True, 1, b"7", "7"), ("123-45-6789", 8, 7.0, True, 1, b"7", "7")
    )
    first, second = one.args_metadata.hashes, two.args_metadata.hashes
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False] + [True] * 5
    assert len(set(first)) == len(first)


def test_hashes_are_keyed_so_that_no_other_process_can_try_all_values() -> None:
    hashers = [ArgumentHasher(lambda: 0.0) for _ in range(2)]
    described = [hasher.describe(("123-45-6789",)) for hasher in hashers]
    assert described[0].hashes != described[1].hashes
    assert described[0].key_id != described[1].key_id


def test_the_key_rotates_after_a_day_and_after_a_million_hashes() -> None:
    now, keys = [0.0], iter([bytes([number]) * 32 for number in range(9)])
    hasher = ArgumentHasher(lambda: now[0], lambda: next(keys))
    first = hasher.describe((1,)).key_id
    assert hasher.describe((1,)).key_id == first
    now[0] = 86_401.0
    second = hasher.describe((1,)).key_id
    assert second != first
    hasher._left = 3
    assert hasher.describe((1, 2)).key_id == second
    assert hasher.describe((1, 2)).key_id != second


def test_only_the_first_arguments_of_very_many_are_described() -> None:
    (event,) = _events(tuple(range(1000)))
    assert event.args_metadata.count == 1000
    assert len(event.args_metadata.hashes) == 64


def test_arguments_are_described_before_the_call_can_change_them() -> None:
    @monitor
    def emptied(rows: list[int]) -> None:
        rows.clear()

    ring: Ring[TelemetryEvent] = Ring()
    with watching(EVERY, Recorder(ring)) as watcher:
        emptied([1, 2, 3])
        assert ring.take(1)[0].args_metadata.sizes == (3,)
        assert watcher.sensor("emptied").left[0].entered.size == 3


def test_ids_of_events_are_unique() -> None:
    assert len({event.event_id for event in _events(*[()] * 100)}) == 100


def test_a_full_ring_drops_the_oldest_and_counts_them() -> None:
    ring: Ring[int] = Ring()
    assert ring.capacity == 10_000
    for one in range(10_003):
        ring.append(one)
    assert (len(ring), ring.dropped, ring.fill) == (10_000, 3, 1.0)
    assert ring.take(2) == [3, 4]
    assert ring.newest(2) == [10_001, 10_002]
    assert ring.newest(0) == []
    assert len(ring.take(20_000)) == 9_998


def test_a_ring_loses_nothing_uncounted_under_threads() -> None:
    ring: Ring[int] = Ring(100)
    taken: list[int] = []

    def fill() -> None:
        for one in range(5000):
            ring.append(one)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += ring.take(10)
    taken += ring.take(200)
    assert len(taken) + ring.dropped == 20_000
