"""What a stranger without keys, and a hub that holds its own key, can do to a receipt: be named by a check.

Each attack is made twice where that makes sense: on the bytes alone, and by a hostile hub that signs again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister.core.canonical import JSON, b64encode, parse
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.checkpoint import parse_checkpoint, sign_checkpoint
from cloister.evidence.envelope import sign_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, log_origin
from cloister.evidence.merkle import leaf_hash
from cloister.evidence.predicates import (
    SEEDED_TEST,
    AttestationVerdict,
    BudgetSpend,
    Evaluation,
    JobOpened,
    Release,
    Role,
    RoundAggregated,
)
from cloister.evidence.receipt import ModelFile
from cloister.evidence.statement import Statement, open_statement, sign_statement
from cloister.evidence.terms import MANIFEST_TYPE
from cloister.evidence.trust import Trust, TrustEntry
from cloister.evidence.verifier import TestRandomness
from tests.evidence.synthetic import (
    HUB,
    MODEL,
    OTHER_JOB_ID,
    Step,
    SyntheticJob,
    digest,
    edited,
    failing,
    resealed,
    verify,
)

Body = dict[str, Any]
Edit = Callable[[Body], None]

NORTH = log_origin(Role.SITE, "north")
SOUTH = log_origin(Role.SITE, "south")


def both_ways(job: SyntheticJob, receipt: bytes, edit: Edit) -> tuple[set[str], set[str]]:
    """The checks that fail when a stranger edits the receipt, and when the hub does and signs again."""
    naive = failing(verify(job, edited(receipt, edit)))
    hostile = failing(verify(job, resealed(receipt, job.keys["hub"], edit)))
    assert "receipt-signature" in naive
    assert "receipt-signature" not in hostile
    return naive, hostile


def of_log(body: Body, log: str) -> list[int]:
    return [place for place, one in enumerate(body["statements"]) if one["log"] == log]


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
    assert count == 32
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
    replayed = other.write(Role.SITE, "north", other.site_steps("north"))
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
        assert hostile == {"checkpoint-signature"}


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
    return forger.write(Role.SITE, "north", steps)


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
    west = wide.write(Role.SITE, "west", [])
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


# Documents


def test_a_manifest_swapped_for_a_laxer_one_of_the_same_hospital(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    laxer = honest_job.manifest("north", epsilon_budget=5.0).as_json()
    naive, hostile = both_ways(honest_job, honest_receipt, lambda body: body["manifests"].update(north=laxer))
    assert "manifest" in naive
    assert "manifest" in hostile


def test_a_manifest_signed_by_the_hub(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    payload = honest_job.manifest("north").payload
    forged = sign_envelope(MANIFEST_TYPE, payload, honest_job.keys["hub"]).as_json()
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body["manifests"].update(north=forged))
    assert hostile == {"manifest"}


def test_manifests_of_two_sites_swapped(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def swap(body: Body) -> None:
        manifests = body["manifests"]
        manifests["north"], manifests["south"] = manifests["south"], manifests["north"]

    _, hostile = both_ways(honest_job, honest_receipt, swap)
    assert {"manifest", "request", "data"} <= hostile


def test_a_manifest_left_out(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body["manifests"].pop("north"))
    assert {"manifest", "data", "epsilon"} <= hostile


def test_the_job_changed_after_the_sites_consented(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def more_epsilon(body: Body) -> None:
        body["job"]["privacy"]["target_epsilon"] = 4.5

    def another_seed(body: Body) -> None:
        body["job"]["seed"] = 8

    def fewer_sites(body: Body) -> None:
        body["job"]["min_clients"] = 1

    for edit in (more_epsilon, another_seed, fewer_sites):
        _, hostile = both_ways(honest_job, honest_receipt, edit)
        assert hostile == {"request", "statement-chain"}


def test_a_request_of_somebody_else(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    request = sign_envelope(
        honest_job.request.payload_type, honest_job.request.payload, honest_job.keys["hub"]
    )
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body.update(request=request.as_json()))
    assert hostile == {"request"}


# Privacy


def test_epsilon_edited(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    for name in ("epsilon", "epsilon_dataset_total"):

        def edit(body: Body, name: str = name) -> None:
            body["summary"]["privacy"]["north"][name] -= 0.01

        naive, hostile = both_ways(honest_job, honest_receipt, edit)
        assert "epsilon" in naive
        assert hostile == {"epsilon"}


def test_the_orders_or_the_unit_of_epsilon_edited(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def unit(body: Body) -> None:
        body["summary"]["privacy"]["north"]["unit"] = "hospital"

    def orders(body: Body) -> None:
        body["summary"]["privacy"]["north"]["orders"].pop()

    for edit in (unit, orders):
        _, hostile = both_ways(honest_job, honest_receipt, edit)
        assert hostile == {"summary"}


def test_a_job_that_spent_more_than_its_limits(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, noise_multiplier=0.6).run()
    verdict = verify(job, job.receipt())
    assert {"epsilon", "summary"} >= failing(verdict) >= {"epsilon"}
    assert "above the limit" in next(one.detail for one in verdict.checks if one.id == "epsilon")


def test_without_dp_accounting_epsilon_is_not_run_and_nothing_is_accepted(
    honest_job: SyntheticJob, honest_receipt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> float:
        raise ImportError("dp_accounting")

    monkeypatch.setattr("cloister.evidence.epsilon._epsilon", missing)
    verdict = verify(honest_job, honest_receipt)
    assert [(one.id, one.outcome.value) for one in verdict.failures] == [("epsilon", "not_run")]
    assert not verdict.accepted


def test_seeded_noise_is_refused_unless_a_test_asks_for_it(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path, noise_generator=SEEDED_TEST).run()
    receipt = job.receipt()
    refused = verify(job, receipt)
    assert failing(refused) == {"randomness"}
    assert refused.test_randomness
    accepted = verify(job, receipt, accept=TestRandomness.ACCEPT)
    assert accepted.accepted
    assert accepted.test_randomness


# What a hub may say in its own log, and what gives it away


def step(steps: list[Step], kind: type, position: int = 0) -> dict[str, Any]:
    return [fields for found, fields in steps if found is kind][position]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("lie", "check"),
    [
        (lambda s: step(s, RoundAggregated)["updates"].update(north=digest("other")), "airlock"),
        (lambda s: step(s, RoundAggregated)["updates"].update(north=digest("update north 1")), "airlock"),
        (lambda s: step(s, RoundAggregated).update(model_sha256_before=digest("other")), "airlock"),
        (lambda s: step(s, RoundAggregated, 1).update(model_sha256_before=digest("other")), "aggregation"),
        (lambda s: step(s, RoundAggregated, 1).update(model_sha256_after=digest("other")), "aggregation"),
        (lambda s: step(s, RoundAggregated)["weights"].update(north=0.5, south=0.5), "aggregation"),
        (lambda s: step(s, RoundAggregated)["weights"].update(north=0.3), "aggregation"),
        (lambda s: step(s, RoundAggregated)["weights"].update(west=0.1), "aggregation"),
        (lambda s: step(s, RoundAggregated)["absent"].update(north="late"), "aggregation"),
        (lambda s: step(s, RoundAggregated).update(strategy="SCAFFOLD"), "aggregation"),
        (lambda s: step(s, Release).update(weights_sha256=digest("other")), "aggregation"),
        (lambda s: step(s, Release).update(model_sha256=digest("other")), "model-hash"),
        (lambda s: step(s, Release).update(approved=False), "model-hash"),
        (lambda s: step(s, Release)["constraints"][0].update(satisfied=False), "model-hash"),
        (lambda s: step(s, Evaluation).update(improvement_score=0.99), "evaluation"),
        (lambda s: step(s, Evaluation).update(threshold=0.5), "evaluation"),
        (
            lambda s: step(s, Evaluation).update(value=120 / 171, improvement_score=13 / 64),
            "evaluation",
        ),
        (lambda s: step(s, Evaluation).update(metric="f1"), "evaluation"),
        (lambda s: step(s, Evaluation).update(test_set="an-easier-one"), "evaluation"),
        (lambda s: step(s, JobOpened).update(test_set="an-easier-one"), "evaluation"),
        (lambda s: step(s, JobOpened).update(job_sha256=digest("other")), "request"),
        (lambda s: step(s, JobOpened).update(rounds=7), "request"),
    ],
)
def test_a_lie_in_the_hubs_own_log(
    honest_job: SyntheticJob, lie: Callable[[list[Step]], None], check: str
) -> None:
    failures = failing(verify(honest_job, honest_job.lying_hub(lie)))
    assert check in failures
    assert failures <= {check, "airlock", "aggregation", "model-hash", "summary"}


def moved(kind: type, before: type) -> Callable[[list[Step]], None]:
    def move(steps: list[Step]) -> None:
        taken = steps.pop(next(place for place, one in enumerate(steps) if one[0] is kind))
        steps.insert(next(place for place, one in enumerate(steps) if one[0] is before), taken)

    return move


@pytest.mark.parametrize(
    "lie",
    [
        moved(Evaluation, RoundAggregated),
        moved(Release, RoundAggregated),
        moved(RoundAggregated, JobOpened),
        moved(RoundAggregated, AttestationVerdict),
        moved(RoundAggregated, Evaluation),
    ],
)
def test_steps_stated_in_an_order_in_which_they_cannot_have_happened(
    honest_job: SyntheticJob, lie: Callable[[list[Step]], None]
) -> None:
    assert failing(verify(honest_job, honest_job.lying_hub(lie))) == {"statement-order"}


def test_an_update_released_before_its_cost_was_stated(honest_job: SyntheticJob) -> None:
    def swap(steps: list[Step]) -> None:
        spend = next(place for place, one in enumerate(steps) if one[0] is BudgetSpend)
        steps[spend], steps[spend + 1] = steps[spend + 1], steps[spend]

    assert failing(verify(honest_job, honest_job.lying_site("north", swap))) == {"statement-order"}


def test_a_site_that_was_never_attested(honest_job: SyntheticJob) -> None:
    with pytest.raises(EvidenceError) as caught:
        honest_job.lying_hub(lambda steps: step(steps, AttestationVerdict).update(status="UNTRUSTED"))
    assert "0 attestation verdicts that trust north" in caught.value.details[0]


def test_a_site_dropped_from_a_round_without_a_word(honest_job: SyntheticJob) -> None:
    def drop(steps: list[Step]) -> None:
        for part in ("updates", "weights"):
            del step(steps, RoundAggregated, 1)[part]["south"]

    failures = failing(verify(honest_job, honest_job.lying_hub(drop)))
    assert {"airlock", "aggregation"} <= failures


def test_a_site_dropped_from_a_round_with_a_reason_still_needs_the_quorum(honest_job: SyntheticJob) -> None:
    def drop(steps: list[Step]) -> None:
        for part in ("updates", "weights"):
            del step(steps, RoundAggregated, 1)[part]["south"]
        step(steps, RoundAggregated, 1)["absent"]["south"] = "late"

    assert failing(verify(honest_job, honest_job.lying_hub(drop))) == {"aggregation"}


def test_a_model_file_above_what_a_manifest_allows(honest_job: SyntheticJob) -> None:
    large = bytes(10_001)

    def lie(steps: list[Step]) -> None:
        step(steps, Release).update(model_sha256=sha256_hex(large), model_bytes=len(large))

    receipt = honest_job.lying_hub(lie, model=ModelFile("m", sha256_hex(large), len(large)))
    assert failing(verify(honest_job, receipt, model=large)) == {"model-hash"}


# Everything else the hub signs


def leaves(value: JSON, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths to every scalar in a JSON value."""
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in leaves(part, (*path, name))]
    if isinstance(value, list):
        return [leaf for place, part in enumerate(value) for leaf in leaves(part, (*path, place))]
    return [path]


def changed(value: JSON) -> JSON:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return 0


THE_HUBS_TO_CHOOSE = {("receipt_id",), ("issued_at",), ("model", "name")}
"""What a hub may freely choose when it issues: the receipt's own id and date, and the file's name."""


def test_a_hub_can_change_nothing_but_the_receipts_own_id_date_and_file_name(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    body = parse(honest_receipt)["body"]  # type: ignore[call-overload, index]
    accepted = set()
    apart = {"envelope", "inclusion"}
    places = [path for path in leaves(body) if not apart & set(path) and path[-2:-1] != ("orders",)]
    for path in places:

        def edit(whole: Body, path: tuple[str | int, ...] = path) -> None:
            part: Any = whole
            for step_ in path[:-1]:
                part = part[step_]
            part[path[-1]] = changed(part[path[-1]])

        if verify(honest_job, resealed(honest_receipt, honest_job.keys["hub"], edit)).accepted:
            accepted.add(path)
    assert len(places) > 120
    assert accepted <= THE_HUBS_TO_CHOOSE


def test_the_fixed_sentences_reworded(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    def reword(body: Body) -> None:
        body["compliance"][0] = "Credits are as good as money."

    def unsay(body: Body) -> None:
        body["claims_not_made"].pop(0)

    for edit in (reword, unsay):
        _, hostile = both_ways(honest_job, honest_receipt, edit)
        assert hostile == {"compliance"}


def test_a_receipt_dated_before_the_job_ended(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    early = "2026-11-21T14:00:00.000000Z"
    _, hostile = both_ways(honest_job, honest_receipt, lambda body: body.update(issued_at=early))
    assert hostile == {"statement-order"}
