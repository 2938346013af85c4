"""No changed bit of evidence is accepted, wherever it is; and no garbage brings anything but a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.attestation import Evidence, Status, Tee
from tests.enclave.attestation_scene import scene
from tests.nightly import spread

SCENE = scene()
EVIDENCE = SCENE.evidence()
REPORT_BITS = len(EVIDENCE.report) * 8


def accepted(parts: Iterable[Evidence]) -> list[str]:
    codes = []
    for evidence in parts:
        verdict = SCENE.verify(evidence)
        if verdict.status is Status.TRUSTED:
            codes.append("accepted")
    return codes


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def report_flips(bits: Iterable[int]) -> Iterable[Evidence]:
    return (Evidence(Tee.AMD_SEV_SNP, flipped(EVIDENCE.report, bit), EVIDENCE.chain) for bit in bits)


def chain_bits(step: int) -> list[tuple[int, int]]:
    return [(index, bit) for index, der in enumerate(EVIDENCE.chain) for bit in range(0, len(der) * 8, step)]


def chain_flips(bits: Iterable[tuple[int, int]]) -> Iterable[Evidence]:
    for index, bit in bits:
        chain = list(EVIDENCE.chain)
        chain[index] = flipped(chain[index], bit)
        yield Evidence(Tee.AMD_SEV_SNP, EVIDENCE.report, tuple(chain))


def test_the_unchanged_evidence_is_accepted() -> None:
    assert accepted([EVIDENCE]) == ["accepted"]


def test_a_flipped_bit_of_a_report_is_refused_at_sampled_positions() -> None:
    every_field = range(0, REPORT_BITS, 29)
    assert accepted(report_flips(every_field)) == []


def test_a_flipped_bit_of_a_certificate_is_refused_at_sampled_positions() -> None:
    assert accepted(chain_flips(chain_bits(101))) == []


def test_the_count_of_unused_bits_before_a_certificates_signature_is_not_free() -> None:
    for index, der in enumerate(EVIDENCE.chain):
        count_at = len(der) - len(x509.load_der_x509_certificate(der).signature) - 1
        assert der[count_at] == 0
        for bit in range(3):
            chain = list(EVIDENCE.chain)
            chain[index] = flipped(der, count_at * 8 + bit)
            assert accepted([Evidence(Tee.AMD_SEV_SNP, EVIDENCE.report, tuple(chain))]) == []


@pytest.mark.nightly
def test_every_flipped_bit_of_a_report_is_refused(record_property: Callable[[str, object], None]) -> None:
    assert accepted(report_flips(spread(range(REPORT_BITS), record_property))) == []


@pytest.mark.nightly
def test_every_flipped_bit_of_a_certificate_is_refused(
    record_property: Callable[[str, object], None],
) -> None:
    assert accepted(chain_flips(spread(chain_bits(1), record_property))) == []


def edits(data: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(data))
    return st.one_of(
        places.filter(lambda end: end < len(data)).map(lambda end: data[:end]),
        st.binary(min_size=1, max_size=40).map(lambda more: data + more),
        st.tuples(places, st.binary(min_size=1, max_size=8)).map(
            lambda edit: data[: edit[0]] + edit[1] + data[edit[0] :]
        ),
        st.tuples(places, st.integers(1, 40))
        .map(lambda edit: data[: edit[0]] + data[edit[0] + edit[1] :])
        .filter(lambda changed: changed != data),
        st.binary(max_size=1300),
    )


@given(edits(EVIDENCE.report))
def test_a_truncated_extended_or_overwritten_report_is_refused(report: bytes) -> None:
    assert SCENE.verify(Evidence(Tee.AMD_SEV_SNP, report, EVIDENCE.chain)).status is Status.UNTRUSTED


@given(st.integers(0, 2).flatmap(lambda index: st.tuples(st.just(index), edits(EVIDENCE.chain[index]))))
def test_a_truncated_extended_or_overwritten_certificate_is_refused(edit: tuple[int, bytes]) -> None:
    chain = list(EVIDENCE.chain)
    chain[edit[0]] = edit[1]
    assert SCENE.verify(Evidence(Tee.AMD_SEV_SNP, EVIDENCE.report, tuple(chain))).status is Status.UNTRUSTED
