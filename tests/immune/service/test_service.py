"""The service over a real socket: what it takes, what it refuses, and with which words."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import cloister

pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from cloister.core.errors import KeyStoreError
from cloister.immune.errors import ImmuneError
from cloister.immune.service import (
    HttpPost,
    Sender,
    encode_batch,
    read_secret,
    reading_token,
    serving,
    write_secret,
)
from cloister.immune.service.delivery import Reply
from cloister.immune.service.signing import prove
from cloister.immune.settings import ApiSettings
from tests.conftest import ROOT
from tests.immune.service.brains import Client, MemoryBrain, batch, event, running

SECRET = bytes(range(32)).hex().encode()


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    write_secret(tmp_path / "token", bytes(range(32)))
    return str(tmp_path / "token")


def signed(body: bytes, now: float | None = None, secret: bytes = SECRET) -> dict[str, str]:
    return {"Authorization": prove(secret, body, now or time.time(), os.urandom).header()}


def test_a_batch_goes_in_and_the_brain_has_it() -> None:
    """PIC-22.1.a: telemetry, a good batch."""
    brain = MemoryBrain()
    with running(brain) as client:
        answer = client.post(batch(event(), event(number=2)))
    assert (answer.status, answer.json) == (202, {"taken": 2, "limited": 0})
    assert [one.function_name for one in brain.taken] == ["shop.pay:refund"] * 2


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"\xff", {}, 400),
        (b"", {}, 400),
        (b"{}", {}, 422),
        (batch(event(duration_ms="Mrs Miller")), {}, 422),
        (batch(event()), {"Content-Type": "text/plain"}, 415),
        (batch(event()), {"Content-Type": "application/json; charset=latin-1"}, 415),
        (batch(event()), {"Content-Encoding": "gzip"}, 415),
        (batch(*[event()] * 1001), {}, 413),
        (b" " * 1_000_001, {}, 413),
    ],
)
def test_a_bad_batch_is_answered_with_its_status_and_nothing_of_it_is_taken_or_repeated(
    body: bytes, headers: dict[str, str], status: int
) -> None:
    """PIC-22.1.a: telemetry, bad batches."""
    brain = MemoryBrain()
    with running(brain, max_body_bytes=1_000_000) as client:
        answer = client.post(body, **headers)
        assert answer.status == status
        assert answer.json["code"] == "immune.telemetry_invalid"
        assert b"Miller" not in answer.body
        assert client.post(batch(event())).status == 202
    assert len(brain.taken) == 1


def test_a_wrong_field_is_named() -> None:
    with running(MemoryBrain()) as client:
        answer = client.post(batch(event(), event(duration_ms="Mrs Miller", calls=0)))
    assert sorted(line.partition(":")[0] for line in answer.json["details"]) == [
        "events.1.calls",
        "events.1.duration_ms",
    ]


def test_a_wrong_field_is_told_in_words_and_every_refusal_says_what_to_do() -> None:
    """The words of the library that reads the form are not those of who has to mend it."""
    wrong = {
        "calls": (0, "too small"),
        "process_id": (2**40, "too large"),
        "duration_ms": ("long", "not a number"),
        "failed": (1, "not true or false"),
        "size": (1.5, "not a whole number"),
        "caller": (7, "not text"),
        "args_metadata": ([], "not an object"),
        "redaction_hashes": ({}, "not a list"),
        "module_name": ("a\nb", "text of another form"),
        "name": ("x", "unknown field"),
    }
    with running(MemoryBrain(), max_batch=3) as client:
        answer = client.post(batch(event(**{name: value for name, (value, _) in wrong.items()})))
        refused = [answer, client.post(b"{"), client.post(batch(*[event()] * 4)), client.post(b"", Host="x")]
    told = dict(line.removeprefix("events.0.").split(": ") for line in answer.json["details"])
    assert told.pop("[withheld]") == wrong.pop("name")[1]
    assert told == {name: words for name, (_, words) in wrong.items()}
    assert [one.status for one in refused] == [422, 400, 413, 421]
    assert all(one.json["hint"] for one in refused)


def test_an_event_of_the_future_is_refused_beyond_what_clocks_may_be_apart() -> None:
    """What is kept is forgotten by its time: that of the year 4821 would stay for ever."""
    brain = MemoryBrain()
    with running(brain) as client:
        answer = client.post(batch(event(), event(timestamp=time.time() + 330), event(timestamp=9e10)))
        assert client.post(batch(event(timestamp=time.time() + 240))).status == 202
    assert answer.status == 422
    assert answer.json["details"] == [
        "events.1.timestamp: in the future",
        "events.2.timestamp: in the future",
    ]
    assert len(brain.taken) == 1


def exchange(client: Client, sent: bytes) -> bytes:
    """Sends bytes, and reads until nothing more comes for a second."""
    with socket.create_connection(client.place, timeout=1.0) as connection:
        received = b""
        try:
            connection.sendall(sent)
            while part := connection.recv(65_536):
                received += part
        except (ConnectionError, TimeoutError):
            pass
        return received


def test_a_body_that_is_announced_as_too_large_is_refused_before_any_of_it_comes() -> None:
    with running(MemoryBrain()) as client:
        answer = exchange(
            client,
            b"POST /api/v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_without_an_announced_length_is_read_up_to_the_bound() -> None:
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with running(MemoryBrain(), max_body_bytes=100_000) as client:
        answer = exchange(
            client,
            b"POST /api/v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2,
        )
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /api/v1/telemetry HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000,
    ],
    ids=["tls", "negative", "two lengths", "endless path", "endless header"],
)
def test_what_is_not_http_is_refused_and_the_service_lives_on(sent: bytes) -> None:
    with running(MemoryBrain()) as client:
        assert exchange(client, sent).startswith(b"HTTP/1.1 400 ")
        assert client.get("/health").status == 200


def test_a_flood_is_answered_with_how_long_to_wait() -> None:
    brain = MemoryBrain()
    with running(brain, rate_per_second=1.0, burst=10) as client:
        many = batch(*[event(f"m:f{number}") for number in range(20)])
        first = client.post(many)
        assert (first.status, first.json) == (202, {"taken": 10, "limited": 10})
        second = client.post(many)
    assert second.status == 429
    assert int(second.headers["retry-after"]) >= 1
    assert len(brain.taken) == 10


def test_one_hot_function_does_not_keep_the_others_out() -> None:
    """PIC-X8 through the service."""
    brain = MemoryBrain()
    with running(brain, rate_per_second=10.0, burst=100, max_batch=1000) as client:
        hot = batch(*[event("m:hot")] * 1000)
        for _ in range(5):
            client.post(hot)
        answer = client.post(batch(*[event(f"m:f{number}") for number in range(20)]))
    assert answer.json == {"taken": 20, "limited": 0}


def test_a_batch_of_which_nothing_may_be_taken_is_refused_though_there_is_room_for_others() -> None:
    brain = MemoryBrain()
    hot = batch(*[event("m:hot")] * 10)
    with running(brain, function_rate=0.5, burst=1000) as client:
        assert client.post(hot).json == {"taken": 1, "limited": 9}
        refused = client.post(hot)
        assert (refused.status, refused.json["code"]) == (429, "immune.telemetry_flood")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.post(batch(event("m:other"))).status == 202
    assert len(brain.taken) == 2


def test_a_brain_that_fails_makes_the_sender_try_again_and_says_nothing_of_why() -> None:
    brain = MemoryBrain(fails=[OSError("the disk of Mrs Miller")])
    with running(brain) as client:
        failed = client.post(batch(event()))
        assert (failed.status, failed.json["code"]) == (503, "immune.state_unusable")
        assert b"Miller" not in failed.body
        assert client.post(batch(event())).status == 202
    assert len(brain.taken) == 1


@pytest.mark.timed
def test_a_brain_that_is_slow_does_not_stop_the_sign_of_life() -> None:
    brain = MemoryBrain(holds=threading.Event())
    with running(brain) as client:
        sending = threading.Thread(target=client.post, args=(batch(event()),))
        sending.start()
        time.sleep(0.1)
        began = time.monotonic()
        assert client.get("/health").status == 200
        assert time.monotonic() - began < 2.0
        assert brain.holds is not None
        brain.holds.set()
        sending.join()


def test_health_is_about_the_process_and_readiness_about_the_store() -> None:
    """PIC-22.1.b."""
    brain = MemoryBrain()
    with running(brain) as client:
        assert (client.get("/health").status, client.get("/ready").status) == (200, 200)
        brain.store_is_up = False
        assert (client.get("/health").status, client.get("/ready").status) == (200, 503)
        metrics = client.get("/metrics")
        assert metrics.status == 503
        assert b"Miller" not in metrics.body


def test_the_status_tells_of_the_service_and_of_the_brain() -> None:
    """PIC-22.1.d."""
    with running(MemoryBrain()) as client:
        client.post(batch(event()))
        status = client.get("/status").json
    assert status["brain"] == {"functions": {"shop.pay:refund": {"state": "learning"}}}
    assert status["service"]["events"] == {"taken": 1, "limited": 0, "lost_by_sender": 0}
    assert status["service"]["limits"]["burst"] == 2000
    assert status["service"]["uptime_seconds"] > 0
    assert status["service"]["signed"] is False


def test_the_version_is_the_packages() -> None:
    """PIC-22.1.e."""
    with running(MemoryBrain()) as client:
        assert client.get("/version").json == {"version": cloister.__version__}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/telemetry", 405),
        ("DELETE", "/status", 405),
        ("POST", "/metrics", 405),
    ],
)
def test_what_there_is_not_is_said_so_in_the_same_form_as_every_error(
    method: str, path: str, status: int
) -> None:
    with running(MemoryBrain()) as client:
        answer = client.ask(method, path)
    assert (answer.status, answer.json["code"]) == (status, "immune.request_unknown")
    assert answer.json["message"]
    assert answer.json["hint"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ("allow" in answer.headers) is (status == 405)


def test_metrics_can_be_turned_off() -> None:
    with running(MemoryBrain(), metrics_enabled=False) as client:
        assert client.get("/metrics").status == 404


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1", "127.0.0.1.evil.example", "[::1", "a@evil"])
def test_a_page_that_reaches_this_machine_under_another_name_is_refused(host: str) -> None:
    """DNS rebinding."""
    with running(MemoryBrain()) as client:
        assert client.post(batch(event()), Host=host).status == 421


@pytest.mark.parametrize("path", ["/nothing", "/status/", "/api/v1/telemetry/"])
def test_a_malformed_name_of_this_host_breaks_nothing(path: str) -> None:
    with running(MemoryBrain()) as client:
        assert client.get(path, Host="[::1").status == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8443", "LOCALHOST:1", "[::1]:5"])
def test_this_machines_own_names_are_taken(host: str) -> None:
    with running(MemoryBrain()) as client:
        assert client.get("/version", Host=host).status == 200


def test_forged_telemetry_is_refused_in_each_form(token_file: str) -> None:
    brain = MemoryBrain()
    body = batch(event())
    with running(brain, token_file=token_file) as client:
        forged: list[dict[str, str]] = [
            {},
            {"Authorization": f"Bearer {SECRET.decode()}"},
            {"Authorization": f"Bearer {reading_token(SECRET)}"},
            signed(body, secret=b"y" * 32),
            signed(batch(event(calls=11))),
            signed(body, now=time.time() - 301),
            signed(body, now=time.time() + 301),
            {"Authorization": "PIC-HMAC-SHA256 time=1, nonce=00, mac=00"},
        ]
        for headers in forged:
            answer = client.post(body, **headers)
            assert (answer.status, answer.json["code"]) == (401, "immune.telemetry_unproven")
            assert "www-authenticate" in answer.headers
        assert brain.taken == []
        assert client.post(body, **signed(body)).status == 202


def test_a_replay_is_refused(token_file: str) -> None:
    """PIC-X5: a replay is refused."""
    brain = MemoryBrain()
    body = batch(event())
    with running(brain, token_file=token_file) as client:
        headers = signed(body)
        assert [client.post(body, **headers).status for _ in range(3)] == [202, 409, 409]
    assert len(brain.taken) == 1


def test_a_batch_from_before_a_restart_is_not_taken_again(token_file: str) -> None:
    brain = MemoryBrain()
    body = batch(event())
    with running(brain, token_file=token_file) as client:
        headers = signed(body)
        assert client.post(body, **headers).status == 202
    with running(brain, token_file=token_file) as client:
        assert client.post(body, **headers).status == 401
    assert len(brain.taken) == 1


def test_a_signed_batch_that_the_brain_could_not_take_may_come_again(token_file: str) -> None:
    brain = MemoryBrain(fails=[OSError()])
    body = batch(event())
    with running(brain, token_file=token_file) as client:
        headers = signed(body)
        assert [client.post(body, **headers).status for _ in range(3)] == [503, 202, 409]


def test_reading_takes_the_reading_token_where_there_is_a_secret(token_file: str) -> None:
    with running(MemoryBrain(), token_file=token_file) as client:
        for path in ("/metrics", "/status"):
            assert client.get(path).status == 401
            assert client.get(path, Authorization=f"Bearer {SECRET.decode()}").status == 401
            assert client.get(path, Authorization=f"Bearer {reading_token(SECRET)}").status == 200
        for path in ("/health", "/ready", "/version"):
            assert client.get(path).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "brain.example"])
def test_beyond_this_machine_nothing_is_opened_without_a_secret_or_certificates(host: str) -> None:
    with pytest.raises(ImmuneError) as caught, serving(MemoryBrain(), ApiSettings(host=host, port=0)):
        pass
    assert caught.value.code == "immune.service_unsafe"


def test_with_a_secret_it_is(token_file: str) -> None:
    with serving(MemoryBrain(), ApiSettings(host="0.0.0.0", port=0, token_file=token_file)) as url:
        client = Client(url.replace("0.0.0.0", "127.0.0.1"))
        assert client.post(batch(event()), Host="brain.example").status == 401


def test_a_secret_that_others_can_read_is_refused(token_file: str) -> None:
    Path(token_file).chmod(0o640)
    with pytest.raises(KeyStoreError) as caught, running(MemoryBrain(), token_file=token_file):
        pass
    assert caught.value.code == "key.permissions"


def test_a_secret_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"hunter2\n")
    file.chmod(0o600)
    with pytest.raises(ImmuneError) as caught:
        read_secret(ApiSettings(token_file=str(file)))
    assert caught.value.code == "immune.setting_invalid"


def test_a_new_secret_is_its_owners_alone(token_file: str) -> None:
    assert stat.S_IMODE(Path(token_file).stat().st_mode) == 0o600
    assert read_secret(ApiSettings(token_file=token_file)) == SECRET


def test_a_port_that_is_taken_is_one_typed_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ImmuneError) as caught, serving(MemoryBrain(), ApiSettings(port=port)):
            pass
    assert caught.value.code == "immune.setting_invalid"


class Told:
    def __init__(self, number: int) -> None:
        self._number = number

    def as_json(self) -> dict[str, Any]:
        return event(number=self._number)


@pytest.mark.parametrize("with_secret", [True, False])
def test_the_sender_and_the_service_understand_each_other(token_file: str, *, with_secret: bool) -> None:
    brain = MemoryBrain(fails=[OSError()])
    changes = {"token_file": token_file} if with_secret else {}
    with running(brain, **changes) as client:
        post = HttpPost(client.url, secret=SECRET if with_secret else None)
        sender: Sender[Told] = Sender(encode_batch, post, batch_seconds=0.05)
        for number in range(250):
            sender.offer(Told(number))
        sender.close(10.0)
        assert sender.counts.sent == 250
        assert sender.counts.dropped == 0
    assert sorted(one.event_id for one in brain.taken) == sorted(
        f"0123456789abcdef-{n:x}" for n in range(250)
    )


def test_a_connection_is_kept_and_one_that_the_service_closed_is_made_anew() -> None:
    brain = MemoryBrain()
    port = 0
    post: HttpPost | None = None
    for _ in range(2):
        with serving(brain, ApiSettings(port=port)) as url:
            port = int(url.rpartition(":")[2])
            post = post or HttpPost(url)
            for _ in range(3):
                assert post.begin(batch(event()))().reply is Reply.TAKEN
    assert len(brain.taken) == 6


def test_a_service_that_is_not_there_is_tried_again_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert HttpPost(f"http://127.0.0.1:{port}").begin(b"{}")().reply is Reply.TRY_AGAIN


def test_a_batch_whose_answer_was_lost_is_not_taken_twice(token_file: str) -> None:
    brain = MemoryBrain()
    with running(brain, token_file=token_file) as client:
        attempt = HttpPost(client.url, secret=SECRET).begin(batch(event()))
        assert attempt().reply is Reply.TAKEN
        assert attempt().reply is Reply.TAKEN
    assert len(brain.taken) == 1


def test_an_answer_does_not_wait_for_its_other_half() -> None:
    """Nagle's algorithm with delayed acknowledgements (RFC 896, RFC 1122 section 4.2.3.2): 40 ms a batch."""
    with running(MemoryBrain()) as client:
        post = HttpPost(client.url)
        times = []
        for _ in range(15):
            began = time.monotonic()
            assert post.begin(batch(event()))().reply is Reply.TAKEN
            times.append(time.monotonic() - began)
        post.close()
    assert min(times) < 0.03


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1",
        "127.0.0.1:8443",
        "http://",
        "http://127.0.0.1:99999999",
        "http://127.0.0.1/else",
        "http://brain.example:8443",
        "http://127.0.0.1.evil.example",
        "https://brain.example",
    ],
)
def test_no_telemetry_leaves_for_an_address_that_is_none_or_that_others_could_read(url: str) -> None:
    with pytest.raises(ImmuneError) as caught:
        HttpPost(url)
    assert caught.value.code == "immune.setting_invalid"


def test_answers_have_nothing_that_a_browser_could_misread() -> None:
    with running(MemoryBrain()) as client:
        headers = client.get("/status").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"] == "application/json"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


def test_a_refusal_is_the_houses_error_as_json() -> None:
    with running(MemoryBrain()) as client:
        assert sorted(json.loads(client.post(b"{").body)) == ["code", "details", "hint", "message"]


PROGRAM = """
from cloister.immune.service import serve
from cloister.immune.settings import ApiSettings
from tests.immune.service.brains import MemoryBrain
import sys
serve(MemoryBrain(), ApiSettings(port=int(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_in_its_own_process_ends_when_it_is_told_to(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        client = Client(f"http://127.0.0.1:{port}")
        for _ in range(200):
            with contextlib.suppress(OSError):
                if client.get("/health").status == 200:
                    break
            time.sleep(0.05)
        assert client.post(batch(event())).status == 202
        process.send_signal(number)
        assert process.wait(10) in (0, -number)
    finally:
        process.kill()
        process.communicate()
