"""A receipt is held against the checkpoints that its reader kept of the logs in it."""

from __future__ import annotations

import pytest

from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.artifacts import Demands, verify_artifact
from cloister.evidence.checkpoint import sign_checkpoint
from cloister.evidence.checks import Check, Outcome
from cloister.evidence.extract import log_owner
from cloister.evidence.receipt import ReceiptBody, parse_receipt, receipt_from_json
from cloister.evidence.verifier import model_artifact
from tests.evidence.synthetic import MODEL, SyntheticJob, plugged


@pytest.fixture
def body(honest_receipt: bytes) -> ReceiptBody:
    return receipt_from_json(parse_receipt(honest_receipt), honest_receipt).body


def owner(job: SyntheticJob, origin: str) -> Signer:
    """The key that signs a log's heads."""
    role, party = log_owner(origin)
    (name,) = (name for pinned, one, name in job.pinned if (pinned, one) == (role, party))
    return job.keys[name]


def held(job: SyntheticJob, receipt: bytes, *notes: str) -> Check:
    """What becomes of notes that were kept."""
    demands = Demands(model=model_artifact(MODEL), held=tuple(note.encode() for note in notes))
    verdict = verify_artifact(receipt, job.trust, demands, plugged)
    assert verdict.checks[-1].id == "held-checkpoints"
    assert verdict.accepted == (verdict.checks[-1].outcome is Outcome.PASSED)
    return verdict.checks[-1]


def test_the_heads_in_the_receipt_and_those_that_parties_held_agree_with_what_was_kept(
    honest_job: SyntheticJob, honest_receipt: bytes, body: ReceiptBody
) -> None:
    link = body.consistency[0].link()
    kept = sign_checkpoint(link.origin, link.size, link.root, owner(honest_job, link.origin)).encode()
    check = held(honest_job, honest_receipt, kept, *body.checkpoints.values())
    assert check.outcome is Outcome.PASSED


@pytest.mark.parametrize("place", ["head", "past"])
def test_a_log_that_was_rewritten_after_a_note_was_kept_is_refused(
    place: str, honest_job: SyntheticJob, honest_receipt: bytes, body: ReceiptBody
) -> None:
    link = body.consistency[0].link()
    size = link.size
    if place == "head":
        size = int(body.checkpoints[link.origin].splitlines()[1])
    kept = sign_checkpoint(link.origin, size, bytes(32), owner(honest_job, link.origin)).encode()
    check = held(honest_job, honest_receipt, kept)
    assert check.outcome is Outcome.FAILED
    assert "rewritten" in check.detail


def test_a_note_of_a_size_that_the_receipt_has_no_root_of_is_not_taken_for_agreement(
    honest_job: SyntheticJob, honest_receipt: bytes, body: ReceiptBody
) -> None:
    origin = body.consistency[0].origin
    size = int(body.checkpoints[origin].splitlines()[1]) + 1
    kept = sign_checkpoint(origin, size, bytes(32), owner(honest_job, origin)).encode()
    check = held(honest_job, honest_receipt, kept)
    assert check.outcome is Outcome.NOT_RUN
    assert "tiles" in check.detail


def test_a_note_that_the_logs_owner_did_not_sign_is_no_checkpoint_of_it(
    honest_job: SyntheticJob, honest_receipt: bytes, body: ReceiptBody
) -> None:
    link = body.consistency[0].link()
    stranger = EphemeralKeyStore().generate("stranger")
    kept = sign_checkpoint(link.origin, link.size, link.root, stranger).encode()
    assert held(honest_job, honest_receipt, kept).outcome is Outcome.FAILED


def test_of_a_receipt_that_fails_nothing_is_held_against_a_note(
    honest_job: SyntheticJob, honest_receipt: bytes, body: ReceiptBody
) -> None:
    note = next(iter(body.checkpoints.values()))
    forged = honest_receipt.replace(b'"rounds":', b'"roundz":', 1)
    assert held(honest_job, forged, note).outcome is Outcome.NOT_RUN
