"""Decisions and durations in OpenTelemetry's form, if its libraries are there."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="opentelemetry-exporter-otlp-proto-http is not installed"
)

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from cloister.immune import CallBlocked, ImmuneError, ImmuneSettings, monitor, present, protect
from cloister.immune.observation import Action, Decision
from cloister.immune.service.otlp import OtlpExport, open_otlp
from cloister.immune.wrapping.faults import FAULTS
from tests.immune.scene import SteppingClock, on_with

BLOCKED = Decision(Action.BLOCK, "duration 5.1x median, p=0.0004", 84.5, "event-1")


def test_a_decision_is_an_event_with_the_names_of_the_conventions() -> None:
    records = InMemoryLogRecordExporter()
    export = OtlpExport(SimpleLogRecordProcessor(records), InMemoryMetricReader(), "shop")
    export.decided("shop.pay:refund", BLOCKED, 1_790_000_000.5)
    (record,) = records.get_finished_logs()
    log = record.log_record
    assert log.event_name == "immune.decision"
    assert log.timestamp == 1_790_000_000_500_000_000
    assert dict(log.attributes or {}) == {
        "code.function.name": "shop.pay.refund",
        "immune.action": "block",
        "immune.score": 84.5,
        "immune.event_id": "event-1",
    }
    assert record.resource.attributes["service.name"] == "shop"
    export.close()


def test_a_decision_inside_a_span_carries_its_trace() -> None:
    records = InMemoryLogRecordExporter()
    export = OtlpExport(SimpleLogRecordProcessor(records), InMemoryMetricReader(), "shop")
    with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
        export.decided("shop.pay:refund", BLOCKED, 1.0)
    (record,) = records.get_finished_logs()
    assert record.log_record.trace_id == span.get_span_context().trace_id
    export.close()


def test_durations_are_one_exponential_histogram_for_each_function() -> None:
    reader = InMemoryMetricReader()
    export = OtlpExport(SimpleLogRecordProcessor(InMemoryLogRecordExporter()), reader, "shop")
    for number in range(100):
        export.called("shop.pay:refund", 0.001 * (number + 1))
    data = reader.get_metrics_data()
    assert data is not None
    metric = data.resource_metrics[0].scope_metrics[0].metrics[0]
    (point,) = metric.data.data_points
    assert (metric.name, metric.unit) == ("immune.call.duration", "s")
    assert (point.count, type(point).__name__) == (100, "ExponentialHistogramDataPoint")
    export.close()


def accept(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()


@contextmanager
def answering(
    answer: Callable[[BaseHTTPRequestHandler], None] = accept,
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A collector on a real socket, which keeps what it is sent: its URL, and the paths with their bodies."""
    received: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    with answering() as made:
        yield made


def test_a_collector_gets_both(collector: tuple[str, list[tuple[str, bytes]]]) -> None:
    url, received = collector
    export = open_otlp(named(url + "/"))
    export.decided("shop.pay:refund", BLOCKED, 1.0)
    export.called("shop.pay:refund", 0.25)
    export.close()
    bodies = dict(received)
    assert set(bodies) == {"/v1/logs", "/v1/metrics"}
    logs = ExportLogsServiceRequest.FromString(bodies["/v1/logs"])
    assert logs.resource_logs[0].scope_logs[0].log_records[0].event_name == "immune.decision"
    metrics = ExportMetricsServiceRequest.FromString(bodies["/v1/metrics"])
    assert metrics.resource_metrics[0].scope_metrics[0].metrics[0].name == "immune.call.duration"


def named(url: str | None, **api: object) -> ImmuneSettings:
    return ImmuneSettings.model_validate(
        {
            "api": {"url": url, "protocol": "otlp", "service_name": "shop", **api},
            "cellagent": {"sampling": "every-call", "batch_interval_sec": 0.2},
            "effector": {"enforcing": ["tests.otlp:*"], "promotion": "policy"},
            "egress": {"enabled": False},
        }
    )


@monitor(name="tests.otlp:export")
def export_records(ids: list[int]) -> int:
    return sum(one * step for one in ids for step in range(40))


def test_a_watched_process_tells_a_collector_its_decisions_and_how_long_its_calls_took(
    collector: tuple[str, list[tuple[str, bytes]]],
) -> None:
    url, received = collector
    chance = random.Random(3)
    blocked, before = 0, FAULTS.count
    with on_with(named(url), SteppingClock()) as protection:
        protection.brain.anchors.approve("tests.otlp:export", "dana")
        for _ in range(600):
            export_records([chance.randrange(1000) for _ in range(chance.randint(1, 6))])
        for _ in range(60):
            with suppress(CallBlocked):
                export_records(list(range(400)))
        cell = protection.brain.cell("tests.otlp:export")
        blocked, faults = cell.decisions[Action.BLOCK], protection.status()["faults"]
    assert faults == before
    logs = [
        record
        for path, body in received
        if path == "/v1/logs"
        for part in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in part.scope_logs
        for record in scope.log_records
    ]
    assert {record.event_name for record in logs} == {"immune.decision"}
    actions = [
        one.value.string_value for record in logs for one in record.attributes if one.key == "immune.action"
    ]
    assert actions.count("block") == blocked > 0
    newest = [
        (point.count, {one.key: one.value.string_value for one in point.attributes})
        for path, body in received
        if path == "/v1/metrics"
        for part in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in part.scope_metrics
        for metric in scope.metrics
        for point in metric.exponential_histogram.data_points
    ][-1]
    assert newest == (660 - blocked, {"code.function.name": "tests.otlp.export"})


def test_a_collector_that_isnt_there_costs_no_call_and_a_bounded_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        protection = protect(settings=named(url))
        for _ in range(300):
            export_records([1, 2])
        began = time.monotonic()
        protection.close()
        # Two seconds for the sender, four for the libraries; the rest is the machine's.
        assert time.monotonic() - began < 20.0


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "collector:4318", "http://127.0.0.1:no"])
def test_an_address_that_is_none_is_refused_and_nothing_is_on(url: str) -> None:
    with pytest.raises(ImmuneError) as caught:
        protect(settings=named(url))
    assert caught.value.code == "immune.setting_invalid"
    assert present() is None


def test_beyond_this_machine_a_collector_is_spoken_to_over_tls_alone() -> None:
    with pytest.raises(ImmuneError) as caught:
        open_otlp(named("http://collector.example:4318"))
    assert caught.value.code == "immune.setting_invalid"
    open_otlp(named("https://collector.example:4318")).close()


def test_no_proxy_of_the_environment_is_used(
    collector: tuple[str, list[tuple[str, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    url, received = collector
    export = open_otlp(named(url))
    export.called("shop.pay:refund", 0.25)
    export.close()
    assert [path for path, _ in received] == ["/v1/metrics"]


def test_what_a_collector_wants_to_see_of_the_sender_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=abc")
    seen: list[str | None] = []

    def look(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["x-collector-key"])
        accept(request)

    with answering(look) as (url, _):
        export = open_otlp(named(url))
        export.called("shop.pay:refund", 0.25)
        export.close()
    assert seen == ["abc"]


def test_a_collector_that_redirects_is_not_followed() -> None:
    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(307)
        request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()

    with answering(redirect) as (url, received):
        export = open_otlp(named(url))
        export.called("shop.pay:refund", 0.25)
        export.close()
    asked = [path for path, _ in received]
    assert "/elsewhere" not in asked
    assert "/v1/metrics" in asked


PROGRAM = """
import sys
from cloister.immune.service import otlp
from cloister.immune.settings import ImmuneSettings
assert not any(name.startswith("opentelemetry") for name in sys.modules)
sys.modules["opentelemetry.exporter"] = None
sys.modules["opentelemetry.exporter.otlp"] = None
try:
    otlp.open_otlp(ImmuneSettings.model_validate({"api": {"url": "http://127.0.0.1:4318"}}))
except Exception as error:
    print(error.code)
"""


def test_the_libraries_are_loaded_at_use_and_their_absence_is_a_typed_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.strip() == "immune.library_missing", done.stderr
