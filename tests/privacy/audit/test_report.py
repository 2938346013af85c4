"""The report: whole, self-contained, honest about what it doesn't prove, and without a record in its JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cloister.privacy.audit.canaries import CanaryAudit
from cloister.privacy.audit.check import Check, Conformance
from cloister.privacy.audit.inversion import Inversion
from cloister.privacy.audit.membership import Membership, roc
from cloister.privacy.audit.report import NOT_PROVEN, AuditReport, Claim, Pictures, render
from cloister.privacy.trainer import TrainingPlan

RECORD = 0.123456789


@pytest.fixture
def report() -> AuditReport:
    generator = np.random.default_rng(0)
    members = generator.random(300) < 0.5
    curve = roc(generator.normal(size=300) + members, members)
    checks = [
        Check("noise-scale", "All noise is right.", 1.001, 1.0, 0.4, 1e-7, 200_000),
        Check("noise-scale/4.bias", "This noise, too.", 0.9, 1.0, 0.4, 1e-7, 2),
        Check("sampling/rate", "Units join at the rate.", 0.25, 0.25, 0.9, 1e-7, 60_000),
    ]
    inside = generator.random(200) < 0.5
    rows = np.full((3, 30), RECORD) + generator.normal(size=(3, 30))
    return AuditReport(
        claim=Claim(
            name="tumour <b>",
            site="north",
            plan=TrainingPlan(0.5, 4.0, 1.0, 20, 1.0),
            epsilon=2.0,
            delta=1e-4,
            accountant="PLD",
            unit="subject",
            relation="add",
            units=99,
            generator="aes",
        ),
        conformance=Conformance(checks, 0.015),
        canaries=CanaryAudit(200, 40, 25, 1e-4, 0.95, 0.4, 2.0, generator.normal(size=200), inside),
        memberships=[Membership("no protection", 24, curve, curve)],
        model=curve,
        pictures=[Pictures("north", rows, [Inversion("plain", np.array([0.9, 1, 1]), 0.3, rows)], (6, 6))],
        not_done={"Attack on a model": "none was named & so on."},
        confidential=False,
    )


def test_the_page_says_what_is_not_proven_before_it_shows_anything(report: AuditReport) -> None:
    page = render(report)
    assert "epsilon, claimed (PLD)" in page
    assert "subjects, taken as public" in page
    assert all(one.split("'")[0] in page for one in NOT_PROVEN)
    assert page.index("What this does not prove") < page.index("<h2>Conformance")
    assert "lower bound below the claimed epsilon is not evidence" in page.lower()
    assert "no contradiction, and no proof" in page
    assert "none was named &amp; so on." in page


def test_the_page_needs_nothing_else_and_runs_nothing(report: AuditReport) -> None:
    page = render(report)
    assert "<script" not in page
    assert 'src="http' not in page
    assert "tumour &lt;b&gt;" in page
    assert page.count("<svg") == 5


def test_a_page_without_attacks_on_records_is_whole(report: AuditReport) -> None:
    page = render(replace(report, memberships=[], model=None, pictures=[]))
    assert page.count("<svg") == 3
    assert "</html>" in page


def test_figures_of_private_records_are_marked(report: AuditReport) -> None:
    assert "CONFIDENTIAL" not in render(report)
    assert "CONFIDENTIAL" in render(replace(report, confidential=True))


def test_a_failed_check_or_a_refuted_claim_contradicts(report: AuditReport) -> None:
    assert report.passed
    bad = replace(report.conformance.checks[1], chance=1e-30)
    broken = replace(report, conformance=Conformance([bad], 0.015))
    refuted = replace(report, canaries=replace(report.canaries, bound=3.0))
    for one, words in ((broken, "noise-scale/4.bias"), (refuted, "One run shows epsilon 3.00 or more")):
        assert not one.passed
        assert one.as_json()["contradicted"] is True
        page = render(one)
        assert "The claim is contradicted" in page
        assert words in page


def test_the_json_holds_every_figure_and_no_record(report: AuditReport) -> None:
    found = json.loads(report.encode())
    assert found["schema"] == "urn:cloister:privacy-audit:v1"
    assert found["canaries"]["epsilon_lower_bound"] == 0.4
    assert found["not_proven"] == list(NOT_PROVEN)
    assert len(found["conformance"]["checks"]) == 3
    assert str(float(report.pictures[0].originals[0, 0]))[:8] not in report.encode().decode()
