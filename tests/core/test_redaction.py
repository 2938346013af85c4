"""Redaction: what has a fixed shape is found, what is our own stays."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloister.core.clock import format_time
from cloister.core.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+x@mail.example.org now", "write to [email] now"),
        ("<jane@example.org>", "<[email]>"),
        ("from 192.168.0.1:8080", "from [ip]:8080"),
        ("from 2001:db8::8a2e:370:7334.", "from [ip]."),
        ("at ::1", "at [ip]"),
        ("ssn 078-05-1120", "ssn [ssn]"),
        ("card 4111 1111 1111 1111", "card [card]"),
        ("card 4111-1111-1111-1111", "card [card]"),
        ("card 4111111111111111", "card [card]"),
        ("call +41 44 668 18 00", "call [phone]"),
        ("call (212) 555-0142 x12", "call [phone]"),
        ("call 212-555-0142", "call [phone]"),
        ("call 2125550142", "call [phone]"),
        ("call 030 12345678", "call [phone]"),
        ("call 01.84.17.61.18", "call [phone]"),
    ],
)
def test_personal_data_is_replaced_by_its_kind(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "round.finished",
        "nvflare 2.9.0",
        "epsilon 2.987654",
        "3 of 10 sites",
        "job 12345",
        "99.5 percent",
        "0.1.0",
        "999.999.999.999",
        "12:30",
        "runs/2026-11-21",
        "2026-11-21T14:00:00.000000Z",
        "3d6f4f8e-7a51-4a1f-9d6b-0f4a3a1c2b10",
        "sha256:" + "12" * 32,
        "12" * 48,
    ],
)
def test_what_is_our_own_stays(text: str) -> None:
    assert redact(text) == text


@given(st.uuids(), st.integers(0, 2**256 - 1), st.datetimes(timezones=st.timezones()))
def test_identifiers_digests_and_times_always_stay(job: UUID, digest: int, moment: object) -> None:
    try:
        time = format_time(moment)  # type: ignore[arg-type]
    except OverflowError:
        time = "2026-11-21T14:00:00.000000Z"
    text = f"{job} {digest:064x} sha256:{digest:064x} {time}"
    assert redact(text) == text


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.text(), st.text(), st.ip_addresses())
@example(before="10", after="", address="10.0.0.0")
def test_an_address_is_found_between_spaces_in_any_text(before: str, after: str, address: object) -> None:
    assert f" {address} " not in redact(f"{before} {address} {after}")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["1", "1-", "a@", "1.", ":", "a:", "(1", "+1 ", "1 1", "é@é."])
def test_no_text_takes_long(piece: str) -> None:
    redact(piece * 20_000)


def test_recall_on_labelled_texts(shared_data: Callable[[str], Path]) -> None:
    wanted = {
        "EMAIL_ADDRESS": 1.0,
        "CREDIT_CARD": 1.0,
        "US_SSN": 1.0,
        "IP_ADDRESS": 1.0,
        "PHONE_NUMBER": 0.95,
    }
    seen: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for name in ("synth_dataset_v2", "generated_large"):
        for line in shared_data(f"pii/presidio-research/{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            text = redact(record["full_text"])
            for span in record["spans"]:
                kind = span["entity_type"]
                seen[kind] += 1
                found[kind] += span["entity_value"] not in text
    for kind, share in wanted.items():
        assert seen[kind] > 0
        assert found[kind] >= share * seen[kind], (kind, found[kind], seen[kind])
