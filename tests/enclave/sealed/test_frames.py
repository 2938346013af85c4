"""The border's form: sizes first, one encoding, and a peer that is taken for hostile."""

from __future__ import annotations

import io
import os
import struct
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.errors import SealedError
from cloister.enclave.sealed import SealedHost
from cloister.enclave.sealed.frames import MAGIC, MAX_HEADER, PREFIX, Frame, NodeEnd, WorkerEnd, read_header
from cloister.enclave.sealed.weights import WeightsForm
from tests.enclave.sealed.scene import a_worker


def quiet() -> None:
    pass


def received(data: bytes, most: int = 100) -> Frame:
    reading, writing = os.pipe()
    unused, away = os.pipe()
    os.write(writing, data)
    os.close(writing)
    os.close(unused)
    end = NodeEnd(reading, away)
    try:
        return end.receive(most, time.monotonic() + 2, quiet)
    finally:
        end.close()


def written(frame: Frame) -> bytes:
    return frame.head() + bytes(frame.payload)


@given(
    kind=st.text(min_size=1, max_size=20),
    seq=st.integers(0, 2**31),
    payload=st.binary(max_size=100),
    extra=st.dictionaries(
        st.text(max_size=8).filter(lambda name: name not in ("kind", "seq")), st.integers(0, 9)
    ),
)
def test_what_is_written_is_read(kind: str, seq: int, payload: bytes, extra: dict[str, int]) -> None:
    frame = received(written(Frame(kind, seq, dict(extra), payload)))
    assert (frame.kind, frame.seq, frame.fields, bytes(frame.payload)) == (kind, seq, extra, payload)


@given(st.binary(max_size=200))
def test_garbage_gives_the_protocols_error_or_the_end_and_no_other(data: bytes) -> None:
    with pytest.raises((SealedError, EOFError)):
        received(data)


@given(st.integers(0, 40), st.integers(1, 255))
def test_one_changed_byte_of_a_header_never_goes_unnoticed_as_another_request(place: int, flip: int) -> None:
    data = bytearray(written(Frame("round", 7, {"aborted": False}, b"weights")))
    data[place % len(data)] ^= flip
    try:
        frame = received(bytes(data))
    except (SealedError, EOFError):
        return
    assert (frame.kind, frame.seq, frame.fields, bytes(frame.payload)) != (
        "round",
        7,
        {"aborted": False},
        b"weights",
    )


@pytest.mark.parametrize(
    "prefix",
    [
        PREFIX.pack(MAGIC, MAX_HEADER + 1, 0),
        PREFIX.pack(MAGIC, 10, 101),
        PREFIX.pack(MAGIC, 10, 2**63),
        PREFIX.pack(b"CLF2", 10, 0),
    ],
    ids=["header", "payload", "payload beyond all", "another format"],
)
def test_lengths_are_refused_before_anything_is_allocated(prefix: bytes) -> None:
    with pytest.raises(SealedError) as refused:
        received(prefix)
    assert refused.value.code == "sealed.protocol"


@pytest.mark.parametrize(
    "header",
    [
        b'{"kind":"a"}',
        b'{"kind":1,"seq":1}',
        b'{"kind":"a","seq":-1}',
        b'{"kind":"a","seq":true}',
        b'{"seq":1,"kind":"a"}',
        b'{"kind":"a","seq":1,"seq":1}',
        b"[]",
        b"\xff",
        b'{"kind":"a","seq":1,"x":' + b"[" * 40 + b"]" * 40 + b"}",
    ],
)
def test_a_header_is_read_in_its_one_form_only(header: bytes) -> None:
    with pytest.raises(SealedError) as refused:
        read_header(header)
    assert refused.value.code == "sealed.protocol"


@pytest.mark.timed
def test_a_peer_that_stalls_costs_no_more_than_the_deadline() -> None:
    reading, writing = os.pipe()
    end = NodeEnd(reading, os.dup(writing))
    os.write(writing, MAGIC)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        end.receive(10, began + 0.2, quiet)
    with pytest.raises(TimeoutError):
        end.send(Frame("big", 1, {}, bytes(4 * 1024 * 1024)), time.monotonic() + 0.2, quiet)
    assert time.monotonic() - began < 2
    os.close(writing)
    end.close()


@pytest.mark.timed
def test_a_peer_that_drips_bytes_costs_no_more_than_the_deadline() -> None:
    reading, writing = os.pipe()
    end = NodeEnd(reading, os.dup(writing))
    stop = threading.Event()

    def drip() -> None:
        os.write(writing, PREFIX.pack(MAGIC, MAX_HEADER, 0))
        while not stop.wait(0.005):
            os.write(writing, b"{")

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        end.receive(10, began + 0.3, quiet)
    stop.set()
    thread.join()
    assert time.monotonic() - began < 2
    os.close(writing)
    end.close()


@pytest.mark.timed
def test_a_peer_that_sips_a_request_costs_no_more_than_the_deadline_and_is_looked_after() -> None:
    reading, writing = os.pipe()
    unused, away = os.pipe()
    end = NodeEnd(unused, writing)
    stop, looks = threading.Event(), []

    def sip() -> None:
        while not stop.wait(0.002):
            os.read(reading, 4096)

    thread = threading.Thread(target=sip)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        end.send(Frame("big", 1, {}, bytes(32 * 1024 * 1024)), began + 0.4, lambda: looks.append(1))
    assert time.monotonic() - began < 1.5
    assert len(looks) > 3
    stop.set()
    thread.join()
    end.close()
    os.close(reading)
    os.close(away)


def test_a_peer_that_drips_an_answer_is_looked_after_meanwhile() -> None:
    reading, writing = os.pipe()
    end = NodeEnd(reading, os.dup(writing))
    stop = threading.Event()

    def drip() -> None:
        os.write(writing, PREFIX.pack(MAGIC, MAX_HEADER, 0))
        while not stop.wait(0.002):
            os.write(writing, b"{")

    def violated() -> None:
        raise SealedError("sealed.died", "It is dead.")

    thread = threading.Thread(target=drip)
    thread.start()
    with pytest.raises(SealedError) as looked:
        end.receive(10, time.monotonic() + 5, violated)
    assert looked.value.code == "sealed.died"
    stop.set()
    thread.join()
    os.close(writing)
    end.close()


@pytest.mark.timed
def test_a_message_has_a_time_of_its_own_from_its_first_byte_whatever_the_answer_may_take() -> None:
    reading, writing = os.pipe()
    end = NodeEnd(reading, os.dup(writing), seconds=0.2)
    began = time.monotonic()
    timer = threading.Timer(0.5, os.write, (writing, written(Frame("done", 1))))
    timer.start()
    assert end.receive(10, began + 30, quiet).kind == "done"
    os.write(writing, MAGIC)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        end.receive(10, began + 30, quiet)
    assert time.monotonic() - began < 2
    with pytest.raises(TimeoutError):
        end.send(Frame("big", 1, {}, bytes(4 * 1024 * 1024)), began + 30, quiet)
    assert time.monotonic() - began < 4
    os.close(writing)
    end.close()


def test_both_ends_agree() -> None:
    (to_worker, requests), (answers, from_worker) = os.pipe(), os.pipe()
    node, worker = NodeEnd(answers, requests), WorkerEnd(to_worker, from_worker)
    node.send(Frame("round", 3, {"a": 1}, b"12345"), time.monotonic() + 1, quiet)
    head = worker.next_head(10)
    assert head == ("round", 3, {"a": 1}, 5)
    held = bytearray(5)
    assert worker.fill(memoryview(held))
    worker.send(Frame("done", 3, {}, held))
    assert bytes(node.receive(10, time.monotonic() + 1, quiet).payload) == b"12345"
    node.close()
    assert worker.next_head(10) is None
    os.close(to_worker)
    os.close(from_worker)


HOSTILE_ANSWERS = {
    "no frame": b"hello, this is no frame at all",
    "a payload nobody asked for": PREFIX.pack(MAGIC, 24, 1000),
    "an enormous payload": PREFIX.pack(MAGIC, 24, 2**62),
    "another request's answer": Frame("done", 99).head(),
    "another kind": Frame("round", 2).head(),
    "an error without a code": Frame("error", 2).head(),
    "an error of another room": Frame("error", 2, {"code": "policy.denied"}).head(),
    "an error nobody declared": Frame("error", 2, {"code": "sealed.patient_has_diabetes"}).head(),
    "an error with more than its code": Frame("error", 2, {"code": "sealed.died", "and": "more"}).head(),
}


@pytest.mark.parametrize("what", HOSTILE_ANSWERS)
def test_a_worker_that_breaks_the_protocol_is_killed(sealed_host: SealedHost, what: str) -> None:
    worker = a_worker(sealed_host)
    with pytest.raises(SealedError) as refused:
        worker.request("raw", {"bytes": HOSTILE_ANSWERS[what].hex()})
    assert refused.value.code == "sealed.protocol"
    with pytest.raises(SealedError) as over:
        worker.request("echo", {"size": 1})
    assert over.value.code == "sealed.closed"


def test_weights_have_one_encoding_that_both_sides_know() -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(2, np.float32)}
    form = WeightsForm.of(arrays)
    data = form.write(arrays)
    again = form.read(bytearray(data))
    assert list(again) == ["a", "b"]
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    again["a"][0] = np.nan
    assert np.isnan(form.read(form.write(again))["a"][0])
    from safetensors.numpy import save

    smuggled = [
        data + b"\0",
        data[:-1],
        save({**arrays, "c": np.ones(1, np.float32)}),
        save(arrays, metadata={"patient": "7"}),
        save({"a": arrays["a"], "c": arrays["b"]}),
        save({"a": arrays["a"], "b": arrays["b"].T.copy()}),
        struct.pack("<Q", 2**60) + data[8:],
    ]
    for one in smuggled:
        with pytest.raises(SealedError):
            form.read(one)
    assert io.BytesIO(data).read(8) == form.head[:8]
