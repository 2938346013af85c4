"""Two endings of one job in one log of the hub: one head, which witnesses have seen, and both are in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.artifacts import Demands, verify_artifact
from cloister.evidence.checkpoint import cosign
from cloister.evidence.checks import CheckRegistry
from cloister.evidence.envelope import decode_envelope, sign_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract
from cloister.evidence.log import export_tiles
from cloister.evidence.predicates import Evaluation, HubEnding, Role, RoundAggregated, UpdateReleased
from cloister.evidence.scoring import improvement_score
from cloister.evidence.statement import PAYLOAD_TYPE, open_statement, sign_statement
from cloister.evidence.trust import Trust, TrustEntry
from cloister.evidence.verification.chains import Chains
from cloister.evidence.verifier import Verdict, VerificationPolicy, Verifier, model_artifact
from cloister.evidence.witness.links import consistency_links
from tests.evidence.attacks.edits import detail
from tests.evidence.log.places import any_place
from tests.evidence.synthetic import (
    BASELINE,
    HUB,
    MODEL,
    RECORDS,
    START,
    Seat,
    SyntheticJob,
    failing,
    plugged,
    taken,
    through,
)

WITNESS = EphemeralKeyStore().generate("east")
BETTER = (RECORDS - 3) / RECORDS
Shown = Callable[[str, HubEnding], HubEnding | None]


@dataclass
class Forked:
    """A job whose hub wrote its end twice: in its chain, and again under another label of the same log."""

    job: SyntheticJob
    seats: dict[str, Seat]
    first: LogExtract
    second: LogExtract

    def receipt(self, of_hub: LogExtract) -> bytes:
        """The hub's receipt with one of its endings; every log's head is cosigned by the witness."""
        sites = [self.seats[site].log.extract(self.job.job_id) for site in self.job.sites]
        extracts = [cosigned(one) for one in (of_hub, *sites)]
        logs = {seat.log.origin: seat.log for seat in self.seats.values()}
        links = consistency_links(
            {one.origin: one for one in extracts},
            lambda origin, old, new: logs[origin].consistency_proof(old, new),
        )
        return self.job.careless_receipt(extracts=extracts, consistency=links)

    def verdict(self, of_hub: LogExtract) -> Verdict:
        """The verdict of a party that asks for the witness."""
        keys = self.job.trust
        pinned = [
            TrustEntry(role, party, keys.key(role, party).pem.encode())
            for role in (Role.HUB, Role.DEVELOPER, Role.SITE, Role.HOSPITAL)
            for party in keys.parties(role)
        ]
        trust = Trust([*pinned, TrustEntry(Role.WITNESS, "east", WITNESS.public_key.pem.encode())])
        verifier = Verifier(trust, plugged(), VerificationPolicy(witnesses=1))
        return verifier.verify(self.receipt(of_hub), model_artifact(MODEL))


def cosigned(extract: LogExtract) -> LogExtract:
    head = cosign(extract.checkpoint, "east", WITNESS, START + timedelta(minutes=59))
    return replace(extract, checkpoint=head)


def forked(stack: ExitStack, folder: Path, shown: Shown) -> Forked:
    """Play a job up to its end; let the hub end it twice, and show each site what `shown` says."""
    job = SyntheticJob(folder)
    stack.enter_context(any_place())
    hub = stack.enter_context(Seat(job, Role.HUB, HUB, HUB))
    seats = {site: stack.enter_context(Seat(job, Role.SITE, site, site)) for site in job.sites}
    of_hub, todo = job.hub_steps(), {site: job.site_steps(site) for site in job.sites}
    hub.state(taken(of_hub, next(n for n, one in enumerate(of_hub) if one[0] is RoundAggregated)))
    for number in range(job.rounds):
        for site, seat in seats.items():
            if number == 0:
                seat.state(taken(todo[site], 3))
            seat.hold(number, [hub])
            seat.state(taken(todo[site], through(todo[site], UpdateReleased, number)))
        hub.hold(number, list(seats.values()))
        hub.state(taken(of_hub, through(of_hub, RoundAggregated, number)))
    common = hub.log.length(job.job_id)
    hub.state(of_hub)
    ending = hub.end()
    first = hub.log.extract(job.job_id)
    end_again(hub, first, common)
    for site, seat in seats.items():
        seat.state(todo[site])
        seat.writer.close("completed", hub_ending=shown(site, ending))
    first, label = hub.log.extract(job.job_id), hub.log.extract("second-ending")
    second = replace(first, entries=first.entries[:common] + label.entries)
    return Forked(job, {HUB: hub, **seats}, first, second)


def end_again(hub: Seat, first: LogExtract, common: int) -> None:
    """Sign all that followed the last round once more, with a better figure, as another stream of the log."""
    previous = first.entries[common - 1].envelope.payload_sha256
    for position, entry in enumerate(first.entries[common:]):
        statement = open_statement(entry.envelope)
        fields: dict[str, object] = {"previous": previous}
        if isinstance(statement.predicate, Evaluation):
            fields |= {"value": BETTER, "improvement_score": improvement_score(BETTER, BASELINE)}
        again = replace(statement, predicate=statement.predicate.model_copy(update=fields))
        envelope = sign_statement(again, hub.signer)
        hub.log.append(envelope, stream="second-ending", position=position)
        previous = envelope.payload_sha256


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_of_two_endings_in_one_witnessed_log_only_the_one_that_the_sites_state_is_accepted(
    stack: ExitStack, tmp_path: Path
) -> None:
    """The witness is right about both receipts: they are of one log with one head."""
    hub = forked(stack, tmp_path, lambda _, ending: ending)
    assert hub.first.checkpoint == hub.second.checkpoint
    assert hub.verdict(hub.first).accepted
    refused = hub.verdict(hub.second)
    assert failing(refused) == {"statements-complete"}
    assert "north: it states another ending of the hub than the one here" in detail(
        refused, "statements-complete"
    )


def test_who_sees_the_whole_log_sees_both_endings(stack: ExitStack, tmp_path: Path) -> None:
    """Each entry is genuine, and under a head that the witness cosigned; but a job has one chain."""
    hub = forked(stack, tmp_path, lambda _, ending: ending)
    logs = {name: seat.log for name, seat in hub.seats.items()}
    verdicts = {}
    for name, log in logs.items():
        export_tiles(log, tmp_path / f"tiles-{name}")
        verdicts[name] = verify_artifact(tmp_path / f"tiles-{name}", hub.job.trust, Demands(), CheckRegistry)
    assert verdicts["north"].accepted
    assert [one.id for one in verdicts[HUB].failures] == ["statement-chains"]
    assert f"of job {hub.job.job_id} is there a second time" in verdicts[HUB].failures[0].detail


def statement(job_id: str, sequence: int, previous: str | None) -> bytes:
    """An entry that is a statement, as far as its chain is concerned."""
    payload: dict[str, JSON] = {
        "predicate": {"job_id": job_id, "sequence": sequence, "previous": previous, "text": "x"}
    }
    return sign_envelope(PAYLOAD_TYPE, canonicalize(payload), WITNESS).encode()


def told(*entries: bytes) -> str:
    chains = Chains()
    for index, entry in enumerate(entries):
        chains.visit(index, entry)
    return chains.check().detail


def test_chains_of_several_jobs_may_lie_between_each_other_and_between_anything_else() -> None:
    first = statement("a", 0, None)
    after = sha256_hex(decode_envelope(first).payload)
    other = sign_envelope("text/plain", b"no statement", WITNESS).encode()
    entries = (first, other, statement("b", 0, None), b"", b"[1]", statement("a", 1, after))
    assert told(*entries) == "3 statements in 2 unbroken chains"


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (statement("a", 0, None), "entry 1: statement 0 of job a is there a second time"),
        (statement("a", 1, "0" * 64), "entry 1: it doesn't follow the statement of job a before it"),
        (statement("a", 2, None), "entry 1: it doesn't follow the statement of job a before it"),
        (statement("b", 1, None), "entry 1: it doesn't follow the statement of job b before it"),
        (sign_envelope(PAYLOAD_TYPE, b"{}", WITNESS).encode(), "can't be read as one"),
        (sign_envelope(PAYLOAD_TYPE, b"\xff", WITNESS).encode(), "can't be read as one"),
    ],
)
def test_what_doesnt_follow_in_its_chain_is_told(second: bytes, problem: str) -> None:
    assert problem in told(statement("a", 0, None), second)


def test_a_hub_that_shows_two_sites_two_endings_has_no_receipt(stack: ExitStack, tmp_path: Path) -> None:
    other = HubEnding(statement_sha256="f" * 64, origin="cloister/hub/hub-one", size=1, root="f" * 64)
    hub = forked(stack, tmp_path, lambda site, ending: ending if site == "north" else other)
    for one in (hub.first, hub.second):
        assert "statements-complete" in failing(hub.verdict(one))


def test_a_hub_that_shows_no_ending_has_no_receipt(stack: ExitStack, tmp_path: Path) -> None:
    hub = forked(stack, tmp_path, lambda site, ending: None if site == "north" else ending)
    verdict = hub.verdict(hub.first)
    assert failing(verdict) == {"statements-complete"}
    assert "north: it completed the job, and doesn't state how the hub ended it" in detail(
        verdict, "statements-complete"
    )
    with pytest.raises(EvidenceError) as refused:
        hub.job.receipt(
            extracts=[hub.first, *(hub.seats[site].log.extract(hub.job.job_id) for site in hub.job.sites)]
        )
    assert refused.value.code == "evidence.statement_missing"


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ({"size": 3}, "statements-complete"),
        ({"origin": "cloister/site/south", "size": 3}, "statements-complete"),
        ({"root": "0" * 64}, "log-consistency"),
    ],
)
def test_an_ending_stated_of_another_log_size_or_root_is_refused(
    stack: ExitStack, tmp_path: Path, wrong: dict[str, object], check: str
) -> None:
    hub = forked(stack, tmp_path, lambda _, ending: ending.model_copy(update=wrong))
    assert check in failing(hub.verdict(hub.first))
