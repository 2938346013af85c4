"""Traces by seed: the same bytes, the counts asked for, and sessions that cover what they should."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.errors import ImmuneError
from cloister.immune.generators import (
    BENIGN,
    SEED_PATTERNS,
    SPIKE_PATTERNS,
    Pattern,
    Shape,
    attacked_trace,
    encode_trace,
    episode,
    ordinary_calls,
    read_trace,
    sample_trace,
    sessions,
)

seeds = st.integers(0, 10**9)


@settings(max_examples=100)
@given(seeds, st.sampled_from(Shape))
def test_the_same_seed_gives_the_same_bytes(seed: int, shape: Shape) -> None:
    """PIC-P61: deterministic generation: the same seed gives identical output, benign and malicious."""
    assert encode_trace(ordinary_calls(seed, 60, shape=shape)) == encode_trace(
        ordinary_calls(seed, 60, shape=shape)
    )
    one, other = (attacked_trace(seed, 400, warm_up=150, times=1, shape=shape) for _ in range(2))
    assert encode_trace(one) == encode_trace(other)


@settings(max_examples=100)
@given(seeds)
def test_another_seed_gives_another_trace(seed: int) -> None:
    assert encode_trace(ordinary_calls(seed, 20)) != encode_trace(ordinary_calls(seed + 1, 20))


def test_bytes_are_the_same_in_another_process_whatever_its_hash_seed() -> None:
    program = (
        "import hashlib; from cloister.immune.generators import *; "
        "print(hashlib.sha256(encode_trace(attacked_trace(11, 800, warm_up=200))).hexdigest())"
    )
    here = hashlib.sha256(encode_trace(attacked_trace(11, 800, warm_up=200))).hexdigest()
    for hash_seed in ("0", "4242"):
        there = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here


def test_the_shipped_sample_is_what_the_generator_makes_and_has_each_of_five_attacks() -> None:
    shipped = (files("cloister.immune") / "sample.jsonl").read_bytes()
    assert shipped == encode_trace(sample_trace())
    assert len(shipped) < 100_000
    assert {call.label for call in read_trace(shipped)} == {BENIGN, *SPIKE_PATTERNS}


def test_a_thousand_ordinary_calls_are_made_unless_another_number_is_asked_for() -> None:
    calls = ordinary_calls(1)
    assert len(calls) == 1000
    assert {call.label for call in calls} == {BENIGN}
    assert len(ordinary_calls(1, 7)) == 7


@settings(max_examples=50)
@given(seeds, st.integers(1, 3), st.sampled_from([SEED_PATTERNS, SPIKE_PATTERNS, (Pattern.SPIKE,), ()]))
def test_a_trace_has_the_calls_and_the_episodes_that_were_asked_for_in_order_of_time(
    seed: int, times: int, patterns: tuple[Pattern, ...]
) -> None:
    calls = attacked_trace(seed, 700, patterns=patterns, times=times, warm_up=300)
    assert sum(call.label is BENIGN for call in calls) == 700
    assert all(call.label is BENIGN for call in calls[:300])
    found = [one.pattern for one in sessions(calls) if one.pattern is not BENIGN]
    assert sorted(found) == sorted(patterns * times)
    assert all(before.at <= after.at for before, after in pairwise(calls))
    assert all(call.duration > 0 and call.size >= 1 for call in calls)
    assert read_trace(encode_trace(calls)) == calls


@settings(max_examples=50)
@given(seeds, st.integers(0, 700))
def test_sessions_are_fifty_ordinary_calls_or_one_whole_episode_and_never_overlap(
    seed: int, warm_up: int
) -> None:
    calls = attacked_trace(seed, 700, times=1, warm_up=400)
    end = warm_up
    for one in sessions(calls, warm_up):
        assert one.first >= end
        end = one.end
        assert {call.label for call in calls[one.first : one.end]} == {one.pattern}
        after_attack = one.first > 0 and calls[one.first - 1].label is not BENIGN
        assert one.aftermath == (one.pattern is BENIGN and after_attack)
        if one.pattern is BENIGN:
            assert one.end - one.first == 50
        else:
            assert calls[one.first - 1].label is BENIGN
            assert one.end == len(calls) or calls[one.end].label is BENIGN


def test_attacks_do_not_change_the_function_that_they_hit() -> None:
    calm = ordinary_calls(9, 700)
    attacked = attacked_trace(9, 700, warm_up=300, times=1)
    assert attacked[:300] == calm[:300]
    assert episode(9, Pattern.SPIKE) == episode(9, Pattern.SPIKE)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ordinary_calls(1, 0),
        lambda: ordinary_calls(1, 1_000_001),
        lambda: attacked_trace(1, 100, warm_up=90),
        lambda: attacked_trace(1, times=0),
        lambda: attacked_trace(1, warm_up=-1),
        lambda: attacked_trace(1, patterns=(BENIGN,)),
    ],
)
def test_what_can_not_be_made_is_refused_by_its_code(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(ImmuneError) as refused:
        ask()
    assert refused.value.code == "immune.generator_invalid"
