"""What a receipt shows of the logs in it: each begins with what others held, and witnesses saw its head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence import (
    EvidenceLog,
    LogExtract,
    Role,
    StatementWriter,
    Subject,
    Trust,
    TrustEntry,
    log_origin,
)
from cloister.evidence.checkpoint import Checkpoint, cosign, sign_checkpoint
from cloister.evidence.checks import Check, Outcome
from cloister.evidence.context import ReceiptContext, model_artifact
from cloister.evidence.errors import EvidenceError
from cloister.evidence.merkle import EMPTY_ROOT
from cloister.evidence.predicates import CheckpointHeld, UpdateReleased
from cloister.evidence.receipt import receipt_from_json, record_of
from cloister.evidence.statement import decode_statement
from cloister.evidence.verification.acceptance import VerificationPolicy
from cloister.evidence.verification.exchange import check_log_consistency, check_witnesses
from cloister.evidence.witness.links import ConsistencyLink, consistency_links, verify_link
from tests.evidence.synthetic import HUB, MODEL, Step, digest, failing, ticking, verify
from tests.evidence.witness.exchanging import ExchangingJob
from tests.evidence.witness.forest import AT, Tree

UPDATE = UpdateReleased.TYPE.encode()
HUB_LOG, NORTH_LOG = log_origin(Role.HUB, HUB), log_origin(Role.SITE, "north")
WITNESSES = EphemeralKeyStore()
EAST, WEST = WITNESSES.generate("east"), WITNESSES.generate("west")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> ExchangingJob:
    return ExchangingJob(tmp_path_factory.mktemp("honest"), rounds=3).run()


def context_of(job: ExchangingJob, *, trust: Trust | None = None, **replaced: object) -> ReceiptContext:
    data = job.careless_receipt(**replaced)
    receipt = receipt_from_json(parse_canonical(data), data)
    return ReceiptContext(
        receipt, b"", record_of(receipt.body), trust or job.trust, model_artifact(MODEL), VerificationPolicy()
    )


def refused(check: Check) -> str:
    assert check.outcome is Outcome.FAILED
    return check.detail


def test_an_honest_job_passes_with_every_held_checkpoint_proven(honest: ExchangingJob) -> None:
    check = check_log_consistency(context_of(honest))
    assert (check.outcome, check.id) == (Outcome.PASSED, "log-consistency")
    # One head of the hub and one of each site in each of three rounds, and that with the hub's ending.
    assert len(honest.links) == 3 * 3 + 1
    assert check.detail.startswith("10 checkpoints")


def test_the_other_checks_of_such_a_receipt_pass_too(honest: ExchangingJob) -> None:
    assert failing(verify(honest, honest.receipt())) == set()


@pytest.mark.parametrize("missing", [0, 4, 8])
def test_a_missing_proof_is_noticed(honest: ExchangingJob, missing: int) -> None:
    links = [one for place, one in enumerate(honest.links) if place != missing]
    assert "isn't proven to be the past" in refused(
        check_log_consistency(context_of(honest, consistency=links))
    )


def spoilt(link: ConsistencyLink, how: str) -> ConsistencyLink:
    match how:
        case "root":
            return replace(link, root=bytes(32))
        case "size":
            return replace(link, size=link.size - 1)
        case "short":
            return replace(link, proof=link.proof[:-1])
        case "long":
            return replace(link, proof=(*link.proof, bytes(32)))
        case "beyond":
            return replace(link, size=10_000)
        case _:
            return replace(link, origin="cloister/site/nobody")


@pytest.mark.parametrize("how", ["root", "size", "short", "long", "beyond", "origin"])
def test_a_proof_that_does_not_hold_is_noticed(honest: ExchangingJob, how: str) -> None:
    links = [spoilt(honest.links[0], how), *honest.links[1:]]
    refused(check_log_consistency(context_of(honest, consistency=links)))


def test_a_proof_of_what_nobody_held_is_noticed(honest: ExchangingJob) -> None:
    north = honest.extracts["north"].checkpoint
    extra = ConsistencyLink(NORTH_LOG, north.size, north.root, ())
    problems = refused(check_log_consistency(context_of(honest, consistency=[*honest.links, extra])))
    assert "nobody held" in problems


def blind(holder: str, number: int) -> Callable[[str, int, Checkpoint], Checkpoint | None]:
    """Who shows a party nothing in a round; an update then names a head that was never there."""
    return lambda who, when, head: None if (who, when) == (holder, number) else head


@pytest.mark.parametrize("number", [0, 2])
def test_a_hub_that_held_nothing_in_a_round_is_named(tmp_path: Path, number: int) -> None:
    job = ExchangingJob(tmp_path, rounds=3, see=blind(HUB, number)).run()
    problems = refused(check_log_consistency(context_of(job)))
    assert f"round {number}: the hub held no log of north" in problems


@pytest.mark.parametrize("number", [0, 2])
def test_a_site_that_names_a_head_which_the_hub_never_had_is_named(tmp_path: Path, number: int) -> None:
    job = ExchangingJob(tmp_path, rounds=3, see=blind("north", number)).run()
    problems = refused(check_log_consistency(context_of(job)))
    assert f"north held {HUB_LOG} with 1 entries, which isn't proven" in problems
    assert ("round 2: north held no log of the hub with the round before in it" in problems) == (number == 2)


def test_a_released_update_without_the_hubs_log_is_no_statement(honest: ExchangingJob) -> None:
    (entry, *_) = [one for one in honest.extracts["north"].entries if UPDATE in one.envelope.payload]
    value = parse_canonical(entry.envelope.payload)
    assert isinstance(value, dict)
    assert isinstance(value["predicate"], dict)
    assert decode_statement(canonicalize(value)).predicate
    del value["predicate"]["hub_log"]
    with pytest.raises(EvidenceError, match="hub_log") as caught:
        decode_statement(canonicalize(value))
    assert caught.value.code == "evidence.statement_malformed"


def test_of_another_log_than_the_hubs_a_site_holds_nothing_of_the_hubs(tmp_path: Path) -> None:
    """Its own head, signed and with a proof, stands where the hub's is to stand."""
    job = ExchangingJob(tmp_path, rounds=3)
    own: list[Checkpoint] = []

    def other(holder: str, number: int, head: Checkpoint) -> Checkpoint:
        own.extend([head] if head.origin == NORTH_LOG else [])
        return own[0] if (holder, number) == ("south", 2) else head

    job.see = other
    job.run()
    assert refused(check_log_consistency(context_of(job))) == (
        "round 2: south held no log of the hub with the round before in it"
    )


def test_a_hub_cannot_state_for_a_site_what_the_site_held(honest: ExchangingJob, tmp_path: Path) -> None:
    """Neither kind of statement may be made by the other's role, and it counts for its own log only."""
    for name, kind in ((HUB, UpdateReleased), ("north", CheckpointHeld)):
        role, key = (Role.HUB, "hub") if name == HUB else (Role.SITE, f"site-{name}")
        signer = honest.keys[key]
        with EvidenceLog.create(tmp_path / name, origin=log_origin(role, name), signer=signer) as log:
            writer = StatementWriter(log, signer, name, honest.job_id, ticking())
            with pytest.raises(EvidenceError, match="may not state"):
                writer.write(kind, [Subject("x", digest("x"))])


def test_a_site_that_was_shown_the_hubs_log_of_the_round_before_is_noticed(tmp_path: Path) -> None:
    seen: dict[int, Checkpoint] = {}

    def stale(holder: str, number: int, head: Checkpoint) -> Checkpoint:
        if holder == "north":
            seen[number] = head
            return seen[number - 1] if number == 2 else head
        return head

    job = ExchangingJob(tmp_path, rounds=3, see=stale).run()
    assert refused(check_log_consistency(context_of(job))) == (
        "round 2: north held no log of the hub with the round before in it"
    )


def test_a_hub_that_shows_two_sites_two_pasts_cannot_have_a_receipt(tmp_path: Path) -> None:
    """Split view: south was shown a hub's log of the same size with another root, signed by the hub's key."""
    job = ExchangingJob(tmp_path, rounds=3)

    def split(holder: str, number: int, head: Checkpoint) -> Checkpoint:
        if holder == "south" and number == 1:
            return sign_checkpoint(head.origin, head.size, bytes(range(32)), job.keys["hub"])
        return head

    job.see = split
    job.run()
    assert f"south held {HUB_LOG}" in refused(check_log_consistency(context_of(job)))
    dropped = [one for one in job.links if one.root != bytes(range(32))]
    assert "south held" in refused(check_log_consistency(context_of(job, consistency=dropped)))


def test_a_site_that_rewrites_its_log_after_a_round_is_found_out_by_what_the_hub_held(tmp_path: Path) -> None:
    """North writes its log anew with another update in the first round, all signed by its own key."""
    (tmp_path / "told").mkdir()
    (tmp_path / "rewritten").mkdir()
    told = ExchangingJob(tmp_path / "told", rounds=3)
    heads: dict[int, Checkpoint] = {}

    def look(holder: str, number: int, head: Checkpoint) -> Checkpoint:
        return heads.setdefault(number, head) if holder == "north" else head

    told.see = look
    told.run()

    def edit(party: str, steps: list[Step]) -> list[Step]:
        if party == "north":
            steps = [
                (kind, {**fields, "bytes": 16} if kind is UpdateReleased else fields)
                for kind, fields in steps
            ]
        return steps

    rewritten = ExchangingJob(tmp_path / "rewritten", rounds=3, keys=told.keys, edit=edit, see=look).run()
    extracts = [rewritten.extracts["north"], told.extracts["south"], told.extracts[HUB]]
    other = EvidenceLog.open(
        tmp_path / "rewritten" / "north.sqlite", origin=NORTH_LOG, signer=told.keys["site-north"]
    )
    with other:
        links = [
            replace(one, proof=other.consistency_proof(one.size, other.size))
            if one.origin == NORTH_LOG
            else one
            for one in told.links
        ]
    check = check_log_consistency(context_of(told, extracts=extracts, consistency=links))
    assert f"{HUB} held {NORTH_LOG}" in refused(check)


def test_a_hub_without_its_own_word_on_a_round_is_not_believed(tmp_path: Path) -> None:
    job = ExchangingJob(tmp_path, see=lambda who, when, head: None if who == HUB else head).run()
    assert {one.origin for one in job.links} == {HUB_LOG}
    problems = refused(check_log_consistency(context_of(job)))
    assert "isn't proven" not in problems
    for number in range(2):
        assert f"round {number}: the hub held no log of north" in problems


def test_links_are_made_once_for_what_several_hold(honest: ExchangingJob) -> None:
    keys = [(one.origin, one.size, one.root) for one in honest.links]
    assert keys == sorted(set(keys))
    for link in honest.links:
        name = link.origin.rpartition("/")[2]
        verify_link(link, honest.extracts[name].checkpoint)


def test_a_log_that_is_shorter_than_somebody_held_it_has_no_links(honest: ExchangingJob) -> None:
    extract_of = {one.origin: one for one in honest.extracts.values()}
    older = replace(extract_of[NORTH_LOG], checkpoint=sign_checkpoint(NORTH_LOG, 2, bytes(32), EAST))

    def prove(origin: str, old: int, new: int) -> tuple[bytes, ...]:
        return Tree().proof(old, new)

    with pytest.raises(EvidenceError) as caught:
        consistency_links({**extract_of, NORTH_LOG: older}, prove)
    assert caught.value.code == "evidence.out_of_range"


def test_a_link_of_another_log_does_not_hold(honest: ExchangingJob) -> None:
    link = next(one for one in honest.links if one.origin == HUB_LOG)
    with pytest.raises(EvidenceError):
        verify_link(link, honest.extracts["north"].checkpoint)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"root": "0" * 64},
        {"origin": "cloister/site/other"},
        {"note": "nothing"},
        {"note": Tree().head(6).encode()},
    ],
)
def test_a_held_checkpoint_says_what_its_note_says(wrong: dict[str, object]) -> None:
    head = Tree().head(5)
    part = {"origin": head.origin, "size": head.size, "root": head.root.hex(), "note": head.encode()}
    chain = {
        "job_id": "11111111-2222-4333-8444-555555555555",
        "party": "hub",
        "sequence": 0,
        "previous": None,
        "recorded_at": "2026-11-21T14:00:00.000000Z",
        "round": 0,
    }
    assert CheckpointHeld.model_validate({**chain, "held": [part]}).held[0].size == 5
    with pytest.raises(ValueError, match="held"):
        CheckpointHeld.model_validate({**chain, "held": [{**part, **wrong}]})


def test_an_empty_log_is_nothing_to_hold() -> None:
    tree = Tree()
    head = sign_checkpoint(tree.origin, 0, EMPTY_ROOT, tree.signer)
    part = {"origin": head.origin, "size": 0, "root": head.root.hex(), "note": head.encode()}
    with pytest.raises(ValueError, match="size"):
        CheckpointHeld.model_validate({"held": [part]})


def witnessing(job: ExchangingJob, **keys: object) -> Trust:
    entries = [(Role.HUB, HUB, job.keys["hub"])]
    entries += [(Role.SITE, one, job.keys[f"site-{one}"]) for one in job.sites]
    entries += [(Role.WITNESS, name, key) for name, key in keys.items()]  # type: ignore[misc]
    return Trust(TrustEntry(role, party, key.public_key.pem.encode()) for role, party, key in entries)


def cosigned(job: ExchangingJob, change: Callable[[Checkpoint], Checkpoint]) -> list[LogExtract]:
    return [replace(one, checkpoint=change(one.checkpoint)) for one in job.extracts.values()]


def test_enough_witnesses_pass_and_one_too_few_fails(honest: ExchangingJob) -> None:
    trust = witnessing(honest, east=EAST, west=WEST)
    extracts = cosigned(honest, lambda head: cosign(head, "east", EAST, AT))
    context = context_of(honest, trust=trust, extracts=extracts)
    assert check_witnesses(context, 0).outcome is Outcome.PASSED
    assert check_witnesses(context, 1).outcome is Outcome.PASSED
    assert "1 of the pinned witnesses" in refused(check_witnesses(context, 2))
    both = cosigned(honest, lambda head: cosign(cosign(head, "east", EAST, AT), "west", WEST, AT))
    assert check_witnesses(context_of(honest, trust=trust, extracts=both), 2).outcome is Outcome.PASSED


def test_every_log_needs_its_witnesses(honest: ExchangingJob) -> None:
    trust = witnessing(honest, east=EAST)
    extracts = cosigned(
        honest, lambda head: head if head.origin == NORTH_LOG else cosign(head, "east", EAST, AT)
    )
    assert NORTH_LOG in refused(check_witnesses(context_of(honest, trust=trust, extracts=extracts), 1))


def test_more_witnesses_than_are_pinned_is_a_failure(honest: ExchangingJob) -> None:
    assert "0 are pinned" in refused(check_witnesses(context_of(honest), 1))


def test_one_witness_counts_once_and_one_that_is_not_pinned_never(honest: ExchangingJob) -> None:
    trust = witnessing(honest, east=EAST, west=WEST)
    extracts = cosigned(honest, lambda head: cosign(cosign(head, "east", EAST, AT), "nobody", WEST, AT))
    refused(check_witnesses(context_of(honest, trust=trust, extracts=extracts), 2))


def test_a_false_cosignature_fails_even_where_none_is_wanted(
    honest: ExchangingJob,
) -> None:
    trust = witnessing(honest, east=EAST)
    elsewhere = cosign(Tree().head(3), "east", EAST, AT).signatures[-1]
    extracts = cosigned(honest, lambda head: replace(head, signatures=(*head.signatures, elsewhere)))
    refused(check_witnesses(context_of(honest, trust=trust, extracts=extracts), 0))
