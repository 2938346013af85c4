"""Composing a receipt: from complete statements only, in one spelling, with all that must be in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest

from cloister.core.canonical import canonicalize, parse
from cloister.core.clock import parse_time
from cloister.evidence.checks import Check, CheckRegistry, Outcome, failed, passed
from cloister.evidence.compliance import COMPLIANCE_STATEMENTS
from cloister.evidence.context import ReceiptContext
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract
from cloister.evidence.predicates import BudgetSpend, Destruction, Role, Settlement
from cloister.evidence.predicates.consent import CREDIT_UNIT
from cloister.evidence.receipt import receipt_from_json
from cloister.evidence.scoring import improvement_score
from cloister.evidence.statement import open_statement
from cloister.evidence.verifier import CHECK_IDS, Verifier, model_artifact
from tests.evidence.synthetic import (
    ACCURACY,
    BASELINE,
    HUB,
    JOB_ID,
    MODEL,
    RECEIPT_ID,
    Step,
    SyntheticJob,
    digest,
    failing,
    plugged,
    verify,
)


def test_an_honest_receipt_is_accepted_with_every_check_passed(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    verdict = verify(honest_job, honest_receipt)
    assert failing(verdict) == set()
    assert verdict.accepted
    assert tuple(one.id for one in verdict.checks) == CHECK_IDS


def test_a_simulated_platform_shows_in_verdict_and_summary(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    assert verify(honest_job, honest_receipt).simulated
    summary = json.loads(honest_receipt)["body"]["summary"]
    assert summary["execution"]["simulated"] is True
    assert {one["simulated"] for one in summary["execution"]["enclaves"].values()} == {True}


def test_a_receipt_is_the_canonical_encoding_of_its_own_parse(honest_receipt: bytes) -> None:
    assert canonicalize(parse(honest_receipt)) == honest_receipt
    receipt_from_json(parse(honest_receipt), honest_receipt)


def test_composing_again_from_the_same_logs_gives_the_same_bytes(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    assert honest_job.receipt() == honest_receipt
    assert honest_job.receipt(extracts=list(reversed(honest_job.extracts.values()))) == honest_receipt


def test_a_receipt_says_who_ran_what_under_which_terms_and_at_which_price(honest_receipt: bytes) -> None:
    body = json.loads(honest_receipt)["body"]
    summary = body["summary"]
    assert (body["receipt_id"], body["job_id"], body["issuer"]) == (RECEIPT_ID, JOB_ID, HUB)
    assert set(body["manifests"]) == set(summary["manifest_ids"]) == {"north", "south"}
    assert summary["execution"]["start_time"] < summary["execution"]["end_time"] < body["issued_at"]
    assert summary["policy"]["purpose"] == "tumour-classification"
    assert all(summary["policy"][f"{name}_compliance"] for name in ("purpose", "dataset", "privacy"))
    assert summary["performance"]["passed"] is True
    assert summary["performance"]["improvement_score"] == pytest.approx((159 - 107) / (171 - 107))
    for site in ("north", "south"):
        privacy = summary["privacy"][site]
        assert 0 < privacy["epsilon"] < privacy["epsilon_dataset_total"]
        assert privacy["unit"] == "record"
        assert privacy["relation"] == "add_or_remove_one"
        assert privacy["accountant"] == "RDP"
        assert len(privacy["orders"]) > 10
        assert summary["data"][site]["normalisation"] == "declared-public-bounds"
    assert body["compliance"] == list(COMPLIANCE_STATEMENTS)


def test_the_five_compliance_sentences_are_there() -> None:
    assert len(set(COMPLIANCE_STATEMENTS)) == 5
    for topic in ("not money", "No patient", "capped", "accept or to decline", "documents alone"):
        assert sum(topic in sentence for sentence in COMPLIANCE_STATEMENTS) == 1


def test_where_nothing_was_stated_nothing_is_said_of_credits(honest_receipt: bytes) -> None:
    body = json.loads(honest_receipt)["body"]
    assert any("no copy of records or keys" in claim for claim in body["claims_not_made"])
    assert {one["what"] for one in body["summary"]["destruction"]} == {"worker-memory"}
    assert body["summary"]["credits_awarded"] == {}


class SettledJob(SyntheticJob):
    """A job after which a site destroyed a key and the hub gave credits."""

    credits: ClassVar[list[dict[str, object]]] = [{"credits": {"north": 3, "south": 4}}]

    def site_steps(self, site: str) -> list[Step]:
        """What an honest site states, and a destruction."""
        looked = [{"name": "no file is left", "outcome": "passed", "detail": "looked"}]
        fields = {"what": "key", "method": "overwritten", "artifacts": [digest("key")], "checks": looked}
        gone: Step = (Destruction, {**fields, "simulated": True})
        return [*super().site_steps(site), *([gone] if site == "north" else [])]

    def hub_steps(self) -> list[Step]:
        """What an honest hub states, and settlements."""
        fields = {
            "rule": "linear:v1",
            "improvement_score": improvement_score(ACCURACY, BASELINE),
            "unit": CREDIT_UNIT,
            "fund": None,
            "ledger_reference": None,
        }
        return [*super().hub_steps(), *((Settlement, {**fields, **one}) for one in self.credits)]


def test_destruction_and_credits_are_summed_up_as_they_were_stated(tmp_path: Path) -> None:
    job = SettledJob(tmp_path).run()
    receipt = job.receipt()
    assert verify(job, receipt).accepted, verify(job, receipt).failures
    summary = json.loads(receipt)["body"]["summary"]
    (gone,) = [one for one in summary["destruction"] if one["what"] == "key"]
    assert (gone["party"], gone["what"], gone["verified"], gone["simulated"]) == ("north", "key", True, True)
    awarded = {site: (one["credits"], one["rule"]) for site, one in summary["credits_awarded"].items()}
    assert awarded == {"north": (3, "linear:v1"), "south": (4, "linear:v1")}


@pytest.mark.parametrize(
    "settled",
    [
        [{"credits": {"north": 3}, "improvement_score": 0.9}],
        [{"credits": {"north": 3, "stranger": 4}}],
        [{"credits": {"north": 3}}, {"credits": {"north": 3}}],
    ],
)
def test_credits_for_another_score_or_to_a_stranger_or_twice_are_refused(
    settled: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SettledJob, "credits", settled)
    job = SettledJob(tmp_path).run()
    verdict = verify(job, job.receipt())
    assert [one.id for one in verdict.failures] == ["evaluation"]


def test_a_receipt_says_what_computing_cost_without_a_clock_of_a_site(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    summary = json.loads(honest_receipt)["body"]["summary"]
    cost, execution = summary["cost"], summary["execution"]
    lasted = parse_time(execution["end_time"]) - parse_time(execution["start_time"])
    assert cost["seconds"] == pytest.approx(lasted.total_seconds())
    for site in ("north", "south"):
        stated = [open_statement(one.envelope).predicate for one in honest_job.extracts[site].entries]
        spends = [one for one in stated if isinstance(one, BudgetSpend)]
        probability = spends[0].event["sampling_probability"]
        assert isinstance(probability, float)
        steps = sum(one.executed_steps for one in spends)
        assert cost["sites"][site] == {
            "rounds": len(spends),
            "steps": steps,
            "gradients": round(steps * probability * honest_job.records(site)),
            "bytes_released": 12 * len(spends),
        }


def _without(extract: LogExtract, position: int) -> LogExtract:
    entries = (*extract.entries[:position], *extract.entries[position + 1 :])
    return LogExtract(extract.origin, extract.checkpoint, entries)


@pytest.mark.parametrize("party", ["north", HUB])
def test_no_receipt_is_issued_while_any_statement_is_missing(honest_job: SyntheticJob, party: str) -> None:
    others = [extract for name, extract in honest_job.extracts.items() if name != party]
    extract = honest_job.extracts[party]
    for position in range(len(extract.entries)):
        with pytest.raises(EvidenceError) as caught:
            honest_job.receipt(extracts=[*others, _without(extract, position)])
        assert caught.value.code == "evidence.statement_missing"
        assert any(detail.startswith((f"{party}:", "no site")) for detail in caught.value.details)


def test_the_refusal_lists_everything_that_is_missing(honest_job: SyntheticJob) -> None:
    extracts = [honest_job.extracts[HUB], honest_job.extracts["north"]]
    with pytest.raises(EvidenceError) as caught:
        honest_job.receipt(extracts=extracts)
    details = "\n".join(caught.value.details)
    for kind in ("manifest-accepted:v1", "request-decided:v1", "data-commitment:v2"):
        assert f"south: 0 statements of urn:cloister:predicate:{kind}" in details
    for number in (0, 1):
        assert f"south: 0 training spends in round {number}" in details
        assert f"south: 0 released updates in round {number}" in details


def test_without_the_hubs_own_log_there_is_no_receipt(honest_job: SyntheticJob) -> None:
    with pytest.raises(EvidenceError) as caught:
        honest_job.receipt(extracts=[honest_job.extracts[site] for site in honest_job.sites])
    assert "hub's own log" in caught.value.details[0]


def test_a_job_that_a_party_did_not_complete_gets_no_receipt(
    tmp_path: Path, honest_job: SyntheticJob
) -> None:
    job = SyntheticJob(tmp_path, keys=honest_job.keys)
    failed = job.write(Role.SITE, "north", job.site_steps("north"), outcome="failed")
    with pytest.raises(EvidenceError) as caught:
        honest_job.receipt(extracts=[failed, honest_job.extracts["south"], honest_job.extracts[HUB]])
    assert caught.value.details == ("north: the job was not completed",)


@pytest.mark.parametrize("absent", ["policy", "attestation"])
def test_a_check_that_is_not_plugged_in_is_not_run_and_nothing_is_accepted(
    honest_job: SyntheticJob, honest_receipt: bytes, absent: str
) -> None:
    registry = CheckRegistry()
    present = ({"policy", "attestation"} - {absent}).pop()
    registry.register(present, lambda context: passed("another-name", context.body.issuer))
    verdict = Verifier(honest_job.trust, registry).verify(honest_receipt, model_artifact(MODEL))
    assert [(one.id, one.outcome) for one in verdict.failures] == [(absent, Outcome.NOT_RUN)]
    assert not verdict.accepted
    assert present in {one.id for one in verdict.checks}


def test_a_plugged_check_that_breaks_or_refuses_is_a_refusal(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    def broken(context: ReceiptContext) -> Check:
        raise KeyError(context.body.issuer)

    registry = CheckRegistry()
    registry.register("policy", broken)
    registry.register("attestation", lambda _: failed("attestation", "the quote doesn't hold"))
    verdict = Verifier(honest_job.trust, registry).verify(honest_receipt, model_artifact(MODEL))
    assert [(one.id, one.outcome) for one in verdict.failures] == [
        ("policy", Outcome.NOT_RUN),
        ("attestation", Outcome.FAILED),
    ]
    assert "KeyError" in verdict.failures[0].detail
    assert HUB not in verdict.failures[0].detail


def test_no_check_may_be_plugged_twice_or_under_an_unknown_name() -> None:
    registry = plugged()
    for name in ("policy", "model-hash", "other"):
        with pytest.raises(ValueError, match="plugged"):
            registry.register(name, lambda context: None)  # type: ignore[arg-type, return-value]
