"""A brain in memory and the events that tests send it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cloister.core.canonical import JSON
from cloister.immune.service import BrainMetrics, TelemetryForm, WatchdogState
from cloister.immune.settings import ApiSettings


def event(function: str = "shop.pay:refund", number: int = 1, **changes: object) -> dict[str, Any]:
    """A call as it is told on the wire."""
    told: dict[str, Any] = {
        "event_id": f"0123456789abcdef-{number:x}",
        "timestamp": 1_700_000_000.25,
        "process_id": 4711,
        "thread_id": 140_000_000_000_000,
        "module_name": "shop.pay",
        "function_name": function,
        "args_metadata": {
            "count": 1,
            "types": ["str"],
            "sizes": [12],
            "hashes": ["00112233445566ff"],
            "key_id": "0a0b0c0d",
        },
        "arg_count": 1,
        "arg_types": ["str"],
        "arg_hashes": ["00112233445566ff"],
        "duration_ms": 2.5,
        "failed": False,
        "sampling_rate": 0.1,
        "resource_tags": {"service": "shop"},
        "redaction_applied": True,
        "redaction_hashes": ["00112233445566ff"],
        "calls": 10,
        "errors": 0,
        "caller": "shop.web:post",
        "size": 12,
        "teaches": True,
    }
    return {**told, **changes}


def batch(*events: Mapping[str, object]) -> bytes:
    return json.dumps({"events": list(events)}).encode()


@dataclass
class MemoryBrain:
    """Keeps what it took; fails when told to."""

    taken: list[TelemetryForm] = field(default_factory=list)
    store_is_up: bool = True
    fails: list[Exception] = field(default_factory=list)
    holds: threading.Event | None = None

    def take(self, events: Sequence[TelemetryForm]) -> None:
        if self.holds is not None:
            self.holds.wait(5)
        if self.fails:
            raise self.fails.pop(0)
        self.taken += events

    def status(self) -> Mapping[str, JSON]:
        return {"functions": {"shop.pay:refund": {"state": "learning"}}}

    def metrics(self) -> BrainMetrics:
        if not self.store_is_up:
            raise OSError("the disk of Mrs Miller is full")
        return BrainMetrics({"allow": 3, "block": 1}, 0.012, 2, 1, WatchdogState.WATCHING)

    def ready(self) -> bool:
        return self.store_is_up


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Asks a running service over its socket."""

    url: str

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection(*self.place, timeout=10)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, None, headers)

    def post(self, body: bytes, **headers: str) -> Reply:
        return self.ask("POST", "/api/v1/telemetry", body, {"Content-Type": "application/json", **headers})


@contextmanager
def running(brain: MemoryBrain, *, request_seconds: float = 10.0, **changes: Any) -> Iterator[Client]:
    """The service, really, on a free port of this machine."""
    from cloister.immune.service import serving

    settings = ApiSettings(port=0, **changes)
    with serving(brain, settings, request_seconds=request_seconds) as url:
        yield Client(url)
