"""Traces as lines: one form, bounded, and nothing read that the writer doesn't write."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.errors import ImmuneError
from cloister.immune.generators import BENIGN, Pattern, TracedCall, encode_trace, read_trace
from cloister.immune.generators import calls as module

CALL = TracedCall(1.5, 0.000_25, 40, "app.web:handle", False, BENIGN)
LINE = (
    b'{"at_ns":1500000000,"caller":"app.web:handle","duration_ns":250000,'
    b'"failed":false,"label":"benign","size":40}'
)
HEADING = b'{"calls":1,"format":"cloister.traces/1"}'

nanoseconds = st.integers(0, 10**15)
traces = st.lists(
    st.builds(
        lambda at, duration, size, caller, failed, label: TracedCall(
            at / 1e9, duration / 1e9, size, caller, failed, label
        ),
        nanoseconds,
        nanoseconds,
        st.integers(0, 10**12),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
        st.booleans(),
        st.sampled_from(Pattern),
    ),
    max_size=20,
).map(lambda calls: tuple(sorted(calls, key=lambda call: call.at)))


@settings(max_examples=150)
@given(traces)
def test_what_was_written_is_read_back_and_written_again_as_the_same_bytes(
    trace: tuple[TracedCall, ...],
) -> None:
    data = encode_trace(trace)
    assert read_trace(data) == trace
    assert encode_trace(read_trace(data)) == data


def test_a_trace_is_a_heading_and_a_line_of_canonical_json_for_each_call() -> None:
    assert encode_trace([CALL]) == HEADING + b"\n" + LINE + b"\n"
    assert encode_trace([]) == b'{"calls":0,"format":"cloister.traces/1"}\n'


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1], id="its last line has no end"),
        pytest.param(lambda data: data[: data.index(b"\n") + 1], id="its calls are missing"),
        pytest.param(lambda data: data + LINE + b"\n", id="more calls than the heading says"),
        pytest.param(lambda data: data.replace(b"traces/1", b"traces/2"), id="another version"),
        pytest.param(
            lambda data: data.replace(b'"size":40', b'"size": 40'), id="a space that isn't canonical"
        ),
        pytest.param(lambda data: data.replace(b'"size":40', b'"size":true'), id="a size that is no number"),
        pytest.param(lambda data: data.replace(b'"size":40', b'"size":-1'), id="a size below zero"),
        pytest.param(lambda data: data.replace(b'"size":40', b'"size":40,"x":1'), id="a field too many"),
        pytest.param(lambda data: data.replace(b',"size":40', b""), id="a field too few"),
        pytest.param(lambda data: data.replace(b"benign", b"kind"), id="a label that isn't known"),
        pytest.param(lambda data: data.replace(b"250000", b"-250000"), id="a duration below zero"),
        pytest.param(lambda data: data.replace(b"250000", b"1e99"), id="a duration beyond all bounds"),
        pytest.param(lambda data: data.replace(LINE, b"[]"), id="a line that is no object"),
        pytest.param(lambda data: data.replace(LINE, b"\xff"), id="a line that is no text"),
        pytest.param(
            lambda data: data.replace(b"app.web:handle", b"a" * 2000),
            id="a line longer than any that is written",
        ),
    ],
)
def test_a_damaged_trace_is_refused_by_its_code(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(ImmuneError) as refused:
        read_trace(damage(encode_trace([CALL])))
    assert refused.value.code == "immune.generator_invalid"
    assert "handle" not in str(refused.value)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_of_bytes_put_into_a_trace_all_are_read_or_it_is_refused(noise: bytes, place: int) -> None:
    data = encode_trace([CALL])
    noisy = data[:place] + noise + data[place:]
    with suppress(ImmuneError):
        assert encode_trace(read_trace(noisy)) == noisy


@pytest.mark.parametrize(
    "call",
    [
        replace(CALL, at=0.5),
        replace(CALL, at=float("nan")),
        replace(CALL, at=2e6),
        replace(CALL, at=3.0, duration=-1.0),
        replace(CALL, at=3.0, duration=float("inf")),
        replace(CALL, at=3.0, size=-1),
        replace(CALL, at=3.0, caller="x" * 201),
    ],
)
def test_a_call_that_goes_back_in_time_or_out_of_bounds_is_not_written(call: TracedCall) -> None:
    with pytest.raises(ImmuneError, match="Call 2 ") as refused:
        encode_trace([CALL, call])
    assert refused.value.code == "immune.generator_invalid"


def test_no_more_calls_are_written_or_read_than_a_trace_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_trace([CALL] * 4)
    monkeypatch.setattr(module, "MAX_CALLS", 3)
    assert len(read_trace(encode_trace([CALL] * 3))) == 3
    for act in (lambda: encode_trace([CALL] * 4), lambda: read_trace(data)):
        with pytest.raises(ImmuneError, match="at most"):
            act()
