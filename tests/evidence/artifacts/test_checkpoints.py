"""A checkpoint on its own: what its verdict says, for good ones and for every kind of bad one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from cloister.core.keys import Signer
from cloister.evidence import Trust, TrustEntry
from cloister.evidence.artifacts import ArtifactVerdict, Demands, find_kind, verify_artifact
from cloister.evidence.checkpoint import Checkpoint, cosign, sign_checkpoint
from cloister.evidence.checks import CheckRegistry, Outcome
from cloister.evidence.predicates import Role
from tests.conftest import START
from tests.evidence.pki.scene import Scene

ORIGIN = "cloister/site/north"
WHEN = datetime(2026, 11, 21, tzinfo=UTC)
ROOT, OTHER_ROOT = b"\x01" * 32, b"\x02" * 32

Sign = Callable[[str], Signer]


class Parties:
    """A site with a log and two witnesses, all pinned."""

    def __init__(self, new_signer: Sign) -> None:
        self.site, self.near, self.far = map(new_signer, ("site", "near", "far"))
        self.trust = Trust(
            TrustEntry(role, party, signer.public_key.pem.encode())
            for role, party, signer in (
                (Role.SITE, "north", self.site),
                (Role.WITNESS, "near", self.near),
                (Role.WITNESS, "far", self.far),
            )
        )

    def head(self, size: int = 7, root: bytes = ROOT) -> Checkpoint:
        return sign_checkpoint(ORIGIN, size, root, self.site)

    def judge(self, note: str, demands: Demands | None = None) -> ArtifactVerdict:
        return verify_artifact(note.encode(), self.trust, demands or Demands(), CheckRegistry)


@pytest.fixture
def parties(new_signer: Sign) -> Parties:
    return Parties(new_signer)


def outcomes(verdict: ArtifactVerdict) -> dict[str, str]:
    return {check.id: check.outcome.value for check in verdict.checks}


def test_a_good_checkpoint_is_accepted_and_says_what_it_is_of(parties: Parties) -> None:
    verdict = parties.judge(parties.head().encode())
    assert verdict.accepted
    assert verdict.facts == {"log": ORIGIN, "entries": "7", "root": ROOT.hex()}


def test_a_checkpoint_that_another_key_signed_is_refused(parties: Parties) -> None:
    forged = sign_checkpoint(ORIGIN, 7, ROOT, parties.near)
    assert outcomes(parties.judge(forged.encode()))["checkpoint-signature"] == "failed"


def test_a_checkpoint_with_another_size_than_was_signed_is_refused(parties: Parties) -> None:
    note = parties.head().encode().replace("\n7\n", "\n8\n")
    assert outcomes(parties.judge(note))["checkpoint-signature"] == "failed"


@pytest.mark.parametrize("origin", ["cloister/site/south", "cloister/auditor/north", "elsewhere"])
def test_a_checkpoint_of_a_log_whose_owner_is_not_pinned_is_refused(origin: str, parties: Parties) -> None:
    note = sign_checkpoint(origin, 7, ROOT, parties.site).encode()
    assert outcomes(parties.judge(note))["checkpoint-signature"] == "failed"


@pytest.mark.parametrize("damage", ["\n", " ", "\u2014 x AAAA\n"])
def test_a_checkpoint_has_one_spelling(damage: str, parties: Parties) -> None:
    verdict = parties.judge(parties.head().encode() + damage)
    assert outcomes(verdict) == {
        "canonical-form": "failed",
        "checkpoint-signature": "not_run",
        "witnesses": "not_run",
    }


@pytest.mark.parametrize(("wanted", "accepted"), [(None, True), (0, True), (1, True), (2, False)])
def test_as_many_pinned_witnesses_as_are_wanted_must_have_cosigned(
    wanted: int | None, accepted: bool, parties: Parties
) -> None:
    note = cosign(parties.head(), "near", parties.near, WHEN).encode()
    assert parties.judge(note, Demands(witnesses=wanted)).accepted is accepted


def test_one_witness_that_signs_twice_counts_once(parties: Parties) -> None:
    once = cosign(parties.head(), "near", parties.near, WHEN)
    stranger = cosign(once, "far", parties.near, WHEN)
    assert not parties.judge(stranger.encode(), Demands(witnesses=2)).accepted


def test_a_line_that_claims_to_be_a_pinned_witness_must_hold_though_none_is_wanted(parties: Parties) -> None:
    other = cosign(parties.head(8), "near", parties.near, WHEN)
    mixed = Checkpoint(ORIGIN, 7, ROOT, (), (parties.head().signatures[0], other.signatures[1]))
    assert outcomes(parties.judge(mixed.encode()))["witnesses"] == "failed"


def test_two_roots_over_as_many_entries_are_found_with_the_checkpoint_held(parties: Parties) -> None:
    held = parties.head(root=OTHER_ROOT).encode()
    verdict = parties.judge(parties.head().encode(), Demands(held=(held.encode(),)))
    assert outcomes(verdict)["held-checkpoints"] == "failed"
    assert "split view" in verdict.failures[0].detail


@pytest.mark.parametrize(
    ("held", "outcome"),
    [
        (lambda p: p.head().encode(), Outcome.PASSED),
        (lambda p: p.head(6).encode(), Outcome.NOT_RUN),
        (lambda p: sign_checkpoint("cloister/site/south", 7, ROOT, p.site).encode(), Outcome.FAILED),
        (lambda p: sign_checkpoint(ORIGIN, 7, ROOT, p.near).encode(), Outcome.FAILED),
        (lambda p: "nothing", Outcome.FAILED),
    ],
)
def test_what_is_held_must_be_of_this_log_and_comparable(
    held: Callable[[Parties], str], outcome: Outcome, parties: Parties
) -> None:
    verdict = parties.judge(parties.head().encode(), Demands(held=(held(parties).encode(),)))
    assert verdict.checks[-1].outcome is outcome
    assert verdict.accepted is (outcome is Outcome.PASSED)


@pytest.mark.parametrize(
    ("at", "accepted"),
    [(START, True), (START + timedelta(days=29), True), (START + timedelta(days=31), False), (None, False)],
)
def test_an_owner_who_is_certified_is_believed_for_a_time(at: datetime | None, accepted: bool) -> None:
    scene = Scene()
    note = sign_checkpoint(ORIGIN, 7, ROOT, scene.site_key).encode().encode()
    demands = Demands(certificates=(scene.chain().encode(),), at=at)
    verdict = verify_artifact(note, scene.trust(), demands, CheckRegistry)
    assert verdict.accepted is accepted
    assert not verify_artifact(note, scene.trust(), Demands(at=at), CheckRegistry).accepted


def test_what_is_no_certificate_refuses_the_checkpoint(parties: Parties) -> None:
    verdict = parties.judge(parties.head().encode(), Demands(certificates=(b"nothing",)))
    assert outcomes(verdict)["checkpoint-signature"] == "failed"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 100, b"cloister/site/north\n7\n", b"[" * 10_000])
def test_bytes_that_are_no_evidence_are_of_no_kind(data: bytes) -> None:
    assert find_kind(data) is None
