"""The mapping is sound, says what it covers, and claims nothing that a statement can't show."""

from __future__ import annotations

import json
import re
from datetime import date
from importlib import resources

import pytest

from cloister.evidence import EvidenceError
from cloister.evidence.predicates.base import TYPE_PREFIX, known_types
from cloister.evidence.regulation import RegulationId, load_regulation
from cloister.evidence.regulation.clauses import CLAUSES_FILE, load_clauses, read_clauses

DATA = resources.files("cloister.evidence.regulation").joinpath(CLAUSES_FILE).read_bytes()
ASKED_FOR = {
    RegulationId.DPDP: ["s. 5", "s. 6", "s. 7", "s. 8", "s. 11", "s. 12"],
    RegulationId.HIPAA: ["164.308", "164.312", "164.514"],
    RegulationId.GDPR: ["Art. 5", "Art. 25", "Art. 30", "Art. 32", "Art. 35"],
}


def changed() -> dict:
    """The mapping as plain values, for a test to spoil."""
    return json.loads(DATA)


def findings(document: dict) -> tuple[str, ...]:
    """What is wrong with a mapping."""
    with pytest.raises(EvidenceError) as refused:
        read_clauses(json.dumps(document).encode())
    assert refused.value.code == "evidence.mapping_malformed"
    return refused.value.details


@pytest.mark.parametrize("regulation", RegulationId)
def test_every_section_asked_for_is_mapped(regulation: RegulationId) -> None:
    numbers = [one.clause for one in load_regulation(regulation).clauses]
    for section in ASKED_FOR[regulation]:
        assert any(re.fullmatch(rf"{re.escape(section)}(\(.*)?", one) for one in numbers), section


@pytest.mark.parametrize("regulation", RegulationId)
def test_every_clause_says_why_and_where_it_ends(regulation: RegulationId) -> None:
    for one in load_regulation(regulation).clauses:
        assert one.reason.endswith(".")
        assert one.asks.endswith(".")
        assert len(one.reason) > 30


def test_the_mapping_says_who_reviewed_it_against_what_and_that_no_counsel_did() -> None:
    review = load_clauses().review
    assert date.fromisoformat(review.on) >= date(2026, 11, 21)
    assert review.by == "the project's engineers, against the published texts; not by counsel"
    for regulation in RegulationId:
        assert load_regulation(regulation).sources


def test_a_mapping_that_does_not_say_who_reviewed_it_is_refused() -> None:
    document = changed()
    del document["review"]["by"]
    document["regulations"]["gdpr"]["sources"] = []
    assert findings(document) == ("review.by", "regulations.gdpr.sources")


def test_nothing_is_called_compliant() -> None:
    assert b"complian" not in DATA.lower()
    assert b"complies" not in DATA.lower()


def test_simulated_or_seeded_protection_is_evidence_of_nothing() -> None:
    mapping = load_clauses()
    evidence = {
        one for each in mapping.regulations.values() for clause in each.clauses for one in clause.evidence
    }
    for name, kind in mapping.kinds.items():
        if name in evidence and kind.predicate in ("attestation-verdict:v1", "destruction:v1"):
            assert kind.where["simulated"] is False, name
        if name in evidence and kind.predicate == "budget-spend:v2":
            assert kind.where["noise_generator"] != "seeded-test", name


def test_consent_of_a_body_never_stands_for_a_persons() -> None:
    mapping = load_clauses()
    for regulation in mapping.regulations.values():
        for clause in regulation.clauses:
            assert "consent-by-body" not in clause.evidence


@pytest.mark.parametrize("number", ["s. 11(1)(a)", "164.312(a)(2)(i)", "164.514(d)(4)", "Art. 30(1)(g)"])
def test_what_a_statement_is_only_material_for_it_does_not_evidence(number: str) -> None:
    (clause,) = [
        one
        for regulation in load_clauses().regulations.values()
        for one in regulation.clauses
        if one.clause == number
    ]
    assert clause.evidence == ()


def test_every_kind_is_of_a_statement_that_this_program_reads() -> None:
    assert {TYPE_PREFIX + one.predicate for one in load_clauses().kinds.values()} <= set(known_types())


def test_an_unknown_predicate_is_refused() -> None:
    document = changed()
    document["kinds"]["incident"]["predicate"] = "incident:v9"
    assert findings(document) == ("kind incident: incident:v9 is not a known predicate",)


@pytest.mark.parametrize("path", ["outcome", "checks.outcome", "checks.some.outcome", "checks.every.colour"])
def test_a_condition_on_a_field_that_is_not_there_is_refused(path: str) -> None:
    document = changed()
    document["kinds"]["records-destroyed"]["where"][path] = "passed"
    assert findings(document) == (f"kind records-destroyed: {path} is no field of destruction:v1",)


def test_a_kind_that_is_not_defined_or_not_used_is_refused() -> None:
    document = changed()
    document["kinds"]["never-used"] = document["kinds"]["incident"]
    document["regulations"]["gdpr"]["clauses"][0]["evidence"].append("not-defined")
    assert findings(document) == (
        "gdpr Art. 5(1)(a): not-defined is not defined",
        "kind never-used is used nowhere",
    )


def test_a_clause_that_is_there_twice_is_refused() -> None:
    document = changed()
    clauses = document["regulations"]["dpdp"]["clauses"]
    clauses.append(clauses[0])
    assert findings(document) == ("dpdp: s. 5(1) is there twice",)


@pytest.mark.parametrize("field", ["clause", "title", "asks", "reason", "evidence", "attention"])
def test_a_clause_without_a_field_is_refused(field: str) -> None:
    document = changed()
    del document["regulations"]["hipaa"]["clauses"][3][field]
    assert findings(document) == (f"regulations.hipaa.clauses.3.{field}",)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(EvidenceError) as refused:
        read_clauses(b"{")
    assert refused.value.code == "evidence.mapping_malformed"
