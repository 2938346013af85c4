"""A report says what the statements show, names each of them, and matches the log."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceError, Subject, Trust
from cloister.evidence.custody import Outside, verify_bundle
from cloister.evidence.predicates import (
    AttestationVerdict,
    Consent,
    Destruction,
    DestructionCheck,
    Incident,
    QuoteEvidence,
    RequestDecided,
)
from cloister.evidence.predicates.base import TYPE_PREFIX
from cloister.evidence.regulation import Assessment, RegulationId, assess
from cloister.evidence.regulation.assessment import ClauseAssessment, Standing
from cloister.evidence.statement import open_statement
from tests.evidence.custody.house import JOB, House

pytest.importorskip("jinja2", reason="Jinja2, which writes the page, is not installed here")

from cloister.evidence.regulation.render import render_report

THING = sha256_hex(b"thing")
SUBJECTS = (Subject("thing", THING),)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A hub and two sites, whose logs are empty."""
    with House(tmp_path) as opened:
        yield opened


def consent(house: House, given_by: str = "person", action: str = "given") -> None:
    """Let a site state consent."""
    house.writer("north").write(
        Consent,
        SUBJECTS,
        subject_sha256=THING,
        given_by=given_by,
        action=action,
        purposes=("research",),
        manifest_sha256=THING,
        given_at=house.moment(0),
        until=None,
    )


def destroy(house: House, outcome: str, *, simulated: bool = False) -> None:
    """Let a site state that records were destroyed."""
    checks = [
        DestructionCheck(name="unlinked", outcome="passed", detail=""),
        DestructionCheck(name="looked again", outcome=outcome, detail=""),
    ]
    house.writer("north").write(
        Destruction,
        SUBJECTS,
        what="records",
        method="overwrite",
        artifacts=(THING,),
        checks=checks,
        simulated=simulated,
    )


def attest(house: House, *, simulated: bool, status: str = "TRUSTED") -> None:
    """Let the hub state a verdict."""
    house.writer("hub").write(
        AttestationVerdict,
        SUBJECTS,
        site="north",
        site_key_id="sha256:" + THING,
        nonce="AAAA",
        evidence=QuoteEvidence(tee="amd-sev-snp", report="AAAA", chain=("AAAA",), extras={}, devices=()),
        tcb_status="NotRated",
        advisories=(),
        registers={},
        collateral=(),
        policy_id="policy",
        policy={},
        status=status,
        simulated=simulated,
        platform="a platform",
        checks=(),
        evaluated_at=house.moment(0),
        measurement="0" * 96,
    )


def decide(house: House, *, approved: bool) -> None:
    """Let a site decide on a request."""
    house.writer("north").write(
        RequestDecided,
        SUBJECTS,
        request_sha256=THING,
        manifest_sha256=THING,
        job_sha256=THING,
        approved=approved,
        reasons=() if approved else ("the purpose is prohibited",),
        facts={},
    )


def report(house: House, regulation: RegulationId) -> Assessment:
    """A report on everything so far."""
    house.seconds += 10
    bundle = house.export(house.of_period(-1, house.seconds))
    return assess(verify_bundle(bundle, house.trust), regulation, "pinned")


def clause(assessment: Assessment, number: str) -> ClauseAssessment:
    """What a report tells about one clause."""
    (found,) = [one for one in assessment.clauses if one.clause.clause == number]
    return found


@pytest.mark.parametrize("regulation", RegulationId)
def test_an_empty_log_evidences_nothing(house: House, regulation: RegulationId) -> None:
    standings = {one.standing for one in report(house, regulation).clauses}
    assert standings == {Standing.NO_EVIDENCE, Standing.NOT_BY_SOFTWARE}


def test_a_persons_consent_is_evidence_and_names_its_statement(house: House) -> None:
    consent(house)
    found = clause(report(house, RegulationId.DPDP), "s. 6(1)")
    assert found.standing is Standing.EVIDENCE
    (finding,) = found.evidence
    (cited,) = finding.citations
    envelope = house.logs["north"].entry(cited.index)
    assert (cited.log, cited.party, cited.job_id) == ("cloister/site/north", "north", JOB)
    assert cited.statement_sha256 == envelope.payload_sha256


def test_a_bodys_consent_or_a_withdrawal_is_no_evidence_of_consent(house: House) -> None:
    consent(house, given_by="body")
    consent(house, action="withdrawn")
    assessment = report(house, RegulationId.DPDP)
    given = clause(assessment, "s. 6(1)")
    assert given.standing is Standing.NO_EVIDENCE
    assert [len(one.citations) for one in given.attention] == [1, 1]
    assert clause(assessment, "s. 6(4)").standing is Standing.EVIDENCE
    assert clause(assessment, "s. 6(6)").standing is Standing.NOT_BY_SOFTWARE


def test_a_bodys_withdrawal_is_no_evidence_that_a_person_can_withdraw(house: House) -> None:
    consent(house, given_by="body", action="withdrawn")
    found = clause(report(house, RegulationId.DPDP), "s. 6(4)")
    assert found.standing is Standing.NO_EVIDENCE
    assert [len(one.citations) for one in found.attention] == [1]


@pytest.mark.parametrize("outcome", ["failed", "not_run"])
def test_a_destruction_in_doubt_is_no_evidence_of_erasure(house: House, outcome: str) -> None:
    destroy(house, outcome)
    found = clause(report(house, RegulationId.GDPR), "Art. 5(1)(e)")
    assert found.standing is Standing.NO_EVIDENCE
    assert [one.kind.shows for one in found.attention] == [
        "After a destruction, a check failed or was not made."
    ]


def test_a_simulated_destruction_is_no_evidence_and_marks_the_report(house: House) -> None:
    destroy(house, "passed", simulated=True)
    assessment = report(house, RegulationId.DPDP)
    assert clause(assessment, "s. 8(7)(a)").standing is Standing.NO_EVIDENCE
    assert assessment.simulated
    assert "SIMULATED" in render_report(assessment)


def test_a_destruction_that_was_checked_is_evidence(house: House) -> None:
    destroy(house, "passed")
    assert clause(report(house, RegulationId.DPDP), "s. 8(7)(a)").standing is Standing.EVIDENCE


def test_simulated_or_refused_attestation_is_no_evidence_of_authentication(house: House) -> None:
    attest(house, simulated=True)
    attest(house, simulated=False, status="UNTRUSTED")
    found = clause(report(house, RegulationId.HIPAA), "164.312(d)")
    assert found.standing is Standing.NO_EVIDENCE
    assert len(found.attention) == 2


def test_hardware_attestation_is_evidence_of_authentication(house: House) -> None:
    attest(house, simulated=False)
    assert clause(report(house, RegulationId.HIPAA), "164.312(d)").standing is Standing.EVIDENCE


def test_a_refused_request_is_no_evidence_of_an_approved_one(house: House) -> None:
    decide(house, approved=False)
    assessment = report(house, RegulationId.HIPAA)
    assert clause(assessment, "164.312(a)(1)").standing is Standing.NO_EVIDENCE
    assert clause(assessment, "164.308(a)(4)(ii)(B)").standing is Standing.EVIDENCE


def test_an_incident_is_shown_where_software_can_evidence_nothing(house: House) -> None:
    house.writer("hub").write(
        Incident,
        SUBJECTS,
        incident_class="killed-run",
        severity="low",
        detail="a run was killed",
        detected_at=house.moment(0),
        response="its chains were closed",
    )
    found = clause(report(house, RegulationId.DPDP), "s. 8(6)")
    assert found.standing is Standing.NOT_BY_SOFTWARE
    assert [len(one.citations) for one in found.attention] == [1]


def test_a_report_counts_what_the_logs_hold(house: House) -> None:
    house.job()
    house.seconds += 5
    stated = Counter(
        open_statement(envelope).predicate.TYPE.removeprefix(TYPE_PREFIX)
        for log in house.logs.values()
        for envelope in log.envelopes()
    )
    assessment = report(house, RegulationId.GDPR)
    assert assessment.counts == stated
    assert {name: size for name, (size, _) in assessment.heads.items()} == {
        log.origin: log.size - 1 for log in house.logs.values()
    }


def test_only_what_was_asked_for_counts_and_not_its_neighbours(house: House) -> None:
    house.job()
    bundle = house.export(house.of_period(3, 5))
    assessment = assess(verify_bundle(bundle, house.trust), RegulationId.GDPR, "pinned")
    assert sum(assessment.counts.values()) == 2


def test_an_export_that_does_not_verify_is_not_reported_on(house: House) -> None:
    house.state("hub")
    with pytest.raises(EvidenceError) as refused:
        assess(verify_bundle(house.export(house.of_job()), house.trust), RegulationId.GDPR, "pinned")
    assert refused.value.code == "evidence.export_unverified"
    assert refused.value.details[0].startswith("completeness: ")
    with pytest.raises(EvidenceError):
        assess(verify_bundle(b"{}", Trust([])), RegulationId.GDPR, "pinned")


def test_a_report_names_the_logs_that_are_not_in_it_and_the_keys_that_held(house: House) -> None:
    attest(house, simulated=False)
    house.close("hub")
    house.state("north", detail="north violated its manifest")
    house.close("north")
    verdict = verify_bundle(house.export(house.of_job(), "hub", ()), house.trust)
    (complete,) = (one for one in verdict.checks if one.id == "completeness")
    assert "not here, though named in it: cloister/site/north" in complete.detail
    assessment = assess(verdict, RegulationId.HIPAA, "pinned")
    assert assessment.absent == ("cloister/site/north",)
    assert assessment.unopened == 1
    assert assessment.keys == {"hub/hub": (house.keys["hub"].public_key.key_id,)}
    text = render_report(assessment)
    assert "NOT ALL LOGS" in text
    assert house.keys["hub"].public_key.key_id in text
    assert "the evidence was not appraised again for this report" in text
    told = assessment.as_json()["export"]
    assert isinstance(told, dict)
    assert told["absent_logs"] == ["cloister/site/north"]
    whole = verify_bundle(house.export(house.of_job(), "hub", ("north",)), house.trust)
    assert assess(whole, RegulationId.HIPAA, "pinned").absent == ()


def test_a_report_on_the_owners_word_says_so(house: House) -> None:
    for _ in range(3):
        house.state("north")
    house.seconds = 100
    bundle = house.export(house.of_period(50, 90), "north", ())
    with pytest.raises(EvidenceError):
        assess(verify_bundle(bundle, house.trust), RegulationId.GDPR, "pinned")
    verdict = verify_bundle(bundle, house.trust, Outside(owners_word=True))
    assessment = assess(verdict, RegulationId.GDPR, "pinned")
    assert assessment.owners_word
    assert "WORD." in render_report(assessment)


# The page


class Page(HTMLParser):
    """What a browser would read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("meta", "br", "hr", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("regulation", RegulationId)
def test_the_page_is_whole_self_contained_and_never_says_compliant(
    house: House, regulation: RegulationId
) -> None:
    house.job()
    assessment = report(house, regulation)
    text = render_report(assessment)
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"(https?:)?//[a-z]", text.replace("<!doctype", ""))
    assert "complian" not in text.lower()
    assert page.tags.count("article") == len(assessment.clauses)
    assert ("lang", "en") in page.attributes
    assert page.tags.count("h1") == 1


@pytest.mark.parametrize("regulation", RegulationId)
def test_page_and_json_say_who_reviewed_the_mapping_and_against_what(
    house: House, regulation: RegulationId
) -> None:
    assessment = report(house, regulation)
    shown = unescape(render_report(assessment))
    said = assessment.as_json()["mapping_review"]
    assert isinstance(said, dict)
    assert said.keys() == {"on", "by", "sources", "limits"}
    assert "not by counsel" in str(said["by"])
    for text in (said["on"], said["by"], said["limits"], *assessment.regulation.sources):
        assert str(text) in shown


def test_what_people_wrote_is_shown_as_text(house: House) -> None:
    house.job()
    bundle = house.export(house.of_job())
    verdict = verify_bundle(bundle, house.trust)
    assert verdict.record is not None
    body = verdict.record.bundle.body.model_copy(update={"recipient": "<script>alert(1)</script>"})
    assessment = assess(verdict, RegulationId.GDPR, "pinned")
    object.__setattr__(assessment, "export", body)
    text = render_report(assessment)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_a_long_list_is_sampled_from_every_log(house: House) -> None:
    for _ in range(9):
        house.state("hub")
    house.state("north")
    found = clause(report(house, RegulationId.HIPAA), "164.308(a)(6)(ii)").evidence[1]
    assert [one.log for one in found.sample(3)] == ["cloister/hub/hub"] * 2 + ["cloister/site/north"]
    assert found.by_log == {"cloister/hub/hub": 9, "cloister/site/north": 1}
