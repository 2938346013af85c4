"""The randomness that carries the guarantee."""

from __future__ import annotations

import copy
import inspect
import os
import pickle

import numpy as np
import pytest
from scipy import stats

from cloister.privacy.errors import PrivacyError
from cloister.privacy.randomness import OsRandom, derive_key
from cloister.privacy.testing import SeededTestRandom

DRAWS = 200_000


def test_normal_values_have_unit_variance_to_one_percent() -> None:
    values = OsRandom("site", "job", "noise").normal(DRAWS)
    # Chi-square test of the variance: a scale off by 2 % lies far outside.
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], DRAWS)
    assert low < float(values @ values) < high
    assert not low < float(values @ values) * 0.98**2 < high


def test_normal_values_are_normal_and_independent() -> None:
    values = OsRandom("site", "job", "noise").normal(DRAWS)
    assert stats.kstest(values, "norm").pvalue > 1e-6
    assert abs(float(values[:-1] @ values[1:])) / DRAWS < 6 / np.sqrt(DRAWS)
    half = DRAWS // 2
    assert abs(float(values[:half] @ values[half:])) / half < 6 / np.sqrt(half)
    assert abs(float(np.abs(values[:half]) @ np.abs(values[half:])) / half - 2 / np.pi) < 6 / np.sqrt(half)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_any_count_of_values_can_be_drawn(count: int) -> None:
    source = OsRandom("s")
    assert source.normal(count).shape == (count,)
    assert source.words(count).shape == (count,)
    assert np.isfinite(source.normal(count)).all()


def test_a_negative_count_is_refused() -> None:
    for draw in (OsRandom("s").normal, OsRandom("s").words):
        with pytest.raises(PrivacyError, match="negative"):
            draw(-3)


def test_two_sources_never_give_the_same_noise() -> None:
    draws = [OsRandom("site", "job", "noise").words(2).tobytes() for _ in range(2000)]
    assert len(set(draws)) == len(draws)


def test_a_source_never_repeats_itself() -> None:
    words = OsRandom("site").words(DRAWS)
    assert len(np.unique(words)) == DRAWS


def test_equal_entropy_still_gives_other_streams_for_other_labels() -> None:
    secret = bytes(32)
    labels = [("a", "job", "noise"), ("b", "job", "noise"), ("a", "job2", "noise"), ("a", "job", "sampling")]
    labels += [("ab",), ("a", "b"), ("a", "", "b"), ()]
    assert len({derive_key(secret, label) for label in labels}) == len(labels)


def test_a_forked_child_does_not_repeat_its_parents_noise() -> None:
    source = OsRandom("site")
    source.words(1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, source.words(2).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 16) != source.words(2).tobytes()
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_source_is_never_copied_or_stored(duplicate: object) -> None:
    with pytest.raises(PrivacyError, match="never copied"):
        duplicate(OsRandom("site"))  # type: ignore[operator]


def test_the_private_source_takes_no_seed_and_no_key() -> None:
    (labels,) = inspect.signature(OsRandom).parameters.values()
    assert labels.kind is inspect.Parameter.VAR_POSITIONAL


def test_the_private_stream_is_aes_256_in_counter_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    monkeypatch.setattr(os, "urandom", lambda size: b"\x07" * size)
    key = derive_key(b"\x07" * 32, ("site", "noise"))
    expected = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(80))
    assert OsRandom("site", "noise").words(10).tobytes() == expected


def test_the_seeded_source_repeats_itself_and_says_what_it_is() -> None:
    assert (SeededTestRandom(1, "a").normal(9) == SeededTestRandom(1, "a").normal(9)).all()
    assert (SeededTestRandom(1, "a").normal(9) != SeededTestRandom(1, "b").normal(9)).all()
    assert (SeededTestRandom(1, "a").normal(9) != SeededTestRandom(2**32 + 1, "a").normal(9)).all()
    assert SeededTestRandom(1).generator == "seeded-test"
    assert OsRandom().generator == "aes-256-ctr/os-entropy"
    assert not isinstance(SeededTestRandom(1), OsRandom)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_test_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(PrivacyError):
        SeededTestRandom(seed)
