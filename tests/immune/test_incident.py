"""Incidents: what the house states and tells its operators, and that there are few of them."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.evidence.predicates import Incident
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.incident import ImmuneIncident, IncidentGate, incident_of
from cloister.immune.notes import Notes

AT = "2026-11-21T14:00:00.000000Z"
CLASSES = {
    ("decision", "block"): "call-blocked",
    ("egress", "block"): "egress-blocked",
    ("drift", ""): "behaviour-drift",
    ("fault", "detector"): "immune-fault",
    ("kill-switch", "off"): "immune-switched-off",
    ("safe-mode", "enter"): "immune-safe-mode",
    ("tamper", "stopped"): "code-changed",
}


def event(kind: str, action: str, function: str = "shop:pay", reason: str = "p=0.0004") -> AuditEvent:
    return AuditEvent(AT, AuditKind(kind), action, function, 97.0, reason, "e1")


def stated(fields: dict[str, object]) -> Incident:
    """The statement that is made of an incident's fields."""
    return Incident.model_validate(
        {
            "job_id": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
            "party": "site-a",
            "sequence": 0,
            "previous": None,
            "recorded_at": AT,
            **fields,
        }
    )


@pytest.mark.parametrize(("kind", "action"), CLASSES)
def test_what_a_person_should_look_at_is_an_incident_of_its_class(kind: str, action: str) -> None:
    incident = incident_of(event(kind, action))
    assert incident is not None
    assert stated(incident.incident_fields()).incident_class == CLASSES[kind, action]
    assert incident.detail == "shop:pay: p=0.0004"


@pytest.mark.parametrize(
    ("kind", "action"),
    [("decision", "allow"), ("decision", "quarantine"), ("promotion", "promote"), ("egress", "learned")],
)
def test_what_runs_its_course_is_none(kind: str, action: str) -> None:
    assert incident_of(event(kind, action)) is None


@settings(max_examples=200)
@given(
    kind=st.sampled_from(sorted(CLASSES)),
    function=st.text(max_size=60) | st.text(min_size=200, max_size=900),
    reason=st.text(max_size=60) | st.text(min_size=400, max_size=900),
)
def test_an_incident_of_any_words_can_be_stated(kind: tuple[str, str], function: str, reason: str) -> None:
    recorded = AuditEvent.from_json(event(*kind, function, reason).as_json())
    incident = incident_of(recorded)
    assert incident is not None
    assert stated(incident.incident_fields()).severity == incident.severity


def test_of_one_kind_at_one_function_one_incident_goes_out_in_a_while_and_the_next_counts_the_others() -> (
    None
):
    now = 0.0
    gate = IncidentGate(lambda: now, seconds=600)
    first = gate.admit(event("decision", "block"))
    assert first is not None
    assert [gate.admit(event("decision", "block")) for _ in range(33_000)] == [None] * 33_000
    assert gate.admit(event("decision", "block", "shop:refund")) is not None
    assert gate.admit(event("drift", "")) is not None
    now = 600.0
    later = gate.admit(event("decision", "block", reason="r" * 700))
    assert later is not None
    assert later.detail.endswith("(and 33000 more like the one before)")
    assert stated(later.incident_fields()).incident_class == "call-blocked"


def test_a_statement_is_the_same_however_many_entries_came_before_it() -> None:
    details = []
    for before in (0, 1, 500):
        noticed: list[ImmuneIncident] = []
        notes = Notes(None, on_incident=noticed.append, monotonic=time.monotonic)
        for _ in range(before):
            notes.note(AuditKind.CANDIDATE, "made", "shop:pay", "duration 5x")
        notes.note(AuditKind.DRIFT, "began", "shop:pay", "p=0.0004")
        (incident,) = noticed
        details.append(str(incident.incident_fields()["detail"]))
    shapes = {re.sub("[0-9a-f]{32}", "ID", one) for one in details}
    assert shapes == {"shop:pay: entry ID of the immune audit"}


def test_however_many_functions_there_are_the_gate_remembers_few() -> None:
    gate = IncidentGate(lambda: 0.0)
    for number in range(5000):
        assert gate.admit(event("decision", "block", f"shop:f{number}")) is not None
    assert len(gate._open) <= 1000
