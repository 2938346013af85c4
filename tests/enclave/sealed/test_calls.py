"""What is said of a forbidden call: words of a closed list, whatever the worker put into it."""

from __future__ import annotations

import platform
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")

from cloister.enclave.errors import SealBroken
from cloister.enclave.sealed.calls import UNLISTED, WORDS, read_notice
from tests.enclave.sealed.scene import a_worker, started

_HIGHEST = 1024
NAMES = {read_notice(struct.pack("<QIIiIQ6Q", 0, 0, 0, n, 0, 0, *[0] * 6)).name for n in range(_HIGHEST)}
WORD = st.integers(0, 2**64 - 1)


@given(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 500), st.tuples(*[WORD] * 6), WORD)
def test_whatever_a_notification_holds_only_listed_words_are_said(
    number: int, arguments: tuple[int, ...], pointer: int
) -> None:
    call = read_notice(struct.pack("<QIIiIQ6Q", 7, 9, 0, number, 0xC000003E, pointer, *arguments))
    assert call.name in NAMES
    assert call.word in WORDS.get(call.name, {""})


def test_all_that_can_be_said_is_below_ten_bits() -> None:
    said = sum(len(WORDS.get(name, {""})) for name in NAMES)
    assert said < 2**9
    words = [word for one in WORDS.values() for word in one]
    assert all(re.fullmatch(r"[a-z0-9_]*", one) for one in (*NAMES, *words))


SECRET = 0xC0FFEE0D15EA5E
SMUGGLED = {
    "the family of a socket": ([41, SECRET, SECRET, SECRET], "socket", "another"),
    "flags of opening": ([257, SECRET, SECRET, SECRET | 0o100, SECRET], "openat", "create"),
    "an option": ([157, SECRET, SECRET], "prctl", "another"),
    "a request": ([101, SECRET, SECRET], "ptrace", "another"),
    "the number of the call": ([5000 + (SECRET & 0xFFFF)], UNLISTED, ""),
    "arguments of another": ([165, *[SECRET] * 5], "mount", ""),
}


def test_a_worker_gets_nothing_out_in_the_arguments_of_its_last_call() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the numbers are those of x86-64")
    with started("light_server") as (host, violations):
        for way, (numbers, name, word) in SMUGGLED.items():
            violations.clear()
            with pytest.raises(SealBroken) as broken:
                a_worker(host).request("call", {"arguments": [f"{one:x}" for one in numbers]})
            (violation,) = violations
            assert (violation.call, violation.word) == (name, word), way
            said = f"{broken.value.as_json()}{violation.sentence}"
            assert not re.search(r"\d{3}|0x|c0ff|5ea5e", said, re.IGNORECASE), way
