"""Who sends or reads slowly is cut off, and keeps nobody else out."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from cloister.immune.service import server
from tests.immune.service.brains import Client, MemoryBrain, batch, event, running

HEAD = (
    b"POST /api/v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 1000\r\n"
)
SECONDS = 1.0


def seconds_until_cut(client: Client, first: bytes, drop: bytes) -> float:
    """How long a connection lives that sends a byte every now and then."""
    began = time.monotonic()
    with socket.create_connection(client.place, timeout=0.05) as connection:
        connection.sendall(first)
        while time.monotonic() - began < 8:
            try:
                if drop:
                    connection.sendall(drop)
                if not connection.recv(65_536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    return time.monotonic() - began


def seconds_until_cut_while_reading(client: Client, first: bytes, drop: bytes) -> float:
    began = time.monotonic()
    with socket.create_connection(client.place, timeout=5) as connection:
        connection.sendall(first)
        assert connection.recv(12) == b"HTTP/1.1 413"
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 8:
                connection.sendall(drop)
                time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),
        (b"POST /api/v1/telemetry HTTP/1.1\r\n", b"X-a: b\r\n"),
        (HEAD + b"\r\n", b" "),
        (HEAD.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked") + b"\r\n", b"1\r\n \r\n"),
    ],
    ids=["silent", "headers", "body", "chunks"],
)
def test_a_request_ends_in_its_time_however_slowly_it_comes(first: bytes, drop: bytes) -> None:
    with running(MemoryBrain(), request_seconds=SECONDS) as client:
        assert 0.5 * SECONDS < seconds_until_cut(client, first, drop) < 4 * SECONDS
        assert client.post(batch(event())).status == 202


@pytest.mark.timed
def test_a_hundred_slow_ones_keep_nobody_out() -> None:
    with running(MemoryBrain(), request_seconds=3.0) as client:
        slow = [socket.create_connection(client.place, timeout=5) for _ in range(100)]
        for one in slow:
            one.sendall(HEAD)
        began = time.monotonic()
        assert client.post(batch(event())).status == 202
        assert time.monotonic() - began < 2.5
        for one in slow:
            one.close()


def test_more_connections_than_are_served_are_told_so() -> None:
    with running(MemoryBrain(), request_seconds=5.0) as client:
        open_ones = [socket.create_connection(client.place, timeout=5) for _ in range(256)]
        time.sleep(0.2)
        assert client.get("/health").status == 503
        for one in open_ones:
            one.close()
        time.sleep(0.2)
        assert client.get("/health").status == 200


def test_connections_without_end_do_not_use_up_the_files_of_the_process() -> None:
    with running(MemoryBrain(), request_seconds=5.0) as client:
        many = []
        for _ in range(600):
            with contextlib.suppress(OSError):
                many.append(socket.create_connection(client.place, timeout=5))
        time.sleep(0.5)
        closed = 0
        for one in many:
            one.setblocking(False)
            try:
                closed += one.recv(1) == b""
            except BlockingIOError:
                pass
            except OSError:
                closed += 1
        assert 600 - 512 - 10 <= closed < 200
        for one in many:
            one.close()


def test_a_connection_that_is_used_again_has_a_new_time_for_each_request() -> None:
    with running(MemoryBrain(), request_seconds=SECONDS) as client:
        connection = http.client.HTTPConnection(*client.place, timeout=5)
        for _ in range(4):
            connection.request("GET", "/version")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"version":"0.1.0"}')
            time.sleep(0.45 * SECONDS)
        connection.close()


def test_a_body_that_goes_on_after_its_refusal_is_cut_off() -> None:
    endless = HEAD.replace(b"1000", b"99999999999") + b"\r\n"
    with running(MemoryBrain(), request_seconds=SECONDS) as client:
        assert seconds_until_cut_while_reading(client, endless, b" " * 1000) < 4 * SECONDS


def test_who_never_reads_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 1)
    brain = MemoryBrain()
    ask = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    monkeypatch.setattr(brain, "status", lambda: {"much": "x" * 20_000_000})
    with running(brain, request_seconds=SECONDS) as client:
        with socket.create_connection(client.place, timeout=5) as connection:
            connection.sendall(ask)
            time.sleep(4 * SECONDS)
            received = 0
            with contextlib.suppress(ConnectionError):
                while part := connection.recv(1_000_000):
                    received += len(part)
        assert received < 20_000_000
        assert client.get("/health").status == 200
