"""Logs rolled back, rewritten or shown in two versions: found out by what others held of them."""

from __future__ import annotations

from typing import cast

import pytest

from cloister.core.canonical import JSON, b64encode, parse
from cloister.evidence.checkpoint import sign_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, log_origin
from cloister.evidence.merkle import verify_consistency
from cloister.evidence.predicates import CheckpointHeld, Release, Role
from cloister.evidence.statement import open_statement
from tests.evidence.attacks.edits import NORTH, Body, detail, step
from tests.evidence.synthetic import HUB, Step, SyntheticJob, failing, resealed, verify

HUB_LOG = log_origin(Role.HUB, HUB)


def test_a_hub_that_rewrites_its_log_after_the_job_is_found_out_by_what_the_sites_held(
    honest_job: SyntheticJob,
) -> None:
    """It can't give the sites' old checkpoints a proof into the new log, nor take them out of their logs."""

    def opened_differently(steps: list[Step]) -> None:
        steps[0][1]["job_folder_sha256"] = "0" * 64

    verdict = verify(honest_job, honest_job.rewriting_hub(opened_differently))
    assert failing(verdict) == {"log-consistency", "statements-complete"}
    assert "isn't proven to be the past" in detail(verdict, "log-consistency")


def remark(steps: list[Step]) -> None:
    """Something a hub may say otherwise after the last round."""
    step(steps, Release)["constraints"][0]["detail"] = "looked at twice"


def test_the_end_of_the_hubs_log_is_the_one_that_the_sites_were_shown(honest_job: SyntheticJob) -> None:
    """In no round did anybody hold it; the sites state it when they close."""
    verdict = verify(honest_job, honest_job.rewriting_hub(remark))
    assert failing(verdict) == {"log-consistency", "statements-complete"}
    assert "north: it states another ending of the hub" in detail(verdict, "statements-complete")


def test_what_the_sites_state_with_it_is_the_limit_of_it(honest_job: SyntheticJob) -> None:
    """A hub and all sites that completed the job, in league, can write its end anew, or all of it."""
    retold = honest_job.told_otherwise(remark)
    assert verify(honest_job, honest_job.receipt(extracts=list(retold.values()))).accepted


def two_views(job: SyntheticJob) -> tuple[dict[str, LogExtract], dict[str, LogExtract]]:
    """The same job told twice by a hub that shows each of two parties another log of its own."""
    return job.extracts, job.told_otherwise(
        lambda steps: steps[0][1].update(job_folder_sha256="1" * 64)  # type: ignore[func-returns-value]
    )


def test_two_verifiers_who_are_shown_different_logs_of_a_hub_hold_the_proof_of_it(
    honest_job: SyntheticJob,
) -> None:
    """Each receipt is sound by itself; its log heads, signed by one key, can't be of one log."""
    one, other = two_views(honest_job)
    for view in (one, other):
        assert verify(honest_job, honest_job.receipt(extracts=list(view.values()))).accepted
    first, second = one[HUB].checkpoint, other[HUB].checkpoint
    assert (first.origin, first.size) == (second.origin, second.size)
    assert first.root != second.root
    with pytest.raises(EvidenceError):
        verify_consistency(first.size, second.size, (), first.root, second.root)


def test_sites_that_were_shown_different_logs_of_a_hub_reveal_it_in_one_receipt(
    honest_job: SyntheticJob,
) -> None:
    one, other = two_views(honest_job)
    for hub in (one[HUB], other[HUB]):
        mixed = honest_job.careless_receipt(extracts=[one["north"], other["south"], hub])
        assert {"log-consistency", "statements-complete"} == failing(verify(honest_job, mixed))


def test_a_checkpoint_rolled_back_to_an_earlier_size_is_refused(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    """A site signs the head its log had in the last round; the statements after it have no proof then."""
    (held,) = {
        part
        for entry in honest_job.extracts[HUB].entries
        if isinstance(found := open_statement(entry.envelope).predicate, CheckpointHeld) and found.round == 1
        for part in found.held
        if part.origin == NORTH
    }
    earlier = sign_checkpoint(NORTH, held.size, bytes.fromhex(held.root), honest_job.keys["site-north"])

    def roll_back(body: Body) -> None:
        body["checkpoints"][NORTH] = earlier.encode()
        body["summary"]["logs"][NORTH].update(size=held.size, root=b64encode(earlier.root))

    failures = failing(verify(honest_job, resealed(honest_receipt, honest_job.keys["hub"], roll_back)))
    assert {"log-inclusion", "log-consistency"} <= failures


def test_a_receipt_that_leaves_out_who_held_what_is_refused(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    body = cast(dict[str, dict[str, list[JSON]]], parse(honest_receipt))["body"]
    for place in range(len(body["consistency"])):
        hostile = resealed(
            honest_receipt, honest_job.keys["hub"], lambda body, place=place: body["consistency"].pop(place)
        )
        assert failing(verify(honest_job, hostile)) == {"log-consistency"}


def test_a_proof_of_one_log_does_not_serve_for_another(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    def relabel(body: Body) -> None:
        for one in body["consistency"]:
            one["origin"] = NORTH if one["origin"] == HUB_LOG else one["origin"]

    failures = failing(verify(honest_job, resealed(honest_receipt, honest_job.keys["hub"], relabel)))
    assert failures == {"log-consistency"}
