"""One changed byte anywhere in a receipt makes it fail, whatever the byte and whatever it is changed to."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.evidence.checks import Outcome
from cloister.evidence.verifier import Verdict
from tests.evidence.synthetic import SyntheticJob, verify
from tests.nightly import nightly_seed, spread

PARTS = 12


def refused_by_name(verdict: Verdict) -> bool:
    """Whether the verdict refuses and names a check that failed, not only ones that were not run."""
    return not verdict.accepted and any(one.outcome is Outcome.FAILED for one in verdict.checks)


def flipped(receipt: bytes, place: int, mask: int) -> bytes:
    return receipt[:place] + bytes([receipt[place] ^ mask]) + receipt[place + 1 :]


def test_a_flipped_byte_at_any_of_sixty_places_is_refused(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    chance = random.Random(2026)
    places = chance.sample(range(len(honest_receipt)), 60)
    for place in places:
        assert refused_by_name(verify(honest_job, flipped(honest_receipt, place, 1 << chance.randrange(8))))


def test_a_flipped_byte_at_either_end_is_refused(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    for place in (*range(12), *range(len(honest_receipt) - 12, len(honest_receipt))):
        assert refused_by_name(verify(honest_job, flipped(honest_receipt, place, 1)))


@given(data=st.data())
def test_bytes_cut_out_added_or_doubled_are_refused(
    honest_job: SyntheticJob, honest_receipt: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(honest_receipt)))
    kind = data.draw(st.sampled_from(["cut", "truncate", "insert", "append"]))
    extra = data.draw(st.binary(min_size=1, max_size=4))
    changed = {
        "cut": honest_receipt[:place] + honest_receipt[place + 1 :],
        "truncate": honest_receipt[:place],
        "insert": honest_receipt[:place] + extra + honest_receipt[place:],
        "append": honest_receipt + extra,
    }[kind]
    assert changed == honest_receipt or refused_by_name(verify(honest_job, changed))


@given(st.binary(max_size=400))
def test_bytes_from_a_stranger_get_a_verdict_and_never_an_exception(data: bytes) -> None:
    job = SyntheticJob(Path())
    assert refused_by_name(verify(job, data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"body":{},"signature":{}}',
        b'{"body":[],"signature":{"key_id":"","sig":""}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b'"' + b"\xff" * 10 + b'"',
        b'{"body":1,"body":2}',
    ],
)
def test_hostile_shapes_get_a_verdict_and_never_an_exception(data: bytes) -> None:
    job = SyntheticJob(Path())
    assert refused_by_name(verify(job, data))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_byte_of_a_receipt_flipped_once_is_refused(
    tmp_path: Path, part: int, record_property: Callable[[str, object], None]
) -> None:
    job = SyntheticJob(tmp_path, rounds=1).run()
    receipt = job.receipt()
    assert verify(job, receipt).accepted
    chance = random.Random(nightly_seed() * PARTS + part)
    survivors = [
        place
        for place in spread(range(part, len(receipt), PARTS), record_property)
        if not refused_by_name(verify(job, flipped(receipt, place, 1 << chance.randrange(8))))
    ]
    assert survivors == []
