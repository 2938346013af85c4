"""A batch is read strictly, and a refusal repeats nothing of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.service.encoding import encode_batch
from cloister.immune.service.telemetry_form import BatchRefused, TelemetryForm, read_batch
from tests.immune.service.brains import batch, event
from tests.timing import processor_seconds, shortest

SECRET_TEXT = "Mrs Miller, born 1951-03-02"
OF_R17_1 = (
    "timestamp",
    "process_id",
    "thread_id",
    "function_name",
    "args_metadata",
    "duration_ms",
    "resource_tags",
    "redaction_hashes",
)


def refusal(body: bytes, most: int = 1000) -> BatchRefused:
    with pytest.raises(BatchRefused) as caught:
        read_batch(body, most)
    return caught.value


def test_an_event_arrives_as_it_was_sent() -> None:
    sent = event()
    arrived = read_batch(batch(sent), 10).events[0]
    assert json.loads(arrived.model_dump_json()) == sent


@pytest.mark.parametrize("name", OF_R17_1)
def test_each_of_the_eight_fields_has_to_be_there(name: str) -> None:
    """PIC-R17.1 on the receiving side."""
    told = event()
    del told[name]
    assert refusal(batch(told)).details == (f"events.0.{name}: missing",)


WRONG: dict[str, Any] = {
    "timestamp": [-1.0, 1e12, SECRET_TEXT, None, True],
    "process_id": [-1, 2**40, 1.5, "1"],
    "thread_id": [-1, 2**65, "1"],
    "event_id": ["", "x" * 65, SECRET_TEXT],
    "module_name": ["", "x" * 1025, "a\x1b[31m", 7],
    "function_name": ["", "x" * 1025, "a\nb", 7],
    "args_metadata": [None, [], {}, {**event()["args_metadata"], "value": SECRET_TEXT}],
    "arg_hashes": [[SECRET_TEXT], ["0" * 65], "00", [7]],
    "arg_types": [["x" * 129], [1], ["str"] * 300],
    "arg_count": [-1, 1.0],
    "duration_ms": [-0.1, 1e13, "2.5"],
    "failed": [0, "false", None],
    "sampling_rate": [-0.1, 1.1],
    "resource_tags": [{SECRET_TEXT: 7}, {"a": "x" * 129}, {str(one): "" for one in range(33)}, []],
    "redaction_hashes": [[SECRET_TEXT], None],
    "calls": [0, -1, 2**53, 1.5],
    "errors": [-1, "1"],
    "caller": ["x" * 1025, "a\x00", None],
    "size": [-1, 2**60],
    "teaches": ["yes", 1],
    "value": [SECRET_TEXT],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_field_is_named_and_what_stood_in_it_is_not(name: str, value: object) -> None:
    refused = refusal(batch(event(), event(**{name: value})))
    assert refused.fault == "schema"
    assert all(line.startswith("events.1.") for line in refused.details)
    said = json.dumps(refused.as_json()) + str(refused)
    assert "Miller" not in said
    assert "xxx" not in said
    if name != "value":
        assert name in said


def test_an_unknown_field_is_not_even_named() -> None:
    refused = refusal(batch(event(**{"123-45-6789": 1})))
    assert refused.details == ("events.0.[withheld]: unknown field",)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(number: str) -> None:
    body = batch(event()).replace(b'"duration_ms": 2.5', f'"duration_ms": {number}'.encode())
    assert refusal(body).details == ("events.0.duration_ms: not a finite number",)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"events": [', b"\xff\xfe", b'{"events": "\xff"}', b"[" * 100_000]
)
def test_what_is_not_json_is_told_from_json_of_another_form(body: bytes) -> None:
    assert refusal(body).fault == "syntax"


@pytest.mark.parametrize("body", [b"null", b"[]", b"{}", b'{"events": []}', b'{"events": {}}', b'"x"'])
def test_json_of_another_form_is_refused(body: bytes) -> None:
    assert refusal(body).fault == "schema"


def test_too_many_events_are_refused() -> None:
    assert refusal(batch(*[event()] * 11), 10).fault == "length"
    assert len(read_batch(batch(*[event()] * 10), 10).events) == 10


@pytest.mark.timed
@pytest.mark.parametrize(
    "body",
    [
        b'{"events":[' + b",".join([b"{}"] * 330_000) + b"]}",
        b'{"events":[{' + b",".join(b'"k%d":0' % one for one in range(90_000)) + b"}]}",
        b'{"events":[{"args_metadata":{"types":[' + b",".join([b"0"] * 490_000) + b"]}}]}",
        b'{"events":[{"resource_tags":{' + b",".join(b'"%d":0' % one for one in range(90_000)) + b"}}]}",
        b'{"events":' + b"[" * 100 + b"]" * 100 + b"}",
    ],
    ids=["events", "fields", "items", "tags", "depth"],
)
def test_a_megabyte_made_to_be_costly_costs_less_than_a_second(body: bytes) -> None:
    form = body[:1_000_000]
    assert shortest(lambda: processor_seconds(lambda: refusal(form)), 1.0) < 1.0
    assert len(refusal(form).details) <= 20


@settings(max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_whatever_json_comes_it_is_refused_in_one_way(value: object) -> None:
    assert refusal(json.dumps({"events": [value]}).encode(), 10).code == "immune.telemetry_invalid"


class Told:
    def __init__(self, **changes: object) -> None:
        self._changes = changes

    def as_json(self) -> dict[str, Any]:
        return event(**self._changes)


def test_what_the_sender_writes_is_what_the_service_reads() -> None:
    body = encode_batch([Told(), Told(number=2, duration_ms=0.0)])
    assert [one.duration_ms for one in read_batch(body, 10).events] == [2.5, 0.0]


def test_a_type_with_an_odd_name_loses_no_batch() -> None:
    body = encode_batch([Told(), Told(arg_types=["\ud800"])])
    assert read_batch(body, 10).events[1].arg_types == ("?",)


def test_a_number_that_is_not_finite_is_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_batch([Told(duration_ms=float("nan"))])


def test_the_form_has_no_field_that_could_hold_a_value() -> None:
    assert not {"args", "kwargs", "value", "values", "result", "repr"} & set(TelemetryForm.model_fields)
