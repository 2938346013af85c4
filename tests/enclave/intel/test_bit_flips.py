"""No changed bit of a quote is accepted, wherever it is; and no garbage brings anything but a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave import AttestationError, Evidence, Status
from cloister.enclave.attestation import Tee
from cloister.enclave.attestation.intel.quote import Quote
from tests.enclave.intel.samples import NAMES, SGX, Sample
from tests.enclave.intel.scene import Scene
from tests.nightly import spread

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
SCENE = Scene()
QUOTE = SCENE.evidence().report


def accepted(sample: Sample, bits: Iterable[int]) -> list[int]:
    quote, found = sample.trimmed, []
    for bit in bits:
        changed = bytearray(quote)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            sample.authenticate(bytes(changed))
        except AttestationError:
            continue
        found.append(bit)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_of_a_genuine_quote_is_refused_at_sampled_positions(
    shared_data: Callable[[str], Path], name: str
) -> None:
    sample = Sample(shared_data, name)
    assert accepted(sample, range(sum(name.encode()) % 61, len(sample.trimmed) * 8, 61)) == []


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_of_a_genuine_quote_is_refused(
    shared_data: Callable[[str], Path], name: str, record_property: Callable[[str, object], None]
) -> None:
    sample = Sample(shared_data, name)
    assert accepted(sample, spread(range(len(sample.trimmed) * 8), record_property)) == []


def edits(data: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(data))
    return st.one_of(
        places.filter(lambda end: end < len(data)).map(lambda end: data[:end]),
        st.tuples(places.filter(lambda at: at < len(data)), st.binary(min_size=1, max_size=8)).map(
            lambda edit: data[: edit[0]] + edit[1] + data[edit[0] :]
        ),
        st.tuples(places.filter(lambda at: at < len(data)), st.integers(1, 40)).map(
            lambda edit: data[: edit[0]] + data[edit[0] + edit[1] :]
        ),
        st.tuples(places.filter(lambda at: at < len(data)), st.binary(min_size=1, max_size=8)).map(
            lambda edit: data[: edit[0]] + edit[1] + data[edit[0] + len(edit[1]) :]
        ),
        st.binary(max_size=5200),
    )


@given(edits(QUOTE))
def test_a_truncated_extended_or_overwritten_quote_is_refused_or_is_the_same_quote(report: bytes) -> None:
    verdict = SCENE.verify(Evidence(Tee.INTEL_TDX, report))
    if verdict.status is Status.TRUSTED:
        assert report[: len(QUOTE)] == QUOTE


@given(edits(QUOTE))
def test_whatever_is_read_as_a_quote_is_written_again_as_it_was(report: bytes) -> None:
    try:
        quote = Quote.parse(report)
    except AttestationError:
        return
    assert quote.encode() == report[: quote.length]


@given(st.binary(min_size=1, max_size=200))
def test_appended_bytes_are_counted_and_never_part_of_what_is_bound(more: bytes) -> None:
    plain, padded = (
        SCENE.verify(Evidence(Tee.INTEL_TDX, QUOTE)),
        SCENE.verify(Evidence(Tee.INTEL_TDX, QUOTE + more)),
    )
    assert padded.status is Status.TRUSTED
    assert plain.claims is not None
    assert padded.claims is not None
    assert padded.claims.identity_sha256 == plain.claims.identity_sha256
    assert replace(padded.claims.detail, trailing_bytes=0) == plain.claims.detail
    assert padded.claims.detail.trailing_bytes == len(more)


@given(
    st.builds(
        Evidence,
        st.sampled_from([Tee.INTEL_SGX, Tee.INTEL_TDX]),
        edits(QUOTE),
        st.lists(st.binary(max_size=60), max_size=2).map(tuple),
        st.dictionaries(st.sampled_from(["ccel", "other"]), st.binary(max_size=200), max_size=2),
    )
)
def test_hostile_evidence_brings_a_verdict_and_nothing_else(evidence: Evidence) -> None:
    verdict = SCENE.verify(evidence)
    assert verdict.status is Status.UNTRUSTED or evidence.report[: len(QUOTE)] == QUOTE


def test_evidence_past_a_mebibyte_is_refused() -> None:
    assert SCENE.verify(Evidence(Tee.INTEL_TDX, QUOTE + bytes(1024 * 1024))).code == "attestation.malformed"


@given(st.integers(-400, 400))
def test_at_no_time_outside_the_collaterals_is_evidence_accepted(hours: int) -> None:
    scene = replace(SCENE, now=SCENE.now + timedelta(hours=hours * 4))
    holds = -48 <= hours * 4 <= 28 * 24
    assert (scene.verify().status is Status.TRUSTED) == holds


@pytest.mark.parametrize("name", SGX)
def test_the_samples_of_enclaves_end_where_their_lengths_say(
    shared_data: Callable[[str], Path], name: str
) -> None:
    sample = Sample(shared_data, f"sgx/{name}")
    assert sample.trimmed == sample.report


def test_the_unchanged_evidence_is_accepted() -> None:
    assert SCENE.verify(Evidence(Tee.INTEL_TDX, QUOTE)).status is Status.TRUSTED
