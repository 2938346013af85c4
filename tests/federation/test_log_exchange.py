"""What hub and sites show each other of their logs: taken if it continues, refused and kept if it doesn't."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize, parse
from cloister.core.clock import Clock
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence import EvidenceLog, LogExtract, Subject, open_statement
from cloister.evidence.checkpoint import Checkpoint, NoteSignature, sign_checkpoint
from cloister.evidence.envelope import Envelope, sign_envelope
from cloister.evidence.extract import log_owner
from cloister.evidence.predicates import (
    BudgetSpend,
    CheckpointHeld,
    JobClosed,
    RoundAggregated,
    UpdateReleased,
    Violation,
    held_checkpoints,
)
from cloister.evidence.predicates.log import MAX_HELD_NOTE_CHARS
from cloister.evidence.witness.continuation import Continuation, parse_continuation
from cloister.federation import FederationResult, RefusalError, initial_weights
from cloister.federation.errors import is_refusal
from cloister.federation.log_messages import HubLog, ShownEnding, decode_ending, decode_hub_log
from cloister.federation.node import RoundTask
from tests.federation.nodes import a_job
from tests.federation.parties import CLASSES, DELTA, FEATURES, Federation

JOB = a_job(
    rounds=3,
    min_clients=2,
    training={"sampling_probability": 0.25, "local_steps": 2, "learning_rate": 1.0},
    privacy={"noise_multiplier": None, "target_epsilon": 3.0, "delta": DELTA},
)
START = initial_weights(JOB, FEATURES, CLASSES)
NORTH, HUB = "cloister/site/north", "cloister/hub/hub"


def proceed() -> bool:
    return False


@pytest.fixture
def parties(tmp_path: Path, clock: Clock) -> Iterator[Federation]:
    made = Federation(JOB, tmp_path, clock)
    yield made
    made.close()


def hub_log_of(task: RoundTask, **changes: object) -> RoundTask:
    return replace(task, hub_log=replace(decode_hub_log(task.hub_log), **changes).encode())  # type: ignore[arg-type]


def refusal(call: Callable[[], object]) -> CloisterError:
    with pytest.raises(CloisterError) as caught:
        call()
    return caught.value


# A whole job


def test_in_every_round_each_holds_the_others_newest_log(parties: Federation) -> None:
    parties.run()
    hub = [one.predicate for one in parties.statements("hub")]
    held = [one for one in hub if isinstance(one, CheckpointHeld)]
    assert [one.round for one in held] == [0, 1, 2]
    rounds = {one.round: one.sequence for one in hub if isinstance(one, RoundAggregated)}
    entries = parties.logs["hub"].extract(JOB.job_id).entries
    rounds_at = [
        entry.index for entry, one in zip(entries, hub, strict=True) if isinstance(one, RoundAggregated)
    ]
    for one in held:
        assert [part.origin for part in one.held] == [f"cloister/site/{site}" for site in JOB.clients]
        assert one.sequence < rounds[one.round]
        for part in one.held:
            _, site = log_owner(part.origin)
            released = [
                entry.index
                for entry, statement in zip(
                    parties.logs[site].extract(JOB.job_id).entries, parties.statements(site), strict=True
                )
                if isinstance(statement.predicate, UpdateReleased) and statement.predicate.round == one.round
            ]
            assert part.size > released[0]
            assert parties.logs[site].root_at(part.size).hex() == part.root
    for site in JOB.clients:
        said = [s.predicate for s in parties.statements(site) if held_checkpoints(s.predicate)]
        seen = [one for one in said if isinstance(one, UpdateReleased)]
        assert seen == said
        assert [(one.round, one.hub_log.origin) for one in seen] == [(0, HUB), (1, HUB), (2, HUB)]
        assert all(parties.logs["hub"].root_at(one.hub_log.size).hex() == one.hub_log.root for one in seen)
        sizes = [one.hub_log.size for one in seen]
        assert all(size > rounds_at[number] for number, size in enumerate(sizes[1:]))


def test_a_second_job_continues_from_what_the_first_left(parties: Federation, clock: Clock) -> None:
    parties.run()
    before = parties.site_logs("north").hub_size()
    later = next_job(parties, clock)
    later.run()
    assert later.site_logs("north").hub_size() > before


# The hub's log, as a site sees it


def another(parties: Federation, name: str, number: int) -> Envelope:
    """Something that isn't in the party's own log."""
    return sign_envelope("text/plain", f"another past, {number}".encode(), parties.signers[name])


def forked(parties: Federation, name: str) -> EvidenceLog:
    """A log of the same party with another past, as long or longer."""
    origin = parties.logs[name].origin
    log = EvidenceLog.create(parties.directory / "fork", origin=origin, signer=parties.signers[name])
    parties.logs["fork"] = log
    for number in range(parties.logs[name].size + 2):
        log.append(another(parties, name, number), stream="elsewhere", position=number)
    return log


def test_a_hub_that_shows_another_past_gets_nothing_and_both_pasts_are_kept(parties: Federation) -> None:
    site = parties.site("north")
    site.release(0, site.train_round(parties.task(0, START), proceed))
    for other in ("south", "west"):
        parties.writers[other].close("failed")
    spent = site.epsilon_spent()
    log = forked(parties, "hub")
    seen = parties.site_logs("north").hub_size()
    task = hub_log_of(
        parties.task(1, START),
        checkpoint=log.checkpoint(),
        proofs={seen: log.consistency_proof(seen, log.size)},
    )
    error = refusal(lambda: site.train_round(task, proceed))
    assert error.code == "evidence.log_inconsistent"
    assert is_refusal(error.code)
    assert site.epsilon_spent() == spent
    last = parties.statements("north")[-1].predicate
    assert isinstance(last, Violation)
    assert last.rule == "evidence.log_inconsistent"
    assert last.artifact_sha256 is not None
    ((held, offered),) = parties.site_book("north").unproven(HUB)
    assert (held.size, offered.size) == (seen, log.size)


def test_a_hub_whose_log_was_set_back_gets_nothing(parties: Federation) -> None:
    site = parties.site("north")
    first = parties.task(0, START)
    old = decode_hub_log(first.hub_log)
    site.release(0, site.train_round(first, proceed))
    site.release(1, site.train_round(parties.task(1, START), proceed))
    task = hub_log_of(parties.task(2, START), checkpoint=old.checkpoint)
    assert refusal(lambda: site.train_round(task, proceed)).code == "evidence.log_rolled_back"
    assert isinstance(parties.statements("north")[-1].predicate, Violation)


def test_no_update_is_released_without_the_hubs_log_of_its_round(parties: Federation) -> None:
    """Neither before the first, nor with that of another round, nor after one that was refused."""
    site = parties.site("north")
    error = refusal(lambda: site.release(0, {"params": dict(START)}))
    assert error.code == "federation.bad_task"
    assert parties.statements("north") == []
    update = site.train_round(parties.task(0, START), proceed)
    assert refusal(lambda: site.release(1, update)).code == "federation.bad_task"
    forged = sign_checkpoint(HUB, 10_000, bytes(32), parties.signers["south"])
    refused = hub_log_of(parties.task(1, START), checkpoint=forged)
    assert refusal(lambda: site.train_round(refused, proceed)).code == "evidence.checkpoint_unsigned"
    for number in (0, 1):
        assert refusal(lambda number=number: site.release(number, update)).code == "federation.bad_task"  # type: ignore[misc]
    assert not [one for one in parties.statements("north") if isinstance(one.predicate, UpdateReleased)]


def test_the_update_names_what_was_on_disk_before_it_was_trained(parties: Federation) -> None:
    site = parties.site("north")
    task = parties.task(0, START)
    update = site.train_round(task, proceed)
    kept = parties.site_book("north").newest(HUB)
    parties.task(1, START)  # The hub's log has grown meanwhile; the site doesn't know.
    site.release(0, update)
    stated = parties.statements("north")[-1].predicate
    assert isinstance(stated, UpdateReleased)
    assert kept == decode_hub_log(task.hub_log).checkpoint
    assert stated.hub_log.note == kept.encode()


def long_note(head: Checkpoint) -> Checkpoint:
    """A sound head with so many lines of others that no statement has room for its note."""
    line = NoteSignature("somebody", bytes(4), bytes(64))
    return replace(head, signatures=(*head.signatures, *[line] * (MAX_HELD_NOTE_CHARS // 100)))


def test_a_head_that_no_statement_has_room_for_is_refused_before_anything_is_spent(
    parties: Federation,
) -> None:
    site = parties.site("north")
    task = parties.task(0, START)
    padded = hub_log_of(task, checkpoint=long_note(decode_hub_log(task.hub_log).checkpoint))
    assert refusal(lambda: site.train_round(padded, proceed)).code == "evidence.checkpoint_malformed"
    assert parties.site_logs("north").hub_size() == 0
    assert site.epsilon_spent() == 0
    (stated,) = (one.predicate for one in parties.statements("north"))
    assert isinstance(stated, Violation)
    assert stated.rule == "evidence.checkpoint_malformed"


def test_a_site_whose_head_no_statement_has_room_for_is_out_alone(parties: Federation) -> None:
    logs = parties.hub_logs()
    shown = Continuation(0, (), long_note(parse_continuation(answer(parties).decode()).checkpoint))
    error = refusal(lambda: logs.take("north", shown.encode().encode()))
    assert error.code == "federation.bad_log"
    logs.state(0, ["north"])
    assert parties.statements("hub") == []


def test_a_site_that_signed_more_of_its_log_than_there_is_takes_no_part(parties: Federation) -> None:
    site = parties.site("north")
    later = sign_checkpoint(NORTH, 10_000, bytes(range(32)), parties.signers["north"])
    task = hub_log_of(parties.task(0, START), held={"north": later})
    error = refusal(lambda: site.train_round(task, proceed))
    assert error.code == "evidence.log_rolled_back"
    assert NORTH in error.message


@pytest.mark.parametrize("signer", ["hub", "south"])
def test_a_hub_that_shows_a_later_head_which_the_site_never_signed_accuses_itself(
    parties: Federation, signer: str
) -> None:
    """What the site then states for good is that it was shown such a head, not that its log was set back."""
    site = parties.site("north")
    task = hub_log_of(
        parties.task(0, START),
        held={"north": sign_checkpoint(NORTH, 10**15, bytes(32), parties.signers[signer])},
    )
    assert refusal(lambda: site.train_round(task, proceed)).code == "evidence.checkpoint_unsigned"
    stated = parties.statements("north")[-1].predicate
    assert isinstance(stated, Violation)
    assert stated.rule == "evidence.checkpoint_unsigned"


def test_an_older_copy_of_a_sites_log_that_was_written_on_is_noticed_before_it_trains(
    parties: Federation, clock: Clock
) -> None:
    """The log is set back to before what the hub holds; the next job's first statements fill it up again."""
    parties.run()
    held = parties.hub_book().newest(NORTH)
    assert held is not None
    back = EvidenceLog.create(parties.directory / "back", origin=NORTH, signer=parties.signers["north"])
    for one in parties.logs["north"].entries(0, held.size - 2):
        back.append(one.envelope, stream=one.stream, position=one.position)
    later = next_job(parties, clock)
    later.logs["north"] = back
    for _ in range(3):
        later.writers["north"].write(
            Violation, [Subject("x", sha256_hex(b"x"))], rule="r", detail="d", artifact_sha256=None
        )
    assert back.size > held.size
    later.run()
    stated = [one.predicate for one in later.statements("north")]
    assert not any(isinstance(one, BudgetSpend | UpdateReleased) for one in stated)
    assert isinstance(stated[-1], Violation)
    assert stated[-1].rule == "evidence.log_rolled_back"
    back.close()


def test_a_book_that_was_emptied_is_filled_again_from_the_holders_own_log(
    parties: Federation, clock: Clock
) -> None:
    """North rewrites its past; whoever emptied the hub's folder of checkpoints doesn't help it."""
    parties.run()
    held = parties.hub_book().newest(NORTH)
    assert held is not None
    shutil.rmtree(parties.directory / "hub.held")
    later = next_job(parties, clock)
    fork = EvidenceLog.create(parties.directory / "fork", origin=NORTH, signer=parties.signers["north"])
    for number in range(12):
        fork.append(another(parties, "north", number), stream="elsewhere", position=number)
    later.logs["north"] = fork
    result = later.run()
    assert [record.sites for record in result.rounds] == [("south", "west")] * JOB.rounds
    assert later.hub_book().newest(NORTH) == held
    fork.close()


def test_a_site_whose_book_was_emptied_still_holds_what_it_stated_of_the_hub(parties: Federation) -> None:
    parties.run()
    seen = parties.site_logs("north").hub_size()
    assert seen > 0
    shutil.rmtree(parties.directory / "north.held")
    assert parties.site_logs("north").hub_size() == seen


def test_a_book_that_contradicts_what_its_holder_stated_is_an_error(parties: Federation) -> None:
    parties.run()
    seen = parties.site_book("north").newest(HUB)
    assert seen is not None
    forged = sign_checkpoint(HUB, seen.size, bytes(32), parties.signers["hub"])
    (parties.directory / "north.held" / "cloister%2Fhub%2Fhub.note").write_text(forged.encode())
    assert refusal(lambda: parties.site_logs("north")).code == "evidence.log_inconsistent"


# How the hub ended the job


def test_each_site_states_how_the_hub_ended_the_job(parties: Federation) -> None:
    parties.run()
    closing = parties.writers["hub"].close("completed")
    message = shown_ending(parties, *JOB.clients)
    for name in JOB.clients:
        ending = parties.site_logs(name).take_ending(message)
        assert ending.statement_sha256 == closing.sha256
        assert (ending.origin, ending.size) == (HUB, parties.logs["hub"].size)
        assert ending.root == parties.logs["hub"].root_at(ending.size).hex()
        assert parties.site_book(name).newest(HUB) == parties.logs["hub"].checkpoint()
        written = parties.writers[name].close("completed", hub_ending=ending)
        closed = open_statement(written.envelope).predicate
        assert isinstance(closed, JobClosed)
        assert closed.hub_ending == ending


def test_a_hub_that_has_not_closed_shows_no_ending(parties: Federation) -> None:
    parties.run()
    assert refusal(lambda: shown_ending(parties, "north")).code == "evidence.statement_refused"


def test_an_ending_in_a_log_that_does_not_continue_the_one_seen_is_refused(parties: Federation) -> None:
    parties.run()
    parties.writers["hub"].close("completed")
    fork = EvidenceLog.create(parties.directory / "fork", origin=HUB, signer=parties.signers["hub"])
    for one in list(parties.logs["hub"].entries())[1:]:
        fork.append(one.envelope, stream=one.stream, position=one.position)
    seen, last = parties.site_logs("north").hub_size(), fork.size - 1
    forged = ShownEnding(
        LogExtract(HUB, fork.checkpoint(), fork.proven(fork.checkpoint(), last, last + 1)),
        {seen: fork.consistency_proof(seen, fork.size)},
    )
    error = refusal(lambda: parties.site_logs("north").take_ending(forged.encode()))
    assert error.code == "evidence.log_inconsistent"
    fork.close()


def test_another_statement_of_the_hub_is_no_ending(parties: Federation, clock: Clock) -> None:
    parties.run()
    parties.writers["hub"].close("completed")
    good = decode_ending(shown_ending(parties, "north"))
    log, head = parties.logs["hub"], good.extract.checkpoint
    before = log.proven(head, head.size - 2, head.size - 1)
    (closing,) = good.extract.entries
    of_north = parties.writers["north"].write(
        Violation, [Subject("x", sha256_hex(b"x"))], rule="r", detail="d", artifact_sha256=None
    )
    foreign = replace(closing, envelope=of_north.envelope)
    for entries in ((), before, (*before, closing), (foreign,)):
        shown = replace(good, extract=replace(good.extract, entries=entries))
        code = refusal(lambda shown=shown: parties.site_logs("north").take_ending(shown.encode())).code  # type: ignore[misc]
        assert code.startswith("evidence.")
    assert parties.site_logs("north").take_ending(good.encode()).size == head.size
    other = next_job(parties, clock)
    code = refusal(lambda: other.site_logs("north").take_ending(good.encode())).code
    assert code == "evidence.statement_refused"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"extract":{},"proofs":{}}'])
def test_an_ending_of_another_form_is_a_bad_task(parties: Federation, data: bytes) -> None:
    assert refusal(lambda: parties.site_logs("north").take_ending(data)).code == "federation.bad_task"


def shown_ending(parties: Federation, *sites: str) -> bytes:
    shown = parties.hub_logs()
    for site in sites:
        shown.site_has_seen(site, parties.site_logs(site).hub_size())
    return shown.show_ending(sites)


def next_job(parties: Federation, clock: Clock) -> Federation:
    later = Federation(
        JOB.model_copy(update={"job_id": "00000000-0000-4000-8000-000000000002"}), parties.directory, clock
    )
    later.signers, later.vendor = parties.signers, parties.vendor
    later.logs.update(parties.logs)
    later.ledgers.update(parties.ledgers)
    later.limits = {site: [] for site in JOB.clients}
    return later


@pytest.mark.parametrize("signer", ["north", "south"])
def test_a_head_that_the_hub_did_not_sign_is_refused(parties: Federation, signer: str) -> None:
    site = parties.site("north")
    forged = sign_checkpoint(HUB, 5, bytes(range(32)), parties.signers[signer])
    task = hub_log_of(parties.task(0, START), checkpoint=forged)
    assert refusal(lambda: site.train_round(task, proceed)).code == "evidence.checkpoint_unsigned"
    assert parties.site_logs("north").hub_size() == 0


def test_a_head_of_another_log_is_refused(parties: Federation) -> None:
    site = parties.site("north")
    other = sign_checkpoint("cloister/hub/other", 5, bytes(range(32)), parties.signers["hub"])
    task = hub_log_of(parties.task(0, START), checkpoint=other)
    assert refusal(lambda: site.train_round(task, proceed)).code == "evidence.checkpoint_unsigned"


def test_a_task_without_the_proof_for_this_site_is_refused(parties: Federation) -> None:
    site = parties.site("north")
    site.release(0, site.train_round(parties.task(0, START), proceed))
    task = hub_log_of(parties.task(1, START), proofs={})
    assert refusal(lambda: site.train_round(task, proceed)).code == "evidence.log_inconsistent"


GOOD = HubLog(
    sign_checkpoint(HUB, 3, bytes(32), EphemeralKeyStore().generate("hub")),
    {2: (bytes(32),)},
    {"north": sign_checkpoint(NORTH, 4, bytes(32), EphemeralKeyStore().generate("north"))},
)


@pytest.mark.parametrize(
    "change",
    [
        {"held": []},
        {"held": {"north": 4}},
        {"held": {"north": "4"}},
        {"held": {"north": None}},
        {"proofs": {"9223372036854775808": []}},
        {"proofs": {"02": []}},
        {"proofs": {"-2": []}},
        {"proofs": {"\u0662": []}},
        {"proofs": {"2": ["AA"]}},
        {"proofs": {"2": "AAAA"}},
        {"proofs": {"2": [7]}},
        {"proofs": {"2": ["A" * 43 + "="] * 64}},
        {"checkpoint": "nothing"},
        {"checkpoint": None},
        {"extra": 1},
    ],
)
def test_a_message_of_another_form_is_a_bad_task(change: dict[str, object]) -> None:
    value = parse(GOOD.encode())
    assert decode_hub_log(GOOD.encode()) == GOOD
    assert isinstance(value, dict)
    error = refusal(lambda: decode_hub_log(canonicalize({**value, **change})))  # type: ignore[dict-item]
    assert error.code == "federation.bad_task"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", GOOD.encode() + b"\n", b" " + GOOD.encode()])
def test_a_message_with_another_spelling_is_a_bad_task(data: bytes) -> None:
    assert refusal(lambda: decode_hub_log(data)).code == "federation.bad_task"


# A site's log, as the hub sees it


def answer(parties: Federation, hub_holds: int = 0) -> bytes:
    log = parties.logs["north"]
    if log.size == 0:
        parties.writers["north"].close("failed")
    proof = log.consistency_proof(hub_holds, log.size) if hub_holds else ()
    return Continuation(hub_holds, proof, log.checkpoint()).encode().encode()


def test_a_sites_log_is_taken_and_stated_once_its_update_is_used(parties: Federation) -> None:
    logs = parties.hub_logs()
    logs.take("north", answer(parties))
    assert parties.hub_book().newest(NORTH) == parties.logs["north"].checkpoint()
    assert parties.statements("hub") == []
    logs.state(0, ["north", "south"])
    (stated,) = (one.predicate for one in parties.statements("hub"))
    assert isinstance(stated, CheckpointHeld)
    assert [part.origin for part in stated.held] == [NORTH]


@pytest.mark.parametrize("message", [b"", b"\xff", b"old 0\n\nnothing\n", b"old 9\n"])
def test_an_answer_without_a_log_in_order_is_not_used(parties: Federation, message: bytes) -> None:
    assert refusal(lambda: parties.hub_logs().take("north", message)).code == "federation.bad_log"


def test_a_site_cannot_answer_with_another_sites_log(parties: Federation) -> None:
    message = answer(parties)
    assert refusal(lambda: parties.hub_logs().take("south", message)).code == "federation.bad_log"


def test_a_site_that_rewrote_its_log_is_out_and_the_job_goes_on(parties: Federation) -> None:
    """North answers the second round with a log of its own making: signed by its key, with another past."""
    sites = {name: parties.newcomer(name) for name in JOB.clients}
    release = sites["north"].release

    def rewrite(number: int, update: object):  # type: ignore[no-untyped-def]
        released = release(number, update)  # type: ignore[arg-type]
        if number == 0:
            return released
        log = forked(parties, "north")
        held = parties.hub_book().newest(NORTH)
        assert held is not None
        proof = log.consistency_proof(held.size, log.size)
        return replace(released, site_log=Continuation(held.size, proof, log.checkpoint()).encode().encode())

    sites["north"].release = rewrite  # type: ignore[assignment, method-assign]
    result = run_with(parties, sites)
    assert [record.sites for record in result.rounds] == [
        ("north", "south", "west"),
        ("south", "west"),
        ("south", "west"),
    ]
    assert [(one.site, one.round, one.code) for one in result.failures] == [
        ("north", 1, "federation.bad_log")
    ]
    violations = [one.predicate for one in parties.statements("hub") if isinstance(one.predicate, Violation)]
    assert [one.rule for one in violations] == ["federation.bad_log"]
    assert len(parties.hub_book().unproven(NORTH)) == 1


def test_a_hub_that_shows_a_split_view_loses_the_sites_that_notice(parties: Federation) -> None:
    """In the second round the hub shows all sites a log with another past; they refuse, and the job ends."""
    hub = parties.hub()
    started = hub.round_started

    def split(number: int, sites: tuple[str, ...]) -> bytes:
        shown = started(number, sites)
        if number == 0:
            return shown
        head = decode_hub_log(shown).checkpoint
        forged = sign_checkpoint(head.origin, head.size, bytes(range(32)), parties.signers["hub"])
        return replace(decode_hub_log(shown), checkpoint=forged).encode()

    hub.round_started = split  # type: ignore[assignment, method-assign]
    sites = {name: parties.newcomer(name) for name in JOB.clients}
    error = refusal(lambda: run_with(parties, sites, hub))
    assert isinstance(error, RefusalError)
    assert error.code == "federation.sites_refused"
    for site in JOB.clients:
        stated = [one.predicate for one in parties.statements(site)]
        assert sum(isinstance(one, BudgetSpend) for one in stated) == 1
        assert isinstance(stated[-1], Violation)
        assert stated[-1].rule == "evidence.log_inconsistent"


def run_with(parties: Federation, sites: object, hub: object = None) -> FederationResult:
    from cloister.federation import LocalBackend, compile_job

    backend = LocalBackend(parties.directory)
    return backend.run(JOB, compile_job(JOB), hub or parties.hub(), sites)  # type: ignore[arg-type]


def test_many_sites_are_stated_in_several_statements(tmp_path: Path, clock: Clock) -> None:
    names = [f"site-{number}" for number in range(40)]
    parties = Federation(a_job(clients=names), tmp_path, clock)
    logs = parties.hub_logs()
    for name in names:
        parties.writers[name].close("failed")
        logs.take(name, Continuation(0, (), parties.logs[name].checkpoint()).encode().encode())
    logs.state(0, names)
    assert [len(one.predicate.held) for one in parties.statements("hub")] == [32, 8]  # type: ignore[attr-defined]
    parties.close()


def test_a_site_that_claims_to_have_seen_more_than_there_is_gets_no_proof(parties: Federation) -> None:
    parties.writers["hub"].close("failed")
    logs = parties.hub_logs()
    logs.site_has_seen("north", 10_000)
    assert decode_hub_log(logs.show(["north"])).proofs == {}
    logs.site_has_seen("north", -3)
    assert decode_hub_log(logs.show(["north"])).proofs == {}
