"""Ways to wrap one function: a wrapper that does nothing, ours, and other libraries, which reach no network.

* OpenTelemetry: the API alone; its SDK with a batch processor and an exporter that throws spans away.
* Sentry: outside of a transaction, where spans aren't kept, and in one; its transport throws all away.
* ddtrace: spans are finished and handed to a writer that throws them away; no telemetry, no remote settings.

What these hand to threads of their own isn't in the caller's processor time.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import os
import random
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from cloister.immune.brain import Brain
from cloister.immune.notes import Notes
from cloister.immune.observation import Decision, Entered, Observed, Sensor
from cloister.immune.settings import ImmuneSettings
from cloister.immune.wrapping.build import build
from cloister.immune.wrapping.gate import Gate
from cloister.immune.wrapping.sampling import Mode, Pace, Sampling, Ticks

Function = Callable[..., Any]
Wrap = Callable[[Function], Function]


class _Idle:
    """A sensor that lets everything through: what is measured is the wrapper."""

    def enter(self, entered: Entered) -> Decision | None:
        return None

    def leave(self, observed: Observed) -> None:
        return None


def observed_at(rate: float | None) -> Wrap:
    """Ours, with a sensor that does nothing, at a rate; None observes no call."""

    def wrap(function: Function) -> Function:
        wrapper, gate = build(function)
        if rate is not None:
            _attach(gate, _Idle(), Sampling(Mode.FIXED, rate=rate))
        return wrapper

    return wrap


def armed(function: Function) -> Function:
    """Ours, with a sensor that does nothing; every call is held and judged before it runs."""
    wrapper, gate = build(function)
    _attach(gate, _Idle(), Sampling(Mode.FIXED, rate=0.1))
    gate.arm()
    return wrapper


def judged(function: Function) -> Function:
    """Ours with everything behind it: every call is scored, learned from, kept and decided about.

    Its clock goes on by a microsecond with each reading: calls stay ordinary while others have their turn.
    """
    wrapper, gate = build(function)
    ticks = itertools.count()
    _attach(gate, new_brain().cell(gate.name), Sampling(Mode.EVERY_CALL), lambda: next(ticks) * 1e-6)
    return wrapper


def new_brain(settings: ImmuneSettings | None = None, **clocks: Callable[[], float]) -> Brain:
    """A brain that keeps its state in memory, where the settings name no folder, and audits nothing."""
    from cloister.core.keys import EphemeralKeyStore

    logging.getLogger("cloister").setLevel(logging.ERROR)
    monotonic = clocks.get("monotonic", time.perf_counter)
    return Brain(
        settings or ImmuneSettings(),
        EphemeralKeyStore().generate("benchmark"),
        Notes(None, monotonic=monotonic),
        redact=str,
        switched_off=lambda: False,
        changed=lambda _change: None,
        matured=lambda _name, _learned: None,
        **clocks,
    )


def _attach(
    gate: Gate, sensor: Sensor, sampling: Sampling, clock: Callable[[], float] = time.perf_counter
) -> None:
    # A threshold nobody reaches: the rate stays what it was set to.
    gate.attach(sensor, sampling, Pace(1e9), Ticks(random.Random(7).random), clock)


def no_op(function: Function) -> Function:
    """What most decorators are built on."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def no_op_awaited(function: Function) -> Function:
    """The same for coroutine functions."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


@functools.cache
def peers() -> tuple[dict[str, Wrap], list[str]]:
    """Other libraries by name, and those that aren't installed."""
    found: dict[str, Wrap] = {}
    absent: list[str] = []
    for library, make in (
        ("wrapt", _wrapt),
        ("prometheus_client", _prometheus),
        ("opentelemetry.sdk.trace", _opentelemetry),
        ("sentry_sdk", _sentry),
        ("ddtrace", _ddtrace),
    ):
        try:
            found |= make()
        except ImportError:
            absent.append(library)
    return found, absent


def said(absent: list[str]) -> tuple[str, ...]:
    """The note about what isn't installed."""
    return (f"not installed (`make bench-immune` has them): {', '.join(absent)}",) if absent else ()


def _wrapt() -> dict[str, Wrap]:
    wrapt = import_module("wrapt")
    return {"wrapt no-op": wrapt.decorator(lambda one, _self, args, named: one(*args, **named))}


def _prometheus() -> dict[str, Wrap]:
    client = import_module("prometheus_client")
    histogram = client.Histogram("calls", "seconds", registry=client.CollectorRegistry())

    def wrap(function: Function) -> Function:
        if not inspect.iscoroutinefunction(function):
            return histogram.time()(function)

        @functools.wraps(function)
        async def wrapper(*args: Any, **named: Any) -> Any:
            with histogram.time():
                return await function(*args, **named)

        return wrapper

    return {"prometheus_client histogram": wrap}


def _opentelemetry() -> dict[str, Wrap]:
    trace = import_module("opentelemetry.trace")
    sdk = import_module("opentelemetry.sdk.trace")
    export = import_module("opentelemetry.sdk.trace.export")
    sampling = import_module("opentelemetry.sdk.trace.sampling")

    class Nowhere(export.SpanExporter):  # type: ignore[misc, name-defined]
        def export(self, spans: object) -> object:
            return export.SpanExportResult.SUCCESS

    def under(sampler: object) -> Wrap:
        provider = sdk.TracerProvider(sampler=sampler)
        provider.add_span_processor(export.BatchSpanProcessor(Nowhere()))
        return provider.get_tracer("bench").start_as_current_span("call")

    return {
        "OpenTelemetry, API only": trace.get_tracer("bench").start_as_current_span("call"),
        "OpenTelemetry SDK, 1 in 10": under(sampling.TraceIdRatioBased(0.1)),
        "OpenTelemetry SDK, always on": under(sampling.ALWAYS_ON),
    }


def _sentry() -> dict[str, Wrap]:
    sentry = import_module("sentry_sdk")
    transport = import_module("sentry_sdk.transport")

    class Nowhere(transport.Transport):  # type: ignore[misc, name-defined]
        def capture_envelope(self, envelope: object) -> None:
            return None

    sentry.init(
        dsn="http://nobody@127.0.0.1:9/1",
        transport=Nowhere,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        auto_session_tracking=False,
    )
    return {"sentry-sdk trace": sentry.trace}


def in_transaction(work: Callable[[int], float]) -> Callable[[int], float]:
    """The same work in transactions of Sentry's of as many spans as one keeps; opening them isn't counted."""
    sentry = import_module("sentry_sdk")

    def within(calls: int) -> float:
        spent = 0.0
        for start in range(0, calls, 1000):
            with sentry.start_transaction(name="bench", sampled=True):
                spent += work(min(1000, calls - start))
        return spent

    return within


def _ddtrace() -> dict[str, Wrap]:
    os.environ |= {
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "DD_TRACE_STARTUP_LOGS": "false",
        "DD_CRASHTRACKING_ENABLED": "false",
        "DD_TRACE_STATS_COMPUTATION_ENABLED": "false",
        "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
    }
    logging.getLogger("ddtrace").setLevel(logging.CRITICAL)
    tracer = import_module("ddtrace.trace").tracer
    writers = import_module("ddtrace.internal.writer")

    class Nowhere(writers.TraceWriter):  # type: ignore[misc, name-defined]
        def recreate(self, *_args: object, **_named: object) -> object:
            return self

        def stop(self, timeout: float | None = None) -> None:
            return None

        def write(self, spans: object = None) -> None:
            return None

        def flush_queue(self) -> None:
            return None

    tracer._span_aggregator.writer = Nowhere()
    return {"ddtrace wrap": tracer.wrap("call")}
