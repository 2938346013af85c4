"""The report and the summary show what happened, undefined figures and missed thresholds too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.evidence.checks import Outcome, failed
from cloister.evidence.verifier import Verdict
from cloister.workflow.outcome import JobOutcome
from cloister.workflow.report import render_report
from tests.system.example_job import ExampleJob, run


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> JobOutcome:
    """A small finished job."""
    folder = tmp_path_factory.mktemp("report")
    return run(ExampleJob().spec(folder), folder / "work")


def test_the_report_on_disk_is_the_one_that_is_rendered_again(outcome: JobOutcome) -> None:
    assert render_report(outcome) == outcome.report.read_text()


def test_a_missed_threshold_stands_in_the_headline(outcome: JobOutcome) -> None:
    page = render_report(replace(outcome, passed=False))
    assert "tumour: did not reach its threshold" in page
    assert '<span class="failed">missed</span>' in page


def test_an_undefined_figure_is_called_undefined_with_its_reason(outcome: JobOutcome) -> None:
    site = replace(outcome.sites[0], auroc=None, accuracy=None, note="trained on one class only")
    page = render_report(replace(outcome, sites=(site, *outcome.sites[1:])))
    assert "undefined" in page
    assert "n/a" in page
    assert "trained on one class only" in page


def test_a_site_that_took_no_part_is_named_with_the_reason(outcome: JobOutcome) -> None:
    page = render_report(replace(outcome, refused_sites={"lakeview": "attestation.measurement"}))
    assert "took no part: attestation.measurement" in page


def test_a_failed_check_is_shown_as_failed(outcome: JobOutcome) -> None:
    first, *others = outcome.verdict.checks
    verdict = Verdict((failed(first.id, "something else"), *others), simulated=True, test_randomness=True)
    page = render_report(replace(outcome, verdict=verdict, randomness="seeded-test"))
    assert '<td class="failed">failed</td><td>something else</td>' in page
    assert "TEST RANDOMNESS" in page


def test_markup_in_a_text_is_shown_and_not_run(outcome: JobOutcome) -> None:
    page = render_report(replace(outcome, name="<script>alert(1)</script>"))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_hardware_that_was_not_simulated_has_no_banner(outcome: JobOutcome) -> None:
    assert "SIMULATED attestation" not in render_report(replace(outcome, simulated=False))


def test_a_single_round_can_be_plotted(outcome: JobOutcome) -> None:
    assert "<svg" in render_report(replace(outcome, rounds=outcome.rounds[:1]))


def test_a_job_is_accepted_only_if_the_model_passed_and_the_receipt_verified(outcome: JobOutcome) -> None:
    refused = Verdict((failed("trust", "no"),), simulated=True, test_randomness=False)
    assert outcome.accepted
    assert not replace(outcome, passed=False).accepted
    assert not replace(outcome, verdict=refused).accepted


def test_the_outcome_is_plain_json_with_its_figures(outcome: JobOutcome) -> None:
    written = json.loads(json.dumps(outcome.as_json(), allow_nan=False))
    assert written["performance"]["value"] == outcome.value
    assert [site["epsilon"] for site in written["sites"]] == [site.epsilon for site in outcome.sites]
    assert all(check["outcome"] == Outcome.PASSED for check in written["checks"])
    assert Path(written["files"]["receipt"]) == outcome.receipt


def test_the_rounds_tell_what_each_site_had_spent_by_then(outcome: JobOutcome) -> None:
    assert [record.number for record in outcome.rounds] == [1, 2]
    for site in outcome.sites:
        first, second = (record.epsilon[site.site] for record in outcome.rounds)
        assert 0 < first < second == pytest.approx(site.epsilon)
    assert outcome.rounds[-1].metric == outcome.value
    assert sum(record.seconds for record in outcome.rounds) <= outcome.training_seconds
