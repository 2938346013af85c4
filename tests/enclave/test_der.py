"""The strict reading of certificates: the library's where both read, and narrower everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave import TrustStore
from cloister.enclave.attestation import CheckOutcome
from cloister.enclave.attestation.der import Certificate, NotDer, Reader, read_certificate
from tests.enclave.amd_vendor import KeptVendor, replaced_leaf, with_serial_zero, wrapped
from tests.enclave.attestation_scene import MEASUREMENT, scene, vendor

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

CHAIN = vendor().platform("north", MEASUREMENT).chain


def certificates(folder: Path) -> list[bytes]:
    leaves = [path.read_bytes() for path in sorted(folder.rglob("*.der"))]
    issuers = [
        one.public_bytes(Encoding.DER)
        for path in sorted(folder.rglob("*.pem"))
        for one in x509.load_pem_x509_certificates(path.read_bytes())
    ]
    return [*leaves, *issuers]


def assert_equal_to_the_library(ours: Certificate, der: bytes) -> None:
    theirs = x509.load_der_x509_certificate(der)
    spki = theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert ours.serial == theirs.serial_number
    assert (ours.issuer, ours.subject) == (theirs.issuer.public_bytes(), theirs.subject.public_bytes())
    assert (ours.not_before, ours.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    assert ours.public_key == spki
    assert (ours.signed.body, ours.signed.signature) == (theirs.tbs_certificate_bytes, theirs.signature)
    extensions = {one.oid.dotted_string: one for one in theirs.extensions}
    assert ours.extensions.keys() == extensions.keys()
    for oid, one in ours.extensions.items():
        assert one.critical == extensions[oid].critical
        assert one.value == extensions[oid].value.public_bytes() or oid == "2.5.29.15"
    known = {type(one.value): one.value for one in extensions.values()}
    constraints, usage = known.get(x509.BasicConstraints), known.get(x509.KeyUsage)
    may_sign = isinstance(usage, x509.KeyUsage) and usage.key_cert_sign
    assert ours.signs_lists == (isinstance(usage, x509.KeyUsage) and usage.crl_sign)
    if isinstance(constraints, x509.BasicConstraints):
        assert ours.authority == (constraints.ca and may_sign)
        assert ours.path_length == constraints.path_length
    else:
        assert not ours.authority


def test_every_genuine_certificate_is_read_as_the_library_reads_it(
    shared_data: Callable[[str], Path],
) -> None:
    found = certificates(shared_data("attestation/snp"))
    assert len(found) >= 19
    for der in found:
        assert_equal_to_the_library(read_certificate(der), der)
    assert sum(read_certificate(der).serial == 0 for der in found) >= 7


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_simulated_certificate_is_read_as_the_library_reads_it(place: int) -> None:
    assert_equal_to_the_library(read_certificate(CHAIN[place]), CHAIN[place])


def test_an_endorsed_key_with_serial_number_0_is_verified_without_the_librarys_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the library refused every certificate, which it has announced for this number."""
    kept = KeptVendor()
    platform = kept.simulated().platform("north", MEASUREMENT)
    trust = TrustStore.simulated(kept.root_der)
    one = replace(scene(), platform=platform, trust=trust, collateral=kept.simulated().collateral)
    evidence = replaced_leaf(one.evidence(), with_serial_zero(platform.chain[0], kept.intermediate_key))

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("serial number 0")

    monkeypatch.setattr(x509, "load_der_x509_certificate", refuse)
    verdict = one.verify(evidence)
    assert verdict.code is None
    assert all(check.outcome is not CheckOutcome.FAILED for check in verdict.checks)


@given(st.sampled_from(CHAIN), st.data())
def test_changed_bytes_are_read_as_the_library_reads_them_or_not_at_all(
    der: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(der) - 1))
    size = data.draw(st.integers(0, 3))
    changed = der[:place] + data.draw(st.binary(max_size=4)) + der[place + size :]
    try:
        ours = read_certificate(changed)
    except NotDer:
        return
    try:
        assert_equal_to_the_library(ours, changed)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # What only the library looks into: keys, names and extensions, all under the signature.
        assert ours.signed.body in changed


@given(st.binary(max_size=600))
def test_garbage_raises_nothing_but_the_readers_error(data: bytes) -> None:
    with pytest.raises(NotDer):
        read_certificate(data)


@given(st.sampled_from(CHAIN), st.data())
def test_a_certificate_that_is_cut_or_has_more_after_it_is_refused(der: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(der) - 1))
    for other in (der[:cut], der + data.draw(st.binary(min_size=1, max_size=9))):
        with pytest.raises(NotDer):
            read_certificate(other)


def of(hexadecimal: str) -> Reader:
    return Reader(bytes.fromhex(hexadecimal))


@pytest.mark.parametrize(
    "hexadecimal",
    [
        "",
        "04",
        "0401",
        "0480",  # indefinite
        "048101aa",  # long form of a short length
        "04820001aa",  # a leading zero
        "0484000000ff",  # more than three octets of length
        "0501",  # another tag
    ],
)
def test_an_element_that_is_not_whole_and_shortest_is_refused(hexadecimal: str) -> None:
    with pytest.raises(NotDer):
        of(hexadecimal).element(0x04)


def test_integers_are_shortest_and_not_negative() -> None:
    assert of("020100").integer() == 0
    assert of("02020080").integer() == 128
    for bad in ("0200", "020180", "02020001", "0216" + "01" * 22):
        with pytest.raises(NotDer):
            of(bad).integer()


def test_bit_strings_are_of_whole_octets() -> None:
    assert of("03020001").octets_of_bits() == b"\1"
    for bad in ("0300", "03020101"):
        with pytest.raises(NotDer):
            of(bad).octets_of_bits()


def test_object_identifiers_are_shortest() -> None:
    assert of("06092b060104019c780103").oid() == "1.3.6.1.4.1.3704.1.3"
    assert of("0603551d13").oid() == "2.5.29.19"
    assert of("0603883703").oid() == "2.999.3"
    for bad in ("0600", "06029c", "0603800155", "0603558001", "068209c5" + "81" * 2500 + "01"):
        with pytest.raises(NotDer):
            of(bad).oid()


@given(st.lists(st.integers(0, 2**40), max_size=8), st.integers(0, 2), st.integers(0, 39))
def test_object_identifiers_are_read_as_they_are_written(arcs: list[int], top: int, second: int) -> None:
    text = ".".join(map(str, (top, second, *arcs, 1)))
    assert Reader(wrapped(0x06, encoded(text))).oid() == text


def encoded(dotted: str) -> bytes:
    top, second, *rest = map(int, dotted.split("."))
    octets = bytearray()
    for arc in (top * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        octets += bytes(reversed(groups))
    return bytes(octets)


def test_times_have_one_form() -> None:
    assert Reader(wrapped(0x17, b"491231235959Z")).time() == datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert Reader(wrapped(0x17, b"500101000000Z")).time() == datetime(1950, 1, 1, tzinfo=UTC)
    assert Reader(wrapped(0x18, b"20500101000000Z")).time() == datetime(2050, 1, 1, tzinfo=UTC)
    for tag, bad in (
        (0x17, b"4912312359Z"),
        (0x17, b"491231235959+0000"),
        (0x17, b"491331235959Z"),
        (0x17, b"49123123595 Z"),
        (0x18, b"20490101000000Z"),
        (0x18, b"20500101000000.5Z"),
        (0x18, b"500101000000Z"),
        (0x04, b"500101000000Z"),
    ):
        with pytest.raises(NotDer):
            Reader(wrapped(tag, bad)).time()


def test_an_extension_stands_once_and_writes_no_default_out() -> None:
    one = bytes.fromhex("0603551d0f0401aa")
    critical = bytes.fromhex("0603551d0f0101ff0401aa")
    assert Reader(wrapped(0x30, wrapped(0x30, critical))).extensions()["2.5.29.15"].critical
    assert not Reader(wrapped(0x30, wrapped(0x30, one))).extensions()["2.5.29.15"].critical
    for bad in (
        wrapped(0x30, b""),
        wrapped(0x30, wrapped(0x30, one) * 2),
        wrapped(0x30, wrapped(0x30, bytes.fromhex("0603551d0f0101000401aa"))),
        wrapped(0x30, wrapped(0x30, one + b"\x05\x00")),
        wrapped(0x30, b"".join(wrapped(0x30, encodable(n)) for n in range(41))),
    ):
        with pytest.raises(NotDer):
            Reader(bad).extensions()


def encodable(number: int) -> bytes:
    return wrapped(0x06, encoded(f"1.2.{number}")) + bytes.fromhex("0401aa")


def test_the_algorithm_beside_a_signature_is_the_one_under_it() -> None:
    der = CHAIN[0]
    place = der.rindex(bytes.fromhex("2a8648ce3d040303"))
    changed = der[: place + 7] + b"\x02" + der[place + 8 :]
    assert x509.load_der_x509_certificate(der)
    with pytest.raises(NotDer):
        read_certificate(changed)
