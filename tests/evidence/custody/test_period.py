"""Attacks on the completeness of a period: an owner dates its own entries, so only others bound it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from cloister.core.clock import format_time
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence import EvidenceError, Role, StatementWriter, Subject, Trust, TrustEntry
from cloister.evidence.checkpoint import Checkpoint, cosign
from cloister.evidence.checks import Check, Outcome
from cloister.evidence.custody import BundleVerdict, Outside, export, finding, verify_bundle
from cloister.evidence.custody.bounds import OWNERS_WORD
from cloister.evidence.custody.bundle import IndexRange
from cloister.evidence.custody.dating import DatedLog
from cloister.evidence.custody.finding import Shown
from cloister.evidence.custody.shown import Range
from cloister.evidence.merkle import verify_consistency
from cloister.evidence.predicates import CheckpointHeld, UpdateReleased
from cloister.evidence.predicates.log import to_be_held
from tests.evidence.custody.house import JOB, OTHER_JOB, START, House, export_id

NORTH = "cloister/site/north"
DECOY_JOB = "aaaaaaaa-2222-4333-8444-555555555555"
CLEAN_JOB = "bbbbbbbb-2222-4333-8444-555555555555"
ACCEPTING = Outside(owners_word=True)


@pytest.fixture
def witness() -> Signer:
    """A witness's key."""
    return EphemeralKeyStore().generate("witness")


def pinned(house: House, witness: Signer) -> Trust:
    """The parties' keys and the witness's."""
    return Trust([*house.trust_entries, TrustEntry(Role.WITNESS, "w", witness.public_key.pem.encode())])


def seen(house: House, witness: Signer, seconds: float, party: str = "north") -> Checkpoint:
    """A party's head, as the witness saw it at a time."""
    return cosign(house.logs[party].checkpoint(), "w", witness, START + timedelta(seconds=seconds))


def note(head: Checkpoint) -> bytes:
    return head.encode().encode()


def period(verdict: BundleVerdict) -> Check:
    """The check of a verdict that this is about."""
    (found,) = (one for one in verdict.checks if one.id == "period")
    return found


def refused(verdict: BundleVerdict) -> dict[str, Outcome]:
    return {one.id: one.outcome for one in verdict.failures}


def show_only(monkeypatch: pytest.MonkeyPatch, span: tuple[int, int], shown: tuple[int, int]) -> None:
    """Let an exporter choose what it shows, whatever the log says."""
    monkeypatch.setattr(DatedLog, "span", lambda *_: IndexRange(start=span[0], end=span[1]))
    monkeypatch.setattr(export, "what_to_show", lambda *_: Shown(*shown, ()))


def violations(house: House, count: int = 10, party: str = "north") -> None:
    for number in range(count):
        house.state(party, detail=f"violation {number}")


# Before the period


def decoyed(house: House, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An export that hides all of a period behind one entry dated before it, with a clean history after."""
    violations(house)
    house.seconds = 10_000
    house.forge("north", -100, DECOY_JOB, "decoy")
    house.forge("north", 100, CLEAN_JOB, "a harmless event")
    show_only(monkeypatch, span=(11, 12), shown=(10, 13))
    return house.export(house.of_period(-50, 5000), "north", ())


def test_a_period_can_not_be_hidden_behind_an_entry_that_was_dated_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = verify_bundle(decoyed(house, monkeypatch), house.trust)
    assert refused(verdict) == {"period": Outcome.NOT_RUN}
    assert "the 10 before them" in period(verdict).detail
    assert OWNERS_WORD in period(verdict).detail


def test_what_only_the_owner_says_is_accepted_on_demand_and_called_that(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = verify_bundle(decoyed(house, monkeypatch), house.trust, ACCEPTING)
    assert verdict.accepted
    assert verdict.owners_word
    assert period(verdict).detail.startswith(f"{OWNERS_WORD}, which was accepted")


def test_a_head_seen_within_the_period_does_not_bound_what_is_before_it(
    house: House, monkeypatch: pytest.MonkeyPatch, witness: Signer
) -> None:
    violations(house)
    true = seen(house, witness, 20)
    house.seconds = 10_000
    house.forge("north", -100, DECOY_JOB)
    house.forge("north", 100, CLEAN_JOB)
    late = seen(house, witness, 10_001)
    show_only(monkeypatch, span=(11, 12), shown=(10, 13))
    bundle = house.export(house.of_period(-50, 5000), "north", ())
    for held in ((true,), (late,), (true, late)):
        outside = Outside(held=tuple(note(one) for one in held))
        assert "period" in refused(verify_bundle(bundle, pinned(house, witness), outside))


def test_a_writer_dates_nothing_before_what_the_log_holds(house: House) -> None:
    house.seconds = 1000
    house.state("north")
    house.seconds = 0
    house.state("north", OTHER_JOB)
    house.state("north", DECOY_JOB)
    found = DatedLog(house.logs["north"], 3).times(0, 3)
    assert found == sorted(found)
    assert found[0] == house.moment(1001)


def test_a_clock_a_day_behind_the_log_writes_nothing(house: House) -> None:
    house.forge("north", 30 * 86_400)
    with pytest.raises(EvidenceError, match="the clock here says") as refusal:
        house.state("north", OTHER_JOB)
    assert refusal.value.code == "evidence.statement_refused"
    assert house.logs["north"].size == 1


def test_an_entry_dated_back_shows_in_any_export_that_covers_it(house: House) -> None:
    violations(house)
    house.seconds = 10_000
    house.forge("north", -100, DECOY_JOB)
    bundle = house.export(house.of_period(-5000, 5000), "north", ())
    assert "statement-order" in refused(verify_bundle(bundle, house.trust, ACCEPTING))


# After the period


def postdated(house: House, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An export that ends before an entry dated after the period, behind which the period goes on."""
    violations(house, 3)
    house.forge("north", 6000, DECOY_JOB, "decoy")
    for number in range(3):
        house.forge("north", 20 + number, CLEAN_JOB, f"hidden {number}")
    house.seconds = 10_000
    show_only(monkeypatch, span=(0, 3), shown=(0, 4))
    return house.export(house.of_period(-50, 5000), "north", ())


def test_a_period_can_not_be_cut_short_by_an_entry_that_was_dated_ahead(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = verify_bundle(postdated(house, monkeypatch), house.trust)
    assert refused(verdict) == {"period": Outcome.NOT_RUN}
    assert "the 4 after them" in period(verdict).detail


def test_a_head_seen_within_the_period_shows_what_is_left_out_of_it_even_on_the_owners_word(
    house: House, monkeypatch: pytest.MonkeyPatch, witness: Signer
) -> None:
    bundle = postdated(house, monkeypatch)
    held = note(seen(house, witness, 60))
    verdict = verify_bundle(bundle, pinned(house, witness), Outside(held=(held,), owners_word=True))
    assert refused(verdict) == {"period": Outcome.FAILED}
    assert "from entry 4 on they are left out" in period(verdict).detail


# What bounds a period


def long_lived(house: House, witness: Signer) -> tuple[Checkpoint, Checkpoint]:
    """A log with entries before, in and after a period, and what a witness saw before and after it."""
    violations(house, 3)
    before = seen(house, witness, 90)
    house.seconds = 100
    violations(house, 4)
    after = seen(house, witness, 210)
    house.seconds = 300
    violations(house, 5)
    house.seconds = 1000
    return before, after


def test_a_witness_bounds_a_period_on_both_sides(
    house: House, witness: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FEW", 0)
    notes = long_lived(house, witness)
    bundle = house.export(house.of_period(100, 200), "north", (), notes=notes)
    verdict = verify_bundle(bundle, pinned(house, witness))
    assert verdict.accepted, verdict.failures
    assert not verdict.owners_word
    assert verdict.record is not None
    assert len(verdict.record.selected) == 4
    assert "witness w saw 3 entries" in period(verdict).detail
    assert "none was shown when witness w saw 7 entries" in period(verdict).detail
    assert refused(verify_bundle(bundle, house.trust)) == {"period": Outcome.NOT_RUN}


def test_heads_that_the_verifier_kept_bound_a_period_as_well(
    house: House, witness: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FEW", 0)
    notes = long_lived(house, witness)
    bundle = house.export(house.of_period(100, 200), "north", ())
    assert "period" in refused(verify_bundle(bundle, pinned(house, witness)))
    outside = Outside(held=tuple(map(note, notes)))
    assert verify_bundle(bundle, pinned(house, witness), outside).accepted


def test_a_cosignature_that_was_dated_otherwise_bounds_nothing(house: House, witness: Signer) -> None:
    before, _ = long_lived(house, witness)
    own, cosignature = before.signatures
    forged = Checkpoint(
        before.origin,
        before.size,
        before.root,
        (),
        (own, type(own)("w", cosignature.key_hash, (1).to_bytes(8, "big") + cosignature.sig[8:])),
    )
    bundle = house.export(house.of_period(80, 200), "north", (), notes=[forged])
    assert refused(verify_bundle(bundle, pinned(house, witness))) == {"period": Outcome.NOT_RUN}


def hold(house: House, holder: str, job: str, owner: str) -> None:
    """Let a party state which head of a log it holds: a hub by itself, a site with an update."""
    held = to_be_held(house.logs[owner].checkpoint())
    writer = StatementWriter(house.logs[holder], house.keys[holder], holder, job, house.clock)
    if holder == "hub":
        writer.write(CheckpointHeld, [Subject(held.origin, held.root)], round=0, held=[held])
        return
    writer.write(
        UpdateReleased,
        [Subject("update", held.root)],
        round=0,
        hub_log=held,
        model_sha256="0" * 64,
        update_sha256="1" * 64,
        tensors=[{"name": "weight", "shape": [3], "dtype": "float32"}],
        scalars=[],
        bytes=12,
        airlock_policy_sha256="2" * 64,
        manifest_sha256="3" * 64,
        attested_key_id="sha256:" + "4" * 64,
        max_bytes=12,
        mantissa_bits=23,
        bits=96,
        max_bits=None,
        change=None,
        constraints=["listed-tensors"],
    )


@pytest.mark.parametrize(
    ("owner", "holder", "told"), [("north", "hub", "hub hub"), ("hub", "north", "site north")]
)
def test_what_one_party_states_that_it_held_bounds_a_period_of_anothers_log(
    house: House, monkeypatch: pytest.MonkeyPatch, owner: str, holder: str, told: str
) -> None:
    monkeypatch.setattr(finding, "FEW", 0)
    violations(house, 3, owner)
    hold(house, holder, JOB, owner)
    house.seconds = 100
    violations(house, 4, owner)
    house.seconds = 210
    hold(house, holder, OTHER_JOB, owner)
    house.seconds = 300
    violations(house, 5, owner)
    house.seconds = 1000
    alone = house.export(house.of_period(100, 200), owner, ())
    assert refused(verify_bundle(alone, house.trust)) == {"period": Outcome.NOT_RUN}
    verdict = verify_bundle(house.export(house.of_period(100, 200), holder, (owner,)), house.trust)
    origin = house.logs[owner].origin
    assert f"{origin}: entries 2 to 7" in period(verdict).detail
    assert f"{told} (as it states in its log) saw 3 entries" in period(verdict).detail
    bounded = verdict.bounded[origin]
    assert bounded.before is not None
    assert bounded.after is not None


def test_an_owner_does_not_bound_its_own_log(house: House) -> None:
    violations(house, 3)
    hold(house, "north", DECOY_JOB, "north")
    house.seconds = 100
    violations(house, 4)
    house.seconds = 1000
    bundle = house.export(house.of_period(100, 200), "north", ())
    assert refused(verify_bundle(bundle, house.trust)) == {"period": Outcome.NOT_RUN}


# The exports before


def test_exports_for_one_recipient_continue_each_other_without_a_gap(house: House) -> None:
    violations(house, 3)
    house.seconds = 100
    first = house.export(house.of_period(-10, 50), "north", ())
    violations(house, 3)
    house.seconds = 300
    later = house.export(house.of_period(200, 290), "north", ())
    assert verify_bundle(first, house.trust).accepted
    assert refused(verify_bundle(later, house.trust)) == {"period": Outcome.NOT_RUN}
    verdict = verify_bundle(later, house.trust, Outside(previous=(first,)))
    assert verdict.accepted, verdict.failures
    assert f"what export {export_id(1)} shows from entry 0 on" in period(verdict).detail


def test_an_export_before_that_only_its_owner_bounds_bounds_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    violations(house)
    house.seconds = 10_000
    house.forge("north", -100, DECOY_JOB)
    with monkeypatch.context() as patched:
        show_only(patched, span=(11, 11), shown=(10, 11))
        staged = house.export(house.of_period(-90, -60), "north", ())
    house.forge("north", 100, CLEAN_JOB)
    size = house.logs["north"].size
    show_only(monkeypatch, span=(size - 1, size), shown=(11, size + 1))
    later = house.export(house.of_period(-60, 5000), "north", ())
    assert "period" in refused(verify_bundle(later, house.trust, Outside(previous=(staged,))))


def test_two_exports_that_show_two_pasts_of_a_log_are_found(house: House, tmp_path) -> None:
    violations(house, 3)
    house.seconds = 100
    first = house.export(house.of_period(-10, 50), "north", ())
    (tmp_path / "other").mkdir()
    with House(tmp_path / "other", keys=house.keys) as other:
        violations(other, 2)
        other.state("north", detail="another third")
        other.seconds = 100
        rewritten = other.export(other.of_period(-10, 60), "north", ())
    verdict = verify_bundle(rewritten, house.trust, Outside(previous=(first,), owners_word=True))
    assert refused(verdict) == {"period": Outcome.FAILED}
    assert "another past" in period(verdict).detail


# Times


def test_an_export_from_the_future_is_refused_by_whoever_has_a_clock(house: House) -> None:
    violations(house, 2)
    house.seconds = 4 * 365 * 86_400
    bundle = house.export(house.of_period(-10, house.seconds), "north", ())
    assert verify_bundle(bundle, house.trust).accepted
    verdict = verify_bundle(bundle, house.trust, Outside(now=START))
    assert set(refused(verdict)) == {"statement-order"}
    assert "later than it is by the clock here" in verdict.failures[0].detail


# Roots from what is shown


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 16, 21])
def test_the_root_at_any_size_in_a_shown_range_follows_from_the_entries(house: House, size: int) -> None:
    for number in range(size):
        house.forge("north", number, detail=f"{number}")
    log = house.logs["north"]
    head = log.checkpoint()
    for first in range(size):
        entries: Sequence = log.proven(head, first, size)
        shown = Range(type(log.extract(JOB))(NORTH, head, tuple(entries)))
        roots = shown.roots(range(size + 1))
        assert sorted(roots) == list(range(first, size + 1))
        for at, root in roots.items():
            assert root == log.root_at(at)
            if at:
                verify_consistency(at, size, log.consistency_proof(at, size), root, head.root)


def test_a_long_log_is_searched_by_halves(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(64):
        house.forge("north", number * 1000, detail=f"{number}")
    house.seconds = 100_000
    dated, read = DatedLog(house.logs["north"], 64), []
    times = DatedLog.times
    monkeypatch.setattr(
        DatedLog, "times", lambda self, low, high: read.append(high - low) or times(self, low, high)
    )
    span = dated.span(format_time(START + timedelta(seconds=30_000)), house.moment(33_500))
    assert (span.start, span.end) == (30, 34)
    assert sum(read) < 24
