"""A batch is good when this secret signed it, in the last five minutes, and once."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.service.signing import (
    Freshness,
    NonceBook,
    Proof,
    is_authentic,
    may_read,
    prove,
    read_proof,
    reading_token,
)

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_790_000_000.0


def signed(body: bytes = b"{}", now: float = NOW) -> Proof:
    return prove(SECRET, body, now, os.urandom)


def test_a_signed_batch_is_recognised_after_its_way_through_a_header() -> None:
    proof = read_proof(signed(b"batch").header())
    assert proof is not None
    assert is_authentic(SECRET, b"batch", proof)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.integers(0, 10**4), st.integers(1, 255))
def test_no_byte_of_a_batch_can_be_changed(body: bytes, place: int, flip: int) -> None:
    proof = signed(body)
    changed = bytearray(body or b"x")
    changed[place % len(changed)] ^= flip
    assert not is_authentic(SECRET, bytes(changed), proof)


@pytest.mark.parametrize(
    "part",
    [{"time": int(NOW * 1000) + 1}, {"nonce": "0" * 32}, {"mac": "0" * 64}],
    ids=["time", "nonce", "mac"],
)
def test_no_part_of_the_proof_can_be_changed(part: dict[str, Any]) -> None:
    proof = signed()
    assert is_authentic(SECRET, b"{}", proof)
    assert not is_authentic(SECRET, b"{}", dataclasses.replace(proof, **part))


def test_another_secret_signs_nothing_here() -> None:
    assert not is_authentic(b"x" * 32, b"{}", signed())


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer abc",
        "PIC-HMAC-SHA256",
        signed().header() + "x",
        signed().header().upper(),
        signed().header().replace("nonce=", "nonce=\u0660"),
        "x" * 100_000,
    ],
)
def test_a_header_of_another_form_is_no_proof(header: str) -> None:
    assert read_proof(header) is None


def test_a_batch_is_new_once() -> None:
    """PIC-X5: a replay is refused."""
    book = NonceBook(NOW - 10)
    proof = signed()
    assert book.claim(proof, NOW) is Freshness.NEW
    assert book.claim(proof, NOW) is Freshness.REPLAYED
    assert book.claim(proof, NOW + 299) is Freshness.REPLAYED


@pytest.mark.parametrize("age", [-301.0, 301.0, 1e9, -1e9])
def test_a_batch_is_good_for_five_minutes(age: float) -> None:
    """PIC-X5: the window of five minutes."""
    assert NonceBook(0.0).claim(signed(now=NOW), NOW + age) is Freshness.STALE


@pytest.mark.parametrize("age", [-299.0, 0.0, 299.0])
def test_within_them_clocks_may_differ(age: float) -> None:
    assert NonceBook(0.0).claim(signed(now=NOW), NOW + age) is Freshness.NEW


def test_what_was_signed_before_the_service_started_may_have_been_taken_by_another_run() -> None:
    assert NonceBook(NOW).claim(signed(now=NOW - 1), NOW) is Freshness.STALE


def test_a_clock_that_was_ahead_and_is_set_back_lets_no_batch_in_again() -> None:
    book = NonceBook(NOW - 10)
    proof = signed()
    book.claim(proof, NOW)
    book.claim(signed(now=NOW + 3600), NOW + 3600)  # its nonce is forgotten here
    assert book.claim(proof, NOW) is not Freshness.NEW
    assert book.claim(signed(now=NOW + 1), NOW + 1) is Freshness.NEW


@settings(max_examples=100)
@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_however_the_clock_jumps_no_nonce_is_good_twice(jumps: list[float], chance: object) -> None:
    book, now = NonceBook(NOW), NOW
    accepted: set[str] = set()
    sent: list[Proof] = []
    for jump in jumps:
        now += jump
        sent.append(signed(now=max(0.0, now)))
        for proof in sent:
            if book.claim(proof, now) is Freshness.NEW:
                assert proof.nonce not in accepted
                accepted.add(proof.nonce)


def test_a_full_book_refuses_and_has_room_again_when_nonces_are_too_old_to_be_used() -> None:
    book = NonceBook(NOW - 10, capacity=3)
    assert [book.claim(signed(), NOW) for _ in range(4)] == [Freshness.NEW] * 3 + [Freshness.FULL]
    assert book.claim(signed(now=NOW + 310), NOW + 310) is Freshness.NEW
    assert len(book) == 1


def test_a_batch_that_was_not_taken_may_come_again() -> None:
    book = NonceBook(NOW - 10)
    proof = signed()
    book.claim(proof, NOW)
    book.release(proof)
    assert book.claim(proof, NOW) is Freshness.NEW


def test_the_reading_token_opens_reading_and_isnt_the_secret() -> None:
    token = reading_token(SECRET)
    assert may_read(SECRET, f"Bearer {token}")
    assert may_read(SECRET, f"bearer {token}")
    assert SECRET.decode() not in token
    for wrong in ("", token, f"Basic {token}", "Bearer ", f"Bearer {SECRET.decode()}", "Bearer \u00e9"):
        assert not may_read(SECRET, wrong)
