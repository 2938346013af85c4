"""The event log of a trust domain: it counts where its replay gives what the quote holds, and only there."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave import AttestationError, Evidence, Status, TrustStore
from cloister.enclave.attestation import authenticate
from cloister.enclave.attestation.intel.eventlog import MAX_LOG_BYTES, read_event_log, replay
from cloister.enclave.attestation.intel.platform import QuoteDetail
from tests.enclave.intel.samples import Sample
from tests.enclave.intel.scene import Scene

NO_ACTION, ACTION = 3, 5


def first_event(algorithm: int = 0x000C, size: int = 48) -> bytes:
    body = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, 1)
    body += struct.pack("<HH", algorithm, size) + b"\0"
    return struct.pack("<II20sI", 1, NO_ACTION, bytes(20), len(body)) + body


def event(index: int, data: bytes, kind: int = ACTION) -> bytes:
    digest = hashlib.sha384(data).digest()
    return struct.pack("<IIIH", index, kind, 1, 0x000C) + digest + struct.pack("<I", len(data)) + data


LOG = first_event() + event(1, b"firmware") + event(2, b"loader") + event(3, b"kernel") + b"\xff" * 20


def extended(*data: bytes) -> bytes:
    register = bytes(48)
    for one in data:
        register = hashlib.sha384(register + hashlib.sha384(one).digest()).digest()
    return register


def refused(log: bytes) -> None:
    with pytest.raises(AttestationError) as error:
        read_event_log(log)
    assert error.value.code == "attestation.malformed"


def test_a_genuine_log_gives_the_registers_of_its_quote(shared_data: Callable[[str], Path]) -> None:
    sample = Sample(shared_data, "tdx/v4-uptodate-ccel")
    known = json.loads((sample.root / "v4-uptodate-ccel" / "ccel.expected.json").read_text())
    assert sample.log is not None
    events = read_event_log(sample.log)
    assert len([one for one in events if one.extends]) == known["events_replayed"]
    assert {str(i): value.hex() for i, value in enumerate(replay(events)[:3])} == known["rtmr"]
    found = sample.authenticate()
    assert isinstance(found.detail, QuoteDetail)
    with_log = authenticate(sample.evidence, TrustStore.production(), sample.at)
    assert isinstance(with_log.detail, QuoteDetail)
    assert with_log.detail.events == events
    assert any(one.data_are_measured for one in events)


def test_a_genuine_log_with_any_digest_changed_is_refused(shared_data: Callable[[str], Path]) -> None:
    sample = Sample(shared_data, "tdx/v4-uptodate-ccel")
    assert sample.log is not None
    for one in read_event_log(sample.log):
        at = sample.log.index(one.digest)
        log = sample.log[:at] + bytes([one.digest[0] ^ 1]) + sample.log[at + 1 :]
        evidence = Evidence(sample.tee, sample.report, extras={"ccel": log})
        if not one.extends:
            continue
        with pytest.raises(AttestationError) as error:
            authenticate(evidence, TrustStore.production(), sample.at)
        assert error.value.code == "attestation.measurement"


def test_a_log_counts_only_beside_the_quote_whose_registers_it_gives() -> None:
    rtmrs = (extended(b"firmware"), extended(b"loader"), extended(b"kernel"), bytes(48))
    right = Scene().quoting(rtmrs=rtmrs)
    evidence = right.evidence()
    verdict = right.verify(Evidence(evidence.tee, evidence.report, extras={"ccel": LOG}))
    assert verdict.claims is not None
    assert isinstance(verdict.claims.detail, QuoteDetail)
    assert [one.data for one in verdict.claims.detail.events] == [b"firmware", b"loader", b"kernel"]
    wrong = Scene()
    evidence = wrong.evidence()
    verdict = wrong.verify(Evidence(evidence.tee, evidence.report, extras={"ccel": LOG}))
    assert verdict.code == "attestation.measurement"
    assert verdict.claims is None


def test_the_applications_register_is_held_against_the_log_only_where_the_log_tells_of_it() -> None:
    rtmrs = (bytes(48), bytes(48), bytes(48), b"\1" * 48)
    scene = Scene().quoting(rtmrs=rtmrs)
    evidence = scene.evidence()
    silent = Evidence(evidence.tee, evidence.report, extras={"ccel": first_event()})
    assert scene.verify(silent).status is Status.TRUSTED
    telling = Evidence(evidence.tee, evidence.report, extras={"ccel": first_event() + event(4, b"x")})
    assert scene.verify(telling).code == "attestation.measurement"


def test_events_of_no_action_extend_nothing() -> None:
    log = first_event() + event(1, b"note", kind=NO_ACTION) + event(1, b"firmware")
    assert replay(read_event_log(log))[0] == extended(b"firmware")


@pytest.mark.parametrize(
    "log",
    [
        b"",
        b"\0" * 64,
        LOG[:40],
        LOG[:-21],
        first_event(algorithm=0x000B, size=32),
        first_event(size=32),
        first_event() + event(5, b"beyond"),
        first_event() + event(0, b"MRTD can't be extended"),
        first_event() + event(1, b"x").replace(b"\x0c\x00", b"\x0b\x00", 1),
        first_event() + event(1, b"x")[:-1],
        LOG + b"more",
        first_event() + struct.pack("<III", 1, ACTION, 2) + bytes(200) + b"\1",
        first_event() + event(1, b"x")[:-5] + b"\xff\xff\xff\x7f\0x",
    ],
)
def test_logs_that_are_not_of_the_form_are_refused(log: bytes) -> None:
    refused(log)


def test_a_log_past_its_bounds_is_refused_at_once() -> None:
    started = time.monotonic()
    refused(first_event() + b"\0" * MAX_LOG_BYTES)
    refused(first_event() + event(1, b"") * 9000)
    refused(first_event() + struct.pack("<IIIH", 0, NO_ACTION, 1, 0x000C) * 50_000 + b"\1")
    assert time.monotonic() - started < 5


@given(st.integers(0, len(LOG)), st.binary(max_size=8), st.integers(0, 8))
def test_an_edited_log_is_refused_or_read_and_brings_nothing_else(at: int, put: bytes, cut: int) -> None:
    try:
        replay(read_event_log(LOG[:at] + put + LOG[at + cut :]))
    except AttestationError as error:
        if error.code != "attestation.malformed":
            raise
