"""What is written down of calls, functions and decisions is read again, and nothing else is (PIC-4.1)."""

from __future__ import annotations

import json
import math
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.canonical import JSON
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.decision_form import read_decision, write_decision
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.detector import Detector, DetectorState
from cloister.immune.keeping.profile import BaselineProfile
from cloister.immune.keeping.validation import Verdict
from cloister.immune.observation import Action, Decision, Ground
from cloister.immune.service.telemetry_form import BatchRefused, read_event
from cloister.immune.wrapping.arguments import ArgumentMetadata
from cloister.immune.wrapping.events import TelemetryEvent

EXAMPLES = settings(max_examples=120)
NAMES = st.from_regex(r"[a-z_]{1,20}(\.[a-z_]{1,9})?:[A-Za-z_.<>]{1,30}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
SECONDS = st.floats(0, 1e6)
SCORES = st.floats(0, 100)
TIMES = st.floats(0, 1e10)
COUNTS = st.integers(0, 2**53 - 1)
HASHES = st.lists(st.from_regex(r"([0-9a-f]{16})?", fullmatch=True), max_size=4).map(tuple)
TAGS = st.dictionaries(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.text("abc-", max_size=9), max_size=3)

DECISIONS = st.builds(Decision, st.sampled_from(Action), TEXT, SCORES, TEXT, st.sampled_from(Ground))
PROFILES = st.builds(
    BaselineProfile, NAMES, *[SECONDS] * 5, st.integers(1, 10**6), TIMES, st.integers(0, 1000)
)
VERDICTS = st.builds(
    Verdict, st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), SCORES, TIMES, st.just(())
)
DETECTORS = st.builds(
    Detector, st.integers(1, 10**6), NAMES, SCORES, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), TEXT,
    TIMES, TIMES, st.integers(1, 1000), st.sampled_from(DetectorState), TEXT, st.none() | VERDICTS,
)  # fmt: skip
ENTRIES = st.builds(
    AuditEvent, TEXT, st.sampled_from(AuditKind), TEXT, NAMES,
    st.none() | SCORES.map(lambda one: round(one, 4)), TEXT, TEXT,
)  # fmt: skip
EVENTS = st.builds(
    TelemetryEvent,
    event_id=st.from_regex(r"[0-9A-Za-z_.:-]{1,64}", fullmatch=True),
    timestamp=TIMES,
    process_id=st.integers(1, 2**22),
    thread_id=st.integers(0, 2**63),
    module_name=st.from_regex(r"[a-z.]{1,30}", fullmatch=True),
    function_name=NAMES,
    args_metadata=st.builds(
        ArgumentMetadata, COUNTS, st.lists(st.text("abc", max_size=9), max_size=4).map(tuple),
        st.lists(COUNTS, max_size=4).map(tuple), HASHES, st.just("0a0b0c0d"),
    ),
    duration_ms=SECONDS,
    failed=st.booleans(),
    calls=st.integers(1, 10**9),
    errors=COUNTS,
    caller=NAMES,
    size=COUNTS,
    teaches=st.booleans(),
    sampling_rate=st.floats(0, 1),
    resource_tags=TAGS.map(MappingProxyType),
)  # fmt: skip


def through_json(value: object) -> dict[str, JSON]:
    found = json.loads(json.dumps(value, allow_nan=False))
    assert isinstance(found, dict)
    return found


@EXAMPLES
@given(EVENTS)
def test_a_telemetry_event_is_read_as_it_was_written(one: TelemetryEvent) -> None:
    """PIC-4.1.a."""
    assert read_event(through_json(one.as_json())) == one


@EXAMPLES
@given(PROFILES)
def test_a_baseline_profile_is_read_as_it_was_written(one: BaselineProfile) -> None:
    """PIC-4.1.b: its version is the row's under which it is stored."""
    assert BaselineProfile.from_json(one.to_json(), one.version) == one


@EXAMPLES
@given(DETECTORS)
def test_a_detector_is_read_as_it_was_written(one: Detector) -> None:
    """PIC-4.1.c."""
    assert Detector.from_json(one.to_json()) == one


@EXAMPLES
@given(ENTRIES)
def test_an_audit_event_is_read_as_it_was_written(one: AuditEvent) -> None:
    """PIC-4.1.d: its signature is the segment's, over the written line."""
    assert AuditEvent.from_json(through_json(one.as_json())) == one


@EXAMPLES
@given(DECISIONS)
def test_a_decision_is_read_as_it_was_written(one: Decision) -> None:
    """PIC-4.1.e."""
    assert read_decision(through_json(write_decision(one))) == one


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("action", "explode"),
        ("action", ""),
        ("action", None),
        ("action", "ALLOW"),
        ("anomaly_score", 1000.0),
        ("anomaly_score", -0.1),
        ("anomaly_score", 100.0001),
        ("anomaly_score", math.nan),
        ("anomaly_score", math.inf),
        ("anomaly_score", True),
        ("anomaly_score", "80"),
        ("anomaly_score", None),
        ("reason", 5),
        ("event_id", None),
        ("ground", "because"),
        ("more", 1),
    ],
)
def test_a_decision_with_another_action_or_score_is_refused(name: str, value: JSON) -> None:
    """PIC-4.1.e: other actions are refused."""
    written = write_decision(Decision(Action.BLOCK, "size 9.0x median, p=1e-06", 97.0, "event-1"))
    with pytest.raises(ImmuneError) as refused:
        read_decision({**written, name: value})
    assert refused.value.code == "immune.decision_invalid"


@pytest.mark.parametrize("name", ["action", "reason", "anomaly_score", "event_id", "ground"])
def test_a_decision_without_one_of_its_members_is_refused(name: str) -> None:
    written = write_decision(Decision(Action.ALLOW, "nothing unusual", 3.0, "event-1"))
    del written[name]
    with pytest.raises(ImmuneError):
        read_decision(written)


@EXAMPLES
@given(EVENTS, st.sampled_from(["timestamp", "duration_ms", "calls", "function_name", "args_metadata"]))
def test_an_event_without_a_field_or_with_another_kind_of_value_is_refused(
    one: TelemetryEvent, name: str
) -> None:
    written = through_json(one.as_json())
    for wrong in ({**written, name: None}, {key: value for key, value in written.items() if key != name}):
        if name == "calls" and name not in wrong:
            continue
        with pytest.raises(BatchRefused):
            read_event(wrong)
