"""RFC 3161 timestamps of receipts, answered by openssl and verified offline."""

from __future__ import annotations

import builtins
import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse
from cloister.core.errors import CloisterError
from cloister.evidence import EvidenceError, Role, Trust, TrustEntry
from cloister.evidence.checks import Outcome
from cloister.evidence.timestamp import attach_timestamp, request_timestamp
from cloister.evidence.verification.acceptance import TimestampRule, VerificationPolicy
from cloister.evidence.verifier import Verdict, Verifier, model_artifact
from tests.evidence.authority import Authority, make_authority
from tests.evidence.synthetic import HUB, MODEL, SyntheticJob, failing, plugged

REQUIRED = VerificationPolicy(timestamp=TimestampRule.REQUIRED)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tsa") / "genuine")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SyntheticJob:
    return SyntheticJob(tmp_path_factory.mktemp("stamped")).run()


@pytest.fixture(scope="module")
def receipt(job: SyntheticJob) -> bytes:
    """Issued now, so that an authority that answers now comes after it."""
    return job.receipt(clock=lambda: datetime.now(UTC))


@pytest.fixture(scope="module")
def stamped(receipt: bytes, authority: Authority) -> bytes:
    return attach_timestamp(receipt, authority.answer(request_timestamp(receipt)))


def judged_under(
    job: SyntheticJob, receipt: bytes, *roots: bytes, policy: VerificationPolicy = REQUIRED
) -> Verdict:
    """The verdict of a party that also pins time-stamping authorities."""
    owners = {Role.HUB: (HUB,), Role.SITE: job.sites, Role.HOSPITAL: job.sites, Role.DEVELOPER: ("lab",)}
    entries = [
        TrustEntry(role, party, job.trust.key(role, party).pem.encode())
        for role, parties in owners.items()
        for party in parties
    ]
    entries += [TrustEntry(Role.TSA, f"authority-{number}", root) for number, root in enumerate(roots)]
    return Verifier(Trust(entries), plugged(), policy).verify(receipt, model_artifact(MODEL))


def detail(verdict: Verdict) -> str:
    return next(one.detail for one in verdict.checks if one.id == "timestamp")


def test_a_receipt_with_a_timestamp_of_a_pinned_authority_passes_where_one_is_required(
    job: SyntheticJob, stamped: bytes, authority: Authority
) -> None:
    verdict = judged_under(job, stamped, authority.root)
    assert verdict.accepted
    assert detail(verdict).startswith(f"signed no later than {datetime.now(UTC).year}")


def test_a_receipt_without_a_timestamp_passes_only_where_none_is_required(
    job: SyntheticJob, receipt: bytes
) -> None:
    assert failing(judged_under(job, receipt)) == {"timestamp"}
    assert judged_under(job, receipt, policy=VerificationPolicy()).accepted


def test_a_timestamp_of_an_authority_nobody_pinned_is_refused_even_where_none_is_required(
    job: SyntheticJob, stamped: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = make_authority(tmp_path_factory.mktemp("tsa") / "stranger")
    for roots in ((), (stranger.root,)):
        assert failing(judged_under(job, stamped, *roots, policy=VerificationPolicy())) == {"timestamp"}


def test_one_of_several_pinned_authorities_suffices(
    job: SyntheticJob, stamped: bytes, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    second = make_authority(tmp_path_factory.mktemp("tsa") / "second")
    assert judged_under(job, stamped, second.root, authority.root).accepted
    twice = attach_timestamp(stamped, second.answer(request_timestamp(stamped)))
    assert judged_under(job, twice, second.root, authority.root).accepted
    assert failing(judged_under(job, twice, authority.root)) == {"timestamp"}


def test_an_answer_about_another_receipt_is_not_attached_and_not_accepted(
    job: SyntheticJob, receipt: bytes, authority: Authority
) -> None:
    other = job.receipt(receipt_id="bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee", clock=lambda: datetime.now(UTC))
    answer = authority.answer(request_timestamp(other))
    with pytest.raises(EvidenceError, match="something else") as refused:
        attach_timestamp(receipt, answer)
    assert refused.value.code == "evidence.timestamp_invalid"
    document = cast(dict[str, JSON], parse(receipt))
    moved = canonicalize({**document, "timestamps": [b64encode(answer)]})
    assert failing(judged_under(job, moved, authority.root)) == {"timestamp"}


def test_an_answer_in_which_the_stamped_hash_was_replaced_is_refused(
    job: SyntheticJob, receipt: bytes, authority: Authority
) -> None:
    other = job.receipt(receipt_id="bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee", clock=lambda: datetime.now(UTC))
    answer = authority.answer(request_timestamp(other))
    wanted, stamped_hash = (hashlib.sha256(signature_of_bytes(one)).digest() for one in (receipt, other))
    assert answer.count(stamped_hash) == 1
    forged = attach_timestamp(receipt, answer.replace(stamped_hash, wanted))
    assert failing(judged_under(job, forged, authority.root)) == {"timestamp"}


def signature_of_bytes(receipt: bytes) -> bytes:
    document = cast(dict[str, dict[str, str]], parse(receipt))
    return b64decode(document["signature"]["sig"])


def test_a_library_that_believed_unsigned_tokens_counts_as_not_run(
    job: SyntheticJob, stamped: bytes, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.evidence.timestamp.version", lambda _: "1.0.2")
    found = next(one for one in judged_under(job, stamped, authority.root).checks if one.id == "timestamp")
    assert found.outcome is Outcome.NOT_RUN


def test_the_same_timestamp_is_not_attached_twice(stamped: bytes) -> None:
    document = cast(dict[str, list[str]], parse(stamped))
    with pytest.raises(EvidenceError, match="has this timestamp already"):
        attach_timestamp(stamped, b64decode(document["timestamps"][0]))


def test_a_receipt_dated_after_its_timestamp_is_refused(job: SyntheticJob, authority: Authority) -> None:
    late = job.receipt(clock=lambda: datetime.now(UTC) + timedelta(minutes=6))
    stamped = attach_timestamp(late, authority.answer(request_timestamp(late)))
    verdict = judged_under(job, stamped, authority.root)
    assert failing(verdict) == {"timestamp"}
    assert "before the receipt says it was issued" in detail(verdict)


def test_a_timestamp_cannot_be_checked_without_the_library_and_counts_as_not_run(
    job: SyntheticJob, stamped: bytes, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.startswith("rfc3161_client"):
            raise ModuleNotFoundError(name)
        return genuine(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    verdict = judged_under(job, stamped, authority.root)
    found = next(one for one in verdict.checks if one.id == "timestamp")
    assert (found.outcome, verdict.accepted) == (Outcome.NOT_RUN, False)


def test_a_flipped_byte_of_an_answer_never_changes_the_time_that_is_accepted(
    job: SyntheticJob, receipt: bytes, stamped: bytes, authority: Authority
) -> None:
    """Parts of an answer are signed by nobody, as its list of certificates; the rest can't be touched."""
    document = cast(dict[str, list[str]], parse(stamped))
    answer = b64decode(document["timestamps"][0])
    accepted = detail(judged_under(job, stamped, authority.root))
    chance = random.Random(2026)
    for place in chance.sample(range(len(answer)), 60):
        changed = answer[:place] + bytes([answer[place] ^ 1 << chance.randrange(8)]) + answer[place + 1 :]
        moved = canonicalize({**cast(dict[str, JSON], document), "timestamps": [b64encode(changed)]})
        verdict = judged_under(job, moved, authority.root)
        assert not verdict.accepted or detail(verdict) == accepted


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x84\x7f\xff\xff\xff", b"0" * 60_000, bytes(300)])
def test_what_is_no_answer_is_refused_by_a_typed_error(receipt: bytes, data: bytes) -> None:
    pytest.importorskip("rfc3161_client", reason="rfc3161-client is not installed")
    with pytest.raises(CloisterError):
        attach_timestamp(receipt, data)
