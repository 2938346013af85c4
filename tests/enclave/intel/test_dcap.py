"""Intel's collateral: every byte that counts is signed, and a set that isn't whole is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.clock import fixed_clock
from cloister.enclave import AttestationError
from cloister.enclave.attestation import CollateralDocument, TcbStatus
from cloister.enclave.attestation.intel.dcap import KEYS, DcapCollateral, read_collateral, sound_collateral
from cloister.enclave.attestation.intel.tcb import Rating, rate_platform, worst_of
from cloister.enclave.attestation.simulated.intel import SIMULATED_PLATFORM, TEE_TCB_SVN, SimulatedIntel
from cloister.enclave.attestation.simulated.intel_collateral import Published, publish
from tests.enclave.intel.scene import ISSUED, NOW, published, vendor

SETS = (
    "sgx/collateral/automata-sgx-00606a-2025-08.json",
    "sgx/collateral/phala-sgx-00a067-2025-06.json",
    "tdx/collateral/automata-tdx-00806f-2025-10.json",
    "tdx/collateral/automata-tdx-90c06f-2025-06.json",
    "tdx/collateral/google-tdx-50806f-2023-06.json",
    "tdx/collateral/lunal-tdx-50806f-2026-03.json",
    "tdx/collateral/phala-tdx-90c06f-2026-02.json",
    "tdx/collateral/phala-tdx-b0c06f-2025-06.json",
)
MADE = published().data


def changed(change: Callable[[dict[str, Any]], None], data: bytes = MADE) -> bytes:
    parts = json.loads(data)
    change(parts)
    return json.dumps(parts).encode()


def refused(data: bytes) -> str:
    with pytest.raises(AttestationError) as error:
        read_collateral(data)
    assert sound_collateral(data) is None
    return error.value.code


@pytest.fixture(params=SETS)
def genuine(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> bytes:
    return shared_data(f"attestation/{request.param}").read_bytes()


def test_a_genuine_set_is_read_and_says_until_when_it_holds(genuine: bytes) -> None:
    found = read_collateral(genuine)
    assert found.valid_from < found.valid_until
    assert found.valid_until <= min(date.next_update for date in found.dates if date.next_update)
    assert found.holds_at(found.valid_from)
    assert not found.holds_at(found.dates[0].issued_at.replace(year=2020))


def test_a_changed_character_of_a_signed_part_is_refused(genuine: bytes) -> None:
    parts = json.loads(genuine)
    for name in ("tcb_info", "qe_identity"):
        text = parts[name]
        for at in range(0, len(text), 199):
            other = "0" if text[at] != "0" else "1"
            data = changed(lambda p: p.update({name: text[:at] + other + text[at + 1 :]}), genuine)  # noqa: B023
            assert refused(data) == "attestation.collateral"
    for name in ("pck_crl", "root_ca_crl", "tcb_info_signature", "qe_identity_signature"):
        text = parts[name]
        for at in range(0, len(text), 97):
            other = "0" if text[at] != "0" else "1"
            data = changed(lambda p: p.update({name: text[:at] + other + text[at + 1 :]}), genuine)  # noqa: B023
            assert refused(data) == "attestation.collateral"


def test_the_services_whole_answer_is_read_by_the_bytes_that_are_signed_in_it() -> None:
    def wrap(parts: dict[str, Any]) -> None:
        for name, member in (("tcb_info", "tcbInfo"), ("qe_identity", "enclaveIdentity")):
            parts[name] = f'{{"{member}":{parts[name]},"signature":"{parts[f"{name}_signature"]}"}}'

    plain, wrapped = read_collateral(MADE), read_collateral(changed(wrap))
    assert wrapped.tcb_info == plain.tcb_info
    assert wrapped.qe_identity == plain.qe_identity

    def contradict(parts: dict[str, Any]) -> None:
        wrap(parts)
        parts["tcb_info"] = parts["tcb_info"].replace(parts["tcb_info_signature"], "00" * 64)

    assert refused(changed(contradict)) == "attestation.collateral"


def test_a_re_encoding_of_a_signed_part_is_refused() -> None:
    """The same values in other bytes aren't what was signed."""

    def re_encode(parts: dict[str, Any]) -> None:
        parts["tcb_info"] = json.dumps(json.loads(parts["tcb_info"]))

    assert refused(changed(re_encode)) == "attestation.collateral"


@pytest.mark.parametrize("name", sorted(KEYS))
@pytest.mark.parametrize("value", [None, "", "00", 7, "-----BEGIN CERTIFICATE-----\n"])
def test_a_set_without_one_of_its_parts_is_refused(name: str, value: object) -> None:
    assert refused(changed(lambda parts: parts.update({name: value}))) == "attestation.collateral"
    assert refused(changed(lambda parts: parts.pop(name))) == "attestation.collateral"


def test_parts_of_another_vendor_are_refused() -> None:
    stranger = SimulatedIntel.create(fixed_clock(NOW - timedelta(days=9)))
    other = json.loads(publish(stranger, ISSUED, Published(evaluation=19)).data)
    for name in sorted(KEYS):
        assert refused(changed(lambda parts: parts.update({name: other[name]}))) == "attestation.collateral"  # noqa: B023
    for prefix in ("tcb_info", "qe_identity", "pck_crl"):
        mixed = {name: value for name, value in other.items() if name.startswith(prefix)}
        assert refused(changed(lambda parts: parts.update(mixed))) == "attestation.collateral"  # noqa: B023


def test_identity_and_tcb_info_of_different_kinds_of_hardware_are_refused() -> None:
    other = json.loads(published(Published(kind="SGX")).data)
    enclave = {name: value for name, value in other.items() if name.startswith("qe_identity")}
    assert refused(changed(lambda parts: parts.update(enclave))) == "attestation.collateral"


def test_a_set_that_names_its_own_signer_is_read_for_the_sake_of_its_lists() -> None:
    """What it rates is refused where it is used; a list that nobody reads would revoke nothing."""
    serial = vendor().tcb_signer.certificate.serial_number
    found = read_collateral(published(Published(revoked_authorities=(serial,))).data)
    assert found.signers == {serial}
    assert found.root_crl.serials == {serial}


def test_a_status_that_intel_does_not_give_is_refused() -> None:
    assert refused(published(Published(status=TcbStatus.NOT_RATED)).data) == "attestation.collateral"


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_garbage_brings_nothing_but_the_refusal(data: bytes) -> None:
    refused(data)


@given(st.integers(0, len(MADE) - 1), st.binary(max_size=6), st.integers(0, 6))
def test_an_edited_set_is_refused_or_says_the_same(at: int, put: bytes, cut: int) -> None:
    edited = MADE[:at] + put + MADE[at + cut :]
    found, made = sound_collateral(edited), sound_collateral(MADE)
    assert made is not None
    if found is not None:
        assert _meaning(found) == _meaning(made)


def _meaning(found: DcapCollateral) -> tuple[object, ...]:
    return (found.tcb_info, found.qe_identity, found.pck_crl, found.root_crl, found.pck_authority)


def test_deep_and_large_documents_are_refused() -> None:
    assert refused(b'{"a":' * 5000 + b"1" + b"}" * 5000) == "attestation.collateral"
    assert refused(b'"' + b"a" * (1024 * 1024) + b'"') == "attestation.collateral"


S = TcbStatus


@pytest.mark.parametrize(
    ("parts", "together"),
    [
        ((S.UP_TO_DATE, S.UP_TO_DATE), S.UP_TO_DATE),
        ((S.SW_HARDENING_NEEDED, S.UP_TO_DATE), S.SW_HARDENING_NEEDED),
        ((S.CONFIGURATION_NEEDED, S.UP_TO_DATE), S.CONFIGURATION_NEEDED),
        ((S.CONFIGURATION_NEEDED, S.SW_HARDENING_NEEDED), S.CONFIGURATION_AND_SW_HARDENING_NEEDED),
        ((S.SW_HARDENING_NEEDED, S.OUT_OF_DATE), S.OUT_OF_DATE),
        ((S.CONFIGURATION_NEEDED, S.OUT_OF_DATE), S.OUT_OF_DATE_CONFIGURATION_NEEDED),
        ((S.CONFIGURATION_AND_SW_HARDENING_NEEDED, S.OUT_OF_DATE), S.OUT_OF_DATE_CONFIGURATION_NEEDED),
        ((S.OUT_OF_DATE_CONFIGURATION_NEEDED, S.UP_TO_DATE), S.OUT_OF_DATE_CONFIGURATION_NEEDED),
        ((S.UP_TO_DATE, S.REVOKED, S.OUT_OF_DATE), S.REVOKED),
    ],
)
def test_the_status_of_all_parts_is_that_of_the_worst(
    parts: tuple[TcbStatus, ...], together: TcbStatus
) -> None:
    ratings = [Rating(status=status, advisories=(f"INTEL-SA-{n}",)) for n, status in enumerate(parts)]
    for order in (ratings, ratings[::-1]):
        found = worst_of(order)
        assert found.status is together
        assert found.advisories == tuple(f"INTEL-SA-{n}" for n in range(len(parts)))


def test_a_platform_is_of_the_first_level_of_which_none_of_its_versions_is_below() -> None:
    info = read_collateral(MADE).tcb_info
    right = SIMULATED_PLATFORM
    assert rate_platform(info, right, TEE_TCB_SVN) is not None
    assert rate_platform(info, replace(right, pcesvn=right.pcesvn - 1), TEE_TCB_SVN) is None
    for index in range(16):
        components = list(right.components)
        components[index] = 0
        assert rate_platform(info, replace(right, components=tuple(components)), TEE_TCB_SVN) is None


def test_the_modules_own_versions_are_left_to_its_identity_where_it_has_one() -> None:
    info = read_collateral(MADE).tcb_info
    for svn, rated in (
        (bytes([0, 1, 2]), True),
        (bytes([4, 0, 2]), False),
        (bytes([4, 1, 1]), False),
        (bytes([3, 0, 2]), False),
    ):
        found = rate_platform(info, SIMULATED_PLATFORM, svn.ljust(16, b"\0"))
        assert (found is not None) == rated
    assert rate_platform(
        read_collateral(published(Published(kind="SGX")).data).tcb_info, SIMULATED_PLATFORM, None
    )


def test_a_document_is_named_by_its_bytes() -> None:
    document = published()
    assert isinstance(document, CollateralDocument)
    assert {date.sha256 for date in read_collateral(document.data).dates} == {document.sha256}
