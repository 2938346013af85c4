"""Digests and times have one written form each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cloister.core.clock import Clock, fixed_clock, format_time, parse_time, system_clock
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256Field, is_sha256, sha256_file, sha256_hex

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4 example


class Holder(BaseModel):
    digest: Sha256Field


def test_the_digest_of_the_standards_example() -> None:
    assert sha256_hex(b"abc") == ABC


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * (1024 * 1024 + 1))
    assert sha256_file(path) == sha256_hex(path.read_bytes())
    with pytest.raises(InputError) as refused:
        sha256_file(tmp_path / "absent")
    assert refused.value.code == "input.missing_file"


@pytest.mark.parametrize(
    "text", [ABC[:-1], ABC + "0", ABC.upper(), "g" * 64, ABC + "\n", "sha256:" + ABC, ""]
)
def test_other_spellings_are_no_digest(text: str) -> None:
    assert not is_sha256(text)
    with pytest.raises(ValidationError):
        Holder(digest=text)


def test_a_digest_is_one() -> None:
    assert is_sha256(ABC)
    assert Holder(digest=ABC).digest == ABC


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_reads_back_and_text_order_is_time_order(moment: datetime) -> None:
    try:
        text = format_time(moment)
    except OverflowError:
        return
    assert len(text) == 27
    assert parse_time(text) == moment.astimezone(UTC)
    assert format_time(parse_time(text)) == text


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_earlier_times_sort_first_as_text(left: datetime, right: datetime) -> None:
    assert (format_time(left) < format_time(right)) == (left < right)


def test_a_time_is_written_in_utc_with_six_decimals() -> None:
    moment = datetime(2026, 11, 21, 16, 0, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(moment) == "2026-11-21T14:00:00.000000Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T14:00:00Z",
        "2026-11-21T14:00:00.000000+00:00",
        "2026-11-21 14:00:00.000000Z",
        "2026-11-21T14:00:00.000000z",
        "2026-13-21T14:00:00.000000Z",
        "2026-02-30T14:00:00.000000Z",
        "2026-11-21T24:00:00.000000Z",
        "2026-11-21T14:00:00.000000Z\n",
        "\u0662026-11-21T14:00:00.000000Z",
        "",
    ],
)
def test_other_spellings_of_a_time_are_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_time(text)
    assert refused.value.code == "input.syntax"


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime(2026, 11, 21)  # noqa: DTZ001 - what is tested
    for use in (format_time, fixed_clock):
        with pytest.raises(InputError):
            use(naive)


def test_clocks_answer_utc(clock: Clock, ticking_clock: Clock) -> None:
    assert system_clock().utcoffset() == timedelta(0)
    assert clock() == clock()
    assert ticking_clock() < ticking_clock()
