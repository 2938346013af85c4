"""Decisions and durations to an OpenTelemetry collector, over OTLP (extra ``otlp``).

A decision is a log record with the event name ``immune.decision``; the durations of calls are one exponential
histogram for each function, which is a few hundred bytes however many calls there were.

Rules this module keeps:

1. OpenTelemetry is loaded when an export is opened, and has providers of its own: the application's aren't
   touched.
2. What leaves are names of code, numbers and this package's own words; see the attributes below. Names follow
   the semantic conventions for code (stable since 1.33).
3. A decision made inside a span carries its trace id.
4. Durations are counted on the sender's thread, from its bounded queue: a call pays for putting one there.
5. Nothing leaves this machine but over TLS; no proxy is used, and no redirect followed. The end waits a few
   seconds at most, whatever the collector does.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Action
from cloister.immune.service.delivery import Answer, Attempt, Reply
from cloister.immune.service.loopback import is_loopback
from cloister.immune.service.sender import Sender

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LogRecordProcessor
    from opentelemetry.sdk.metrics.export import MetricReader

    from cloister.immune.observation import Decision
    from cloister.immune.settings import ImmuneSettings

EVENT_NAME: Final = "immune.decision"
DURATION: Final = "immune.call.duration"
_SCOPE: Final = "cloister.immune"
_SECONDS: Final = 5.0
_LAST_SECONDS: Final = 4.0
_TAKEN: Final = Answer(Reply.TAKEN)


class Timed(Protocol):
    """An observed call, as far as a histogram needs it."""

    @property
    def function_name(self) -> str:
        """``module:qualname``."""
        ...

    @property
    def duration_ms(self) -> float:
        """Milliseconds that it ran."""
        ...


T = TypeVar("T", bound=Timed)


class OtlpExport:
    """Providers of logs and metrics for one service.

    Args:
        logs: what takes the records.
        metrics: what collects the histograms.
        service_name: ``service.name`` of the resource; None leaves it to ``OTEL_SERVICE_NAME``.
    """

    def __init__(self, logs: LogRecordProcessor, metrics: MetricReader, service_name: str | None) -> None:
        try:
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk.metrics import Histogram, MeterProvider
            from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
            from opentelemetry.sdk.resources import Resource
        except ImportError:
            raise _missing() from None
        resource = Resource.create({} if service_name is None else {"service.name": service_name})
        self._logs = LoggerProvider(resource, shutdown_on_exit=False)
        self._logs.add_log_record_processor(logs)
        self._metrics = MeterProvider(
            [metrics],
            resource,
            shutdown_on_exit=False,
            views=[View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())],
        )
        self._logger = self._logs.get_logger(_SCOPE)
        self._durations = self._metrics.get_meter(_SCOPE).create_histogram(
            DURATION, unit="s", description="Durations of observed calls."
        )

    def decided(self, function: str, decision: Decision, at: float) -> None:
        """Tell a decision.

        Args:
            function: ``module:qualname``.
            decision: what was decided.
            at: Unix time, seconds.
        """
        from opentelemetry._logs import SeverityNumber

        calm = decision.action is Action.ALLOW
        self._logger.emit(
            event_name=EVENT_NAME,
            timestamp=int(at * 1e9),
            severity_number=SeverityNumber.INFO if calm else SeverityNumber.WARN,
            body=decision.reason,
            attributes={
                "code.function.name": function.replace(":", "."),
                "immune.action": decision.action.value,
                "immune.score": decision.anomaly_score,
                "immune.event_id": decision.event_id,
            },
        )

    def called(self, function: str, seconds: float) -> None:
        """Count a call.

        Args:
            function: ``module:qualname``.
            seconds: that it ran.
        """
        self._durations.record(seconds, {"code.function.name": function.replace(":", ".")})

    def count(self, calls: Sequence[Timed]) -> None:
        """Count calls.

        Args:
            calls: in any order.
        """
        for one in calls:
            self.called(one.function_name, one.duration_ms / 1000)

    def close(self) -> None:
        """Send what waits, and end; in four seconds at most."""
        ending = Thread(target=self._end, name="cloister-immune-otlp-end", daemon=True)
        try:
            ending.start()
        except RuntimeError:  # the interpreter is ending
            return
        ending.join(_LAST_SECONDS)

    def _end(self) -> None:
        self._logs.shutdown()
        self._metrics.shutdown()


class _Counted:
    """Where the sender's batches go: they were counted when they were made."""

    def begin(self, _body: bytes) -> Attempt:
        return lambda: _TAKEN

    def forget_connection(self) -> None:
        """There is none: the libraries begin anew in a child by themselves."""


def otlp_sender(export: OtlpExport, settings: ImmuneSettings) -> Sender[T]:
    """What takes observed calls on any thread, and counts them on its own."""

    def counted(calls: Sequence[T]) -> bytes:
        export.count(calls)
        return b""

    agent = settings.cellagent
    return Sender(
        counted,
        _Counted(),
        batch_size=agent.batch_size,
        batch_seconds=agent.batch_interval_sec,
        capacity=agent.buffer_size,
    )


def open_otlp(settings: ImmuneSettings) -> OtlpExport:
    """An export to the collector that the settings name, by OTLP over HTTP.

    Args:
        settings: ``api.url`` is the collector's base, ``http://127.0.0.1:4318``.

    Raises:
        ImmuneError: ``immune.library_missing``; ``immune.setting_invalid`` where the address is none, or
            would be spoken to in the clear beyond this machine.
    """
    api, seconds = settings.api, settings.cellagent.batch_interval_sec
    base = _base(api.url)
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    except ImportError:
        raise _missing() from None

    def session() -> requests.Session:
        made = requests.Session()
        made.trust_env = False
        return made

    certificates = (api.authority_file, api.key_file, api.certificate_file)
    logs = OTLPLogExporter(f"{base}/v1/logs", *certificates, timeout=_SECONDS, session=session())
    metrics = OTLPMetricExporter(f"{base}/v1/metrics", *certificates, timeout=_SECONDS, session=session())
    return OtlpExport(
        BatchLogRecordProcessor(logs, schedule_delay_millis=1000 * seconds),
        PeriodicExportingMetricReader(metrics, export_interval_millis=1000 * seconds),
        api.service_name,
    )


def _base(url: str | None) -> str:
    try:
        parts = urlsplit(url or "")
        host = parts.hostname if parts.scheme in ("http", "https") and parts.port != 0 else None
    except ValueError:
        host = None
    if host is None:
        raise ImmuneError(
            "immune.setting_invalid", "api.url is no address of a collector.", "Write http://127.0.0.1:4318."
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise ImmuneError(
            "immune.setting_invalid",
            "Decisions and durations leave this machine only over TLS.",
            "Name an https address, or a collector on this machine.",
        )
    return (url or "").rstrip("/")


def _missing() -> ImmuneError:
    return ImmuneError(
        "immune.library_missing",
        "OpenTelemetry isn't installed, and an export to a collector was asked for.",
        "Install it, in a checkout: pip install '.[otlp]'",
    )
