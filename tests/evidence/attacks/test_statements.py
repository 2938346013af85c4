"""Statements removed, repeated, reordered, replayed or replaced, and logs that are not their owner's.

Each attack is made twice where that makes sense: on the bytes alone, and by a hostile hub that signs again.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from cloister.core.canonical import b64encode, parse
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.checkpoint import parse_checkpoint, sign_checkpoint
from cloister.evidence.extract import LogExtract
from cloister.evidence.merkle import leaf_hash
from cloister.evidence.predicates import (
    BudgetSpend,
    Release,
    Role,
)
from cloister.evidence.statement import Statement, open_statement, sign_statement
from cloister.evidence.trust import Trust, TrustEntry
from cloister.evidence.verifier import COSTLY
from tests.evidence.attacks.edits import NORTH, SOUTH, Body, both_ways, of_log
from tests.evidence.synthetic import (
    HUB,
    MODEL,
    OTHER_JOB_ID,
    SyntheticJob,
    digest,
    failing,
    resealed,
    verify,
)

# The model


def test_a_flipped_byte_in_the_model_file(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    flipped = bytes([MODEL[0] ^ 1]) + MODEL[1:]
    assert failing(verify(honest_job, honest_receipt, model=flipped)) == {"model-hash"}
    assert failing(verify(honest_job, honest_receipt, model=MODEL[:-1])) == {"model-hash"}


def test_another_model_put_into_the_receipt(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    other = b"another model"

    def edit(body: Body) -> None:
        body["model"].update(sha256=sha256_hex(other), bytes=len(other))

    hostile = resealed(honest_receipt, honest_job.keys["hub"], edit)
    assert failing(verify(honest_job, hostile, model=other)) == {"model-hash"}
    assert failing(verify(honest_job, hostile)) == {"model-hash"}


# Statements


def test_any_statement_removed(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    count = len(parse(honest_receipt)["body"]["statements"])  # type: ignore[call-overload, index, arg-type]
    assert count == 34
    for place in range(count):
        hostile = resealed(
            honest_receipt, honest_job.keys["hub"], lambda body, place=place: body["statements"].pop(place)
        )
        assert "statements-complete" in failing(verify(honest_job, hostile))
    naive, _ = both_ways(honest_job, honest_receipt, lambda body: body["statements"].pop(5))
    assert "statements-complete" in naive


def test_all_statements_of_a_site_removed_with_its_log(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    def edit(body: Body) -> None:
        body["statements"] = [one for one in body["statements"] if one["log"] != SOUTH]
        for part in (body["checkpoints"], body["summary"]["logs"]):
            del part[SOUTH]

    _, hostile = both_ways(honest_job, honest_receipt, edit)
    assert "statements-complete" in hostile


def test_the_end_of_a_sites_log_withheld_under_an_older_checkpoint(
    tmp_path: Path, honest_job: SyntheticJob
) -> None:
    from cloister.evidence import EvidenceLog, StatementWriter, Subject
    from tests.evidence.synthetic import JOB_ID, ticking

    signer = honest_job.keys["site-north"]
    with EvidenceLog.create(tmp_path / "n", origin=NORTH, signer=signer) as log:
        writer = StatementWriter(log, signer, "north", JOB_ID, ticking())
        for kind, fields in honest_job.site_steps("north")[:-2]:
            writer.write(kind, [Subject("x", digest("x"))], **fields)
        older = log.extract(JOB_ID)
    receipt = honest_job.receipt()

    def edit(body: Body) -> None:
        kept = [one for one in body["statements"] if one["log"] != NORTH]
        shown = [
            {
                "log": NORTH,
                "index": one.index,
                "envelope": one.envelope.as_json(),
                "inclusion": [b64encode(part) for part in one.proof],
            }
            for one in older.entries
        ]
        body["statements"] = sorted(kept + shown, key=lambda one: (one["log"], one["index"]))
        body["checkpoints"][NORTH] = older.checkpoint.encode()

    assert "statements-complete" in failing(
        verify(honest_job, resealed(receipt, honest_job.keys["hub"], edit))
    )


def test_statements_reordered(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def swap(body: Body) -> None:
        first, second = of_log(body, NORTH)[3:5]
        statements = body["statements"]
        statements[first], statements[second] = statements[second], statements[first]

    naive, hostile = both_ways(honest_job, honest_receipt, swap)
    assert "statement-order" in naive
    assert hostile == {"statement-order"}


def test_statements_renumbered_to_look_ordered(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def renumber(body: Body) -> None:
        first, second = (body["statements"][place] for place in of_log(body, NORTH)[3:5])
        first["envelope"], second["envelope"] = second["envelope"], first["envelope"]

    _, hostile = both_ways(honest_job, honest_receipt, renumber)
    assert {"log-inclusion", "statement-order", "statement-chain"} <= hostile


def test_a_statement_repeated(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def repeat(body: Body) -> None:
        place = of_log(body, NORTH)[4]
        body["statements"].insert(place, copy.deepcopy(body["statements"][place]))

    _, hostile = both_ways(honest_job, honest_receipt, repeat)
    assert {"statement-order", "statement-chain", "statements-complete"} <= hostile


def test_statements_of_another_job_replayed(
    tmp_path: Path, honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    other = SyntheticJob(tmp_path, job_id=OTHER_JOB_ID.replace("9", "8"), keys=honest_job.keys)
    replayed = other.write(Role.SITE, "north", other.site_steps("north"), hub_ending=honest_job.shown)
    mixed = [replayed, honest_job.extracts["south"], honest_job.extracts[HUB]]
    failures = failing(verify(honest_job, honest_job.receipt(extracts=mixed)))
    assert {"statement-chain", "request"} <= failures


def test_a_whole_receipt_relabelled_as_another_job(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body.update(job_id=OTHER_JOB_ID))
    assert hostile == {"statement-chain"}


# Logs and signatures


def test_a_checkpoint_signed_again_by_another_key(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    stranger = EphemeralKeyStore().generate("stranger")
    for key in (honest_job.keys["hub"], honest_job.keys["site-south"], stranger):

        def edit(body: Body, key: Signer = key) -> None:
            old = parse_checkpoint(body["checkpoints"][NORTH])
            body["checkpoints"][NORTH] = sign_checkpoint(NORTH, old.size, old.root, key).encode()

        naive, hostile = both_ways(honest_job, honest_receipt, edit)
        assert "checkpoint-signature" in naive
        assert hostile == {"checkpoint-signature", *COSTLY}


def test_a_checkpoint_swapped_with_another_logs(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def edit(body: Body) -> None:
        notes = body["checkpoints"]
        notes[NORTH], notes[SOUTH] = notes[SOUTH], notes[NORTH]

    _, hostile = both_ways(honest_job, honest_receipt, edit)
    assert "checkpoint-signature" in hostile


def forged_site_log(job: SyntheticJob, tmp_path: Path, signer: Signer) -> LogExtract:
    """A site's whole log as somebody without the site's key would have to make it."""
    forger = SyntheticJob(tmp_path, keys={**job.keys, "site-north": signer})
    steps = forger.site_steps("north")
    for kind, fields in steps:
        if kind is BudgetSpend:
            fields["event"] = {**fields["event"], "noise_multiplier": 50.0}  # type: ignore[dict-item]
    return forger.write(Role.SITE, "north", steps, hub_ending=job.shown)


def test_a_site_log_written_by_the_hub_itself(tmp_path: Path, honest_job: SyntheticJob) -> None:
    forged = forged_site_log(honest_job, tmp_path, honest_job.keys["hub"])
    receipt = honest_job.receipt(extracts=[forged, honest_job.extracts["south"], honest_job.extracts[HUB]])
    assert {"checkpoint-signature", "statement-signature"} <= failing(verify(honest_job, receipt))


def test_a_site_that_writes_as_another_site(tmp_path: Path, honest_job: SyntheticJob) -> None:
    forged = forged_site_log(honest_job, tmp_path, honest_job.keys["site-south"])
    receipt = honest_job.receipt(extracts=[forged, honest_job.extracts["south"], honest_job.extracts[HUB]])
    assert {"checkpoint-signature", "statement-signature"} <= failing(verify(honest_job, receipt))


def replaced_statement(body: Body, log: str, position: int, statement: Statement, signer: Signer) -> None:
    """Put a statement in place of a log's one, with a proof and head that fit it alone."""
    place = of_log(body, log)[position]
    envelope = sign_statement(statement, signer)
    body["statements"][place] = {
        "log": log,
        "index": body["statements"][place]["index"],
        "envelope": envelope.as_json(),
        "inclusion": body["statements"][place]["inclusion"],
    }
    assert leaf_hash(envelope.encode())


@pytest.mark.parametrize("key", ["hub", "site-south"])
def test_one_statement_of_a_site_replaced_by_somebody_else(
    honest_job: SyntheticJob, honest_receipt: bytes, key: str
) -> None:
    stated = [open_statement(one.envelope) for one in honest_job.extracts["north"].entries]
    place = next(at for at, one in enumerate(stated) if isinstance(one.predicate, BudgetSpend))
    original = stated[place]
    assert isinstance(original.predicate, BudgetSpend)
    cheaper = original.predicate.model_copy(update={"prior_events": ()})

    def edit(body: Body) -> None:
        replaced_statement(body, NORTH, place, Statement(original.subjects, cheaper), honest_job.keys[key])

    _, hostile = both_ways(honest_job, honest_receipt, edit)
    assert {"statement-signature", "log-inclusion", "statement-chain"} <= hostile


def test_a_site_that_names_another_party_in_its_own_log(tmp_path: Path, honest_job: SyntheticJob) -> None:
    extract = honest_job.extracts["south"]
    original = open_statement(extract.entries[0].envelope)
    as_north = Statement(original.subjects, original.predicate.model_copy(update={"party": "north"}))

    def edit(body: Body) -> None:
        replaced_statement(body, SOUTH, 0, as_north, honest_job.keys["site-south"])

    receipt = resealed(honest_job.receipt(), honest_job.keys["hub"], edit)
    assert "statement-signature" in failing(verify(honest_job, receipt))


def test_a_site_that_states_what_only_the_hub_may(honest_job: SyntheticJob) -> None:
    release = next(
        open_statement(one.envelope)
        for one in honest_job.extracts[HUB].entries
        if isinstance(open_statement(one.envelope).predicate, Release)
    )
    as_south = Statement(release.subjects, release.predicate.model_copy(update={"party": "south"}))

    def edit(body: Body) -> None:
        replaced_statement(body, SOUTH, 0, as_south, honest_job.keys["site-south"])

    verdict = verify(honest_job, resealed(honest_job.receipt(), honest_job.keys["hub"], edit))
    detail = next(one.detail for one in verdict.checks if one.id == "statement-signature")
    assert "a site may not state" in detail


def test_an_index_or_a_proof_changed(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def move(body: Body) -> None:
        body["statements"][-1]["index"] += 1

    def forge(body: Body) -> None:
        body["statements"][-1]["inclusion"][0] = b64encode(bytes(32))

    for edit in (move, forge):
        _, hostile = both_ways(honest_job, honest_receipt, edit)
        assert hostile == {"log-inclusion"}


def test_a_log_of_a_party_outside_the_job(
    tmp_path: Path, honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    store = EphemeralKeyStore()
    keys = {**honest_job.keys, "site-west": store.generate("w"), "hospital-west": store.generate("h")}
    wide = SyntheticJob(tmp_path, sites=(*honest_job.sites, "west"), keys=keys)
    west = wide.write(Role.SITE, "west", [], hub_ending=honest_job.shown)
    receipt = honest_job.receipt(extracts=[*honest_job.extracts.values(), west])
    assert "trust" in failing(verify(honest_job, receipt, trust=wide.trust))


@pytest.mark.parametrize(
    ("role", "party", "check"),
    [
        (Role.HUB, HUB, "receipt-signature"),
        (Role.SITE, "north", "checkpoint-signature"),
        (Role.HOSPITAL, "north", "manifest"),
        (Role.DEVELOPER, "lab", "request"),
    ],
)
def test_a_key_that_is_not_the_pinned_one(
    honest_job: SyntheticJob, honest_receipt: bytes, role: Role, party: str, check: str
) -> None:
    stranger = EphemeralKeyStore().generate("stranger").public_key.pem.encode()
    trust = honest_job.trust
    kept = [
        TrustEntry(kind, name, trust.key(kind, name).pem.encode())
        for kind in (Role.HUB, Role.SITE, Role.HOSPITAL, Role.DEVELOPER)
        for name in trust.parties(kind)
        if (kind, name) != (role, party)
    ]
    assert check in failing(
        verify(honest_job, honest_receipt, trust=Trust([*kept, TrustEntry(role, party, stranger)]))
    )
    assert {check, "trust"} <= failing(verify(honest_job, honest_receipt, trust=Trust(kept)))
