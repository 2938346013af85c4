"""Composing a receipt: from complete statements only, in one spelling, with all that must be in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize, parse
from cloister.evidence.checks import Check, CheckRegistry, Outcome, failed, passed
from cloister.evidence.compliance import COMPLIANCE_STATEMENTS
from cloister.evidence.context import ReceiptContext
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract
from cloister.evidence.predicates import Role
from cloister.evidence.receipt import receipt_from_json
from cloister.evidence.verifier import CHECK_IDS, Verifier, model_artifact
from tests.evidence.synthetic import HUB, JOB_ID, MODEL, RECEIPT_ID, SyntheticJob, failing, plugged, verify


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


def test_destruction_is_not_claimed_because_it_is_not_evidenced(honest_receipt: bytes) -> None:
    body = json.loads(honest_receipt)["body"]
    assert any("destruction" in claim for claim in body["claims_not_made"])
    assert "destruction" not in json.dumps(body["summary"])


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
