"""Receipts dated back, and notes that nobody signed: what a date and a held checkpoint are worth."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.canonical import b64encode
from cloister.evidence.checkpoint import Checkpoint, NoteSignature, sign_checkpoint
from cloister.evidence.predicates import Role
from cloister.evidence.timestamp import attach_timestamp, request_timestamp
from cloister.evidence.trust import Trust, TrustEntry
from cloister.evidence.verification.acceptance import TimestampRule, VerificationPolicy
from cloister.evidence.verifier import COSTLY, Verdict, Verifier, model_artifact
from tests.evidence.attacks.edits import detail
from tests.evidence.attacks.test_certificates import BEFORE, DAY, House
from tests.evidence.authority import make_authority
from tests.evidence.synthetic import HUB, MODEL, START, SyntheticJob, failing, plugged, verify
from tests.evidence.witness.exchanging import ExchangingJob

HOUR = timedelta(hours=1)
ISSUED = START + HOUR
REQUIRED = VerificationPolicy(timestamp=TimestampRule.REQUIRED)


@pytest.fixture(scope="module")
def house(honest_job: SyntheticJob) -> House:
    return House(honest_job)


def certified(house: House, role: Role, party: str, until: datetime) -> dict[str, list[str]]:
    """Certificates of all, one of which expires at a time."""
    key = house.job.keys["hub" if role is Role.HUB else f"site-{party}"]
    one = house.chain(role, party, key, lifetime=until - BEFORE)
    return {**house.credentials(), f"{role.value}/{party}": [one]}


def judged(receipt: bytes, trust: Trust, policy: VerificationPolicy) -> Verdict:
    return Verifier(trust, plugged(), policy).verify(receipt, model_artifact(MODEL))


def test_a_receipt_dated_back_to_when_its_certificate_held_is_refused_where_a_timestamp_is_asked_for(
    house: House, tmp_path: Path
) -> None:
    """The hub's key signs today what its expired certificate covered; the authority says it was today."""
    authority = make_authority(tmp_path / "tsa")
    receipt = house.job.receipt(credentials=certified(house, Role.HUB, HUB, ISSUED + HOUR))
    stamped = attach_timestamp(receipt, authority.answer(request_timestamp(receipt)))
    trust = house.trust(pinned=[TrustEntry(Role.TSA, "authority", authority.root)])
    policy = replace(REQUIRED, timestamp_within=HOUR)
    verdict = judged(stamped, trust, policy)
    assert failing(verdict) == {"receipt-signature", "checkpoint-signature", "timestamp", *COSTLY}
    assert "too long after the receipt's date" in detail(verdict, "timestamp")


@pytest.fixture
def stamp(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """The times that an authority gives for a receipt's timestamps, one after the other."""
    times: list[datetime] = []
    monkeypatch.setattr(
        "cloister.evidence.verification.timestamps._verified_time",
        lambda response, *_: times[int(response)],
    )
    return times


def with_stamps(house: House, count: int, credentials: dict[str, list[str]]) -> bytes:
    receipt = house.job.receipt(credentials=credentials)
    stamps = b",".join(b'"%b"' % b64encode(b"%d" % number).encode() for number in range(count))
    return receipt.replace(b'"timestamps":[]', b'"timestamps":[%b]' % stamps)


@pytest.mark.parametrize(
    ("after", "within", "refused"),
    [
        (HOUR, DAY, set()),
        (DAY, DAY, set()),
        (DAY + HOUR, DAY, {"timestamp"}),
        (DAY + HOUR, 2 * DAY, set()),
        (20 * DAY, 30 * DAY, set()),
        (40 * DAY, 60 * DAY, {"receipt-signature", "checkpoint-signature", *COSTLY}),
        (-HOUR, DAY, {"timestamp"}),
    ],
)
def test_a_timestamp_that_is_asked_for_is_of_soon_after_and_the_certificates_held_then(
    house: House, stamp: list[datetime], after: timedelta, within: timedelta, refused: set[str]
) -> None:
    """The certificates hold until 29 days after the receipt."""
    stamp.append(ISSUED + after)
    receipt = with_stamps(house, 1, house.credentials())
    assert failing(judged(receipt, house.trust(), replace(REQUIRED, timestamp_within=within))) == refused


def test_of_several_timestamps_the_earliest_counts(house: House, stamp: list[datetime]) -> None:
    stamp += [ISSUED + 40 * DAY, ISSUED + HOUR]
    assert judged(with_stamps(house, 2, house.credentials()), house.trust(), REQUIRED).accepted


def test_a_sites_certificate_too_held_at_the_timestamp(house: House, stamp: list[datetime]) -> None:
    """Nor is the head of a site's log signed after its certificate expired."""
    stamp.append(ISSUED + 10 * HOUR)
    receipt = with_stamps(house, 1, certified(house, Role.SITE, "north", ISSUED + 5 * HOUR))
    assert failing(judged(receipt, house.trust(), REQUIRED)) == {"checkpoint-signature", *COSTLY}


def test_a_late_timestamp_that_nobody_asks_for_takes_nothing_away(
    house: House, stamp: list[datetime]
) -> None:
    stamp.append(ISSUED + 40 * DAY)
    assert judged(with_stamps(house, 1, house.credentials()), house.trust(), VerificationPolicy()).accepted


# What is held has to be signed


def junk(head: Checkpoint) -> Checkpoint:
    return replace(head, signatures=(NoteSignature("nobody", bytes(4), b"junk"),))


@pytest.mark.parametrize("holder", [HUB, "south"])
def test_a_note_that_nobody_signed_is_nothing_to_hold(tmp_path: Path, holder: str) -> None:
    """Size and root are right; but who holds this can't convict the log's owner with it."""
    job = ExchangingJob(tmp_path, see=lambda who, _, head: junk(head) if who == holder else head).run()
    verdict = verify(job, job.receipt())
    assert failing(verdict) == {"log-consistency"}
    assert f"{holder} held a note of" in detail(verdict, "log-consistency")


def test_a_note_signed_by_another_party_is_nothing_to_hold(tmp_path: Path) -> None:
    job = ExchangingJob(tmp_path)

    def see(holder: str, _: int, head: Checkpoint) -> Checkpoint:
        if holder == HUB:
            return sign_checkpoint(head.origin, head.size, head.root, job.keys["hub"])
        return head

    job.see = see
    job.run()
    verdict = verify(job, job.receipt())
    assert failing(verdict) == {"log-consistency"}
    assert f"{HUB} held a note of cloister/site/north" in detail(verdict, "log-consistency")
