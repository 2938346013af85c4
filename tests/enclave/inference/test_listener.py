"""A service's door: nobody who comes to it holds up, puts out or ends anybody else."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.errors import CloisterError, InputError, StorageError
from cloister.enclave.errors import InferenceError, SealedError
from cloister.enclave.inference import (
    Hello,
    InferenceListener,
    InferenceSession,
    InferenceWorker,
    Line,
    Query,
    SocketEndpoint,
)
from cloister.enclave.inference.listener import INFERENCE
from cloister.enclave.inference.messages import MAX_ANSWER_BYTES, MAX_HELLO_BYTES, MAX_SESSIONS, session_id
from cloister.enclave.keyrelease.hpke import OVERHEAD_BYTES
from cloister.enclave.wire import Address, Channel, Kind, ListenerLimits, Pace
from cloister.enclave.wire.address import peer_of
from tests.enclave.inference.scene import CARD, SEAL, Desk, Rows, halves, rows, session
from tests.enclave.wire import ended, frame, raw, serving

HELLO = Hello(bytes(32), "0" * 64).encode()
QUICK = ListenerLimits(pace=Pace(0.3, 64 * 1024 * 1024), first_seconds=1.0, drain_seconds=5.0)


@contextmanager
def door(
    folder: Path, limits: ListenerLimits | None = None, desk: Desk | None = None
) -> Iterator[InferenceListener]:
    with serving(InferenceListener(str(folder / "socket"), limits), desk or Desk()) as listener:
        yield listener


@contextmanager
def visiting(listener: InferenceListener) -> Iterator[InferenceSession]:
    endpoint = SocketEndpoint(listener.address)
    try:
        yield session(endpoint)
    finally:
        endpoint.close()


def settled(desk: Desk, sessions: int) -> bool:
    """Whether so many sessions are left, after a moment."""
    for _ in range(100):
        if len(desk.worker._sessions) == sessions:
            return True
        time.sleep(0.02)
    return False


def test_hellos_from_ever_new_connections_put_nobody_out(tmp_path: Path) -> None:
    desk = Desk()
    with door(tmp_path, desk=desk) as listener, visiting(listener) as found:
        found.predict(rows())
        for _ in range(2 * MAX_SESSIONS):
            with visiting(listener):
                pass
        found.predict(rows())
        assert settled(desk, 1)


def test_who_comes_to_a_full_service_hears_that_it_is_busy_and_who_is_in_stays(tmp_path: Path) -> None:
    with door(tmp_path, replace(QUICK, connections=3, per_peer=9, first_seconds=60)) as listener:
        with ExitStack() as held:
            insiders = [held.enter_context(visiting(listener)) for _ in range(3)]
            for _ in range(5):
                with pytest.raises(InferenceError) as caught, visiting(listener):
                    pass
                assert (caught.value.code, "minute" in caught.value.hint) == ("inference.busy", True)
            for one in insiders:
                assert one.predict(rows()).shape == (3, 2)
        for _ in range(100):
            try:
                with visiting(listener) as found:
                    answered = found.predict(rows())
            except InferenceError:
                time.sleep(0.02)
            else:
                break
        assert answered.shape == (3, 2), "a place came free"


def test_one_user_or_address_takes_a_part_of_the_places_only(tmp_path: Path) -> None:
    for address in (str(tmp_path / "socket"), "127.0.0.1:0"):
        limits = replace(QUICK, connections=10, per_peer=2, first_seconds=60)
        listener = InferenceListener(address, limits)
        with serving(listener, Desk()), visiting(listener), visiting(listener):
            with pytest.raises(InferenceError) as caught, visiting(listener):
                pass
            assert caught.value.code == "inference.busy"


class Peer:
    """A connection from somewhere."""

    family = socket.AF_INET6

    def __init__(self, address: str) -> None:
        self._address = address

    def getpeername(self) -> tuple[str, int, int, int]:
        return self._address, 40000, 0, 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:0:7::1", "2001:db8:0:7:ffff::2", True),
        ("2001:db8:0:7::1", "2001:db8:0:8::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", False),
    ],
)
def test_who_has_a_whole_network_of_addresses_counts_as_one(one: str, other: str, same: bool) -> None:
    assert (peer_of(Peer(one)) == peer_of(Peer(other))) is same  # type: ignore[arg-type]


def test_who_comes_when_the_machine_has_no_thread_to_give_is_let_go_and_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = threading.Thread.start, [1, 1]

    def start(thread: threading.Thread) -> None:
        if refusals and getattr(thread, "_target", None).__name__ in ("_served", "_turned_away"):
            refusals.pop()
            raise RuntimeError("can't start new thread")
        real(thread)

    with door(tmp_path) as listener:
        monkeypatch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with raw(listener) as unlucky:
                assert ended(unlucky, 2.0)
        with visiting(listener) as found:
            assert found.predict(rows()).shape == (3, 2)
        assert not refusals


def test_who_connects_and_asks_nothing_makes_room_and_who_has_asked_stays(tmp_path: Path) -> None:
    with door(tmp_path, replace(QUICK, first_seconds=0.5)) as listener, visiting(listener) as found:
        found.predict(rows())
        silent, greeted = raw(listener), raw(listener)
        greeted.sendall(frame(Kind.HELLO, HELLO))
        assert ended(silent, 3)
        assert ended(greeted, 3)
        assert found.predict(rows()).shape == (3, 2)


@pytest.mark.parametrize(
    "begun", [frame(Kind.HELLO, HELLO)[:2], frame(Kind.HELLO, HELLO)[:40]], ids=["head", "message"]
)
def test_a_byte_now_and_then_holds_no_connection_and_no_other_client(tmp_path: Path, begun: bytes) -> None:
    with door(tmp_path, replace(QUICK, first_seconds=60)) as listener:
        slow = raw(listener)
        slow.sendall(begun)
        began = time.monotonic()
        with visiting(listener) as found:
            found.predict(rows())
        assert time.monotonic() - began < 5, "the other client waited"
        try:
            while time.monotonic() - began < 10:
                slow.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        assert time.monotonic() - began < 5, "the connection was held"


def test_a_client_that_does_not_read_its_answer_is_let_go_of(tmp_path: Path) -> None:
    desk = Desk(InferenceWorker(CARD.model_copy(update={"classes": 1000}), SEAL, zeros))
    with door(tmp_path, QUICK, desk) as listener:
        endpoint = SocketEndpoint(listener.address)
        found = session(endpoint)
        query = found._sealed(rows(1000), bytearray(32)).encode()
        endpoint._socket.sendall(frame(Kind.QUERY, query))
        assert settled(desk, 0)
        endpoint.close()


def zeros(asked: Rows) -> Rows:
    return np.zeros((len(asked), 1000), np.float32)


def test_a_second_hello_and_a_query_of_another_session_end_their_own_connection_only(tmp_path: Path) -> None:
    with door(tmp_path) as listener, visiting(listener) as found:
        found.predict(rows())
        twice = SocketEndpoint(listener.address)
        twice.hello(HELLO)
        with pytest.raises(InferenceError) as caught:
            twice.hello(HELLO)
        assert caught.value.code == "inference.refused"
        assert ended(twice._socket, 3)
        # Who saw the welcome pass can seal to its key as well as its client; not over another connection.
        found._sequence = 2**40
        seen, found._sequence = found._sealed(rows(), bytearray(32)), 1
        other = SocketEndpoint(listener.address)
        other.hello(HELLO)
        with pytest.raises(InferenceError) as caught:
            other.query(seen.encode())
        assert caught.value.code == "inference.refused"
        assert ended(other._socket, 3)
        assert found.predict(rows()).shape == (3, 2)


def test_a_query_before_a_hello_is_not_even_read(tmp_path: Path) -> None:
    with door(tmp_path) as listener:
        eager = raw(listener)
        eager.sendall(struct.pack(">IB", 4 * 1024 * 1024, Kind.QUERY))
        assert ended(eager, 3)
        greedy = raw(listener)
        greedy.sendall(struct.pack(">IB", MAX_HELLO_BYTES + 1, Kind.HELLO))
        assert ended(greedy, 3)


def test_what_is_being_answered_when_it_closes_is_answered(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waiting(asked: Rows) -> Rows:
        begun.set()
        go_on.wait(10)
        return halves(asked)

    found: list[Rows] = []
    desk, listener = Desk(InferenceWorker(CARD, SEAL, waiting)), InferenceListener(str(tmp_path / "socket"))
    serves = threading.Thread(target=listener.serve, args=(desk,))
    serves.start()
    with visiting(listener) as asking, visiting(listener) as idle:
        asks = threading.Thread(target=lambda: found.append(asking.predict(rows())))
        asks.start()
        assert begun.wait(10)
        listener.close()
        serves.join(0.3)
        assert serves.is_alive(), "it waits for the answer that is being made"
        go_on.set()
        asks.join()
        with pytest.raises(InferenceError) as caught:
            idle.predict(rows())
        assert caught.value.code == "inference.worker"
    serves.join()
    assert np.array_equal(found[0], halves(rows()))
    assert not (tmp_path / "socket").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SealedError("sealed.died", "A sealed worker ended by itself (status 3)."), "inference.worker"),
        (SealedError("sealed.protocol", "Across the worker's border, a record."), "inference.worker"),
        (InferenceError("inference.replay", "A query came again."), "inference.refused"),
        (InferenceError("inference.sealed", "A query doesn't open."), "inference.refused"),
        (InferenceError("inference.busy", "Much to do."), "inference.busy"),
    ],
)
def test_whatever_failed_a_client_hears_one_of_three_sentences(
    tmp_path: Path, error: CloisterError, code: str
) -> None:
    class Failing(Desk):
        def connect(self) -> Line:
            return Line(self._fail, lambda message, query: b"", lambda session: None)

        def _fail(self, message: bytes) -> tuple[bytes, bytes]:
            raise error

    with serving(InferenceListener(str(tmp_path / "socket")), Failing()) as listener:
        endpoint = SocketEndpoint(listener.address)
        with pytest.raises(InferenceError) as caught:
            endpoint.hello(HELLO)
        assert caught.value.code == code
        assert error.message not in str(caught.value)
        endpoint.close()


def test_a_service_that_is_silent_or_dribbles_does_not_hold_its_client(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as there:
        there.bind(str(tmp_path / "socket"))
        there.listen()
        silent = SocketEndpoint(str(tmp_path / "socket"), patience=0.2)
        with pytest.raises(InferenceError, match="too slow"):
            silent.hello(HELLO)
        slow = SocketEndpoint(str(tmp_path / "socket"), Pace(0.3, 1024**2), patience=5)
        there.accept()
        connection, _ = there.accept()

        def dribble() -> None:
            try:
                while True:
                    connection.sendall(b"\0")
                    time.sleep(0.05)
            except OSError:
                return

        thread = threading.Thread(target=dribble)
        thread.start()
        with pytest.raises(InferenceError):
            slow.hello(HELLO)
        slow.close()
        connection.close()
        thread.join()


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=64))
def test_garbage_in_a_channel_is_refused_and_nothing_else_is_raised(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        channel = Channel(ours, INFERENCE, Pace(1.0))
        try:
            kind, payload = channel.read({Kind.HELLO: 32}, 1.0)
        except InferenceError:
            return
        assert (kind, len(payload) <= 32) == (Kind.HELLO, True)


def test_an_answer_larger_than_its_kind_may_be_is_not_read(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack(">IB", MAX_ANSWER_BYTES + 1, Kind.ANSWER))
        with pytest.raises(InferenceError):
            Channel(ours, INFERENCE).read({Kind.ANSWER: MAX_ANSWER_BYTES}, 1.0)


class Scarce:
    """A socket that listens on a machine which now and then has nothing left to accept with."""

    def __init__(self, real: socket.socket, errors: list[int]) -> None:
        self._real, self._errors = real, errors

    def accept(self) -> object:
        if self._errors:
            raise OSError(self._errors.pop(), "scarce")
        return self._real.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_a_machine_short_of_descriptors_is_waited_for(tmp_path: Path) -> None:
    listener = InferenceListener(str(tmp_path / "socket"))
    short = [errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOMEM]
    listener._socket = Scarce(listener._socket, short)  # type: ignore[assignment]
    with serving(listener, Desk()), visiting(listener) as found:
        assert found.predict(rows()).shape == (3, 2)
    assert short == []


def test_a_socket_that_the_machine_takes_away_is_said(tmp_path: Path) -> None:
    listener = InferenceListener(str(tmp_path / "socket"))
    listener._socket = Scarce(listener._socket, [errno.EBADF])  # type: ignore[assignment]
    with pytest.raises(StorageError) as caught:
        listener.serve(Desk())
    assert caught.value.code == "storage.failed"


# Addresses


def test_an_address_in_use_is_said_and_left_alone(tmp_path: Path) -> None:
    for address in (str(tmp_path / "socket"), "127.0.0.1:0"):
        with serving(InferenceListener(address), Desk()) as listener:
            with pytest.raises(StorageError) as caught:
                InferenceListener(listener.address)
            assert caught.value.code == "storage.in_use"
            with visiting(listener) as found:
                assert found.predict(rows()).shape == (3, 2)


def test_a_socket_file_that_a_dead_service_left_behind_is_taken_over_and_no_other_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with door(tmp_path) as listener, visiting(listener) as found:
        assert found.predict(rows()).shape == (3, 2)
    path.write_text("somebody's notes")
    with pytest.raises(StorageError):
        InferenceListener(str(path))
    assert path.read_text() == "somebody's notes"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 on this machine")
def test_a_service_may_be_had_over_ipv6() -> None:
    try:
        listener = InferenceListener("[::1]:0")
    except StorageError:
        pytest.skip("no IPv6 address on this machine")
    with serving(listener, Desk()), visiting(listener) as found:
        assert listener.address.startswith("[::1]:")
        assert found.predict(rows()).shape == (3, 2)


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":80", "host:65536", "host:x", "a/" + "b" * 200, "/\0"]
)
def test_what_is_no_address_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InputError):
        Address.parse(text)


def test_an_address_that_nobody_listens_at_says_so(tmp_path: Path) -> None:
    for address in (str(tmp_path / "absent"), "127.0.0.1:1"):
        with pytest.raises(InferenceError) as caught:
            SocketEndpoint(address)
        assert caught.value.code == "inference.worker"


def test_a_line_ends_its_session_once_and_takes_nothing_after() -> None:
    desk = Desk()
    line = desk.connect()
    found = session(line)
    line.close()
    line.close()
    assert line.closed
    assert desk.worker._sessions == {}
    for use, message in ((line.hello, HELLO), (line.query, found._sealed(rows(), bytearray(32)).encode())):
        with pytest.raises(InferenceError):
            use(message)


def test_a_message_too_large_for_its_kind_goes_nowhere() -> None:
    line = Desk().connect()
    with pytest.raises(InferenceError) as caught:
        line.hello(bytes(MAX_HELLO_BYTES + 1))
    assert caught.value.code == "inference.malformed"
    desk = Desk()
    line = desk.connect()
    found = session(line)
    large = Query(session_id(found._welcome.public), 0, bytes(8 * 1024 * 1024 + OVERHEAD_BYTES))
    with pytest.raises(InferenceError):
        line.query(large.encode())


class _StoppedDesk(Desk):
    """A desk whose first calls are stopped by an error that isn't ours."""

    stopped = 2

    def _greet(self, message: bytes) -> tuple[bytes, bytes]:
        if self.stopped:
            self.stopped -= 1
            raise RuntimeError("duration 41.7x median, p=3e-05")
        return super()._greet(message)


def test_whose_call_is_stopped_hears_a_refusal_and_no_figure_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    desk = _StoppedDesk()
    with door(tmp_path, desk=desk) as listener:
        for _ in range(2):
            with pytest.raises(InferenceError) as heard, visiting(listener):
                pass
            assert heard.value.code == "inference.refused"
        with visiting(listener) as visit:
            assert visit.predict(rows()).shape[0] == len(rows())
    assert all(one.closed for one in desk.lines)
    assert "41.7" not in "".join(capfd.readouterr())
