"""What ``/metrics`` shows, in the text format of Prometheus.

Rules this module keeps:

1. The six metrics of PIC-R23.1 are there whatever came in, with the prefix of PIC-X4.
2. At most 500 functions have a label of their own, in the order in which they came; the rest is ``other``.
3. Counters end with ``_total`` and never go down; what isn't known is NaN and not 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cloister.immune.service.brain_port import BrainMetrics, WatchdogState
from cloister.immune.service.telemetry_form import TelemetryForm

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_FUNCTION_LABELS: Final = 500
OTHER: Final = "other"
BUCKETS: Final = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
"""Upper bounds in seconds."""
WINDOW_SECONDS: Final = 60
SIX: Final = (
    "pic_sentinel_event_rate",
    "pic_sentinel_avg_latency",
    "pic_sentinel_fpr_estimate",
    "pic_sentinel_detector_count",
    "pic_sentinel_sandbox_queue_length",
    "pic_sentinel_watchdog_status",
)


@dataclass(slots=True)
class _Function:
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    calls: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Second:
    number: int
    events: int = 0
    seconds: float = 0.0


class ServiceMetrics:
    """Counts what the service took. Not safe for threads: the service counts on one.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events: Counter[str] = Counter(taken=0, limited=0, lost_by_sender=0)
        self._requests: Counter[str] = Counter()
        self._functions: dict[str, _Function] = {}
        self._recent: deque[_Second] = deque(maxlen=WINDOW_SECONDS)
        self._began = clock()

    def taken(self, events: Sequence[TelemetryForm]) -> None:
        """Events that the brain took."""
        self._events["taken"] += len(events)
        now = int(self._clock())
        if not self._recent or now > self._recent[-1].number:
            self._recent.append(_Second(now))
        second = self._recent[-1]
        for event in events:
            seconds = event.duration_ms / 1000.0
            second.events += 1
            second.seconds += seconds
            one = self._function(event.function_name)
            one.buckets[bisect_left(BUCKETS, seconds)] += 1
            one.seconds += seconds
            one.calls += event.calls
            one.errors += event.errors + event.failed

    def limited(self, events: int) -> None:
        """Events that the limiter left out."""
        self._events["limited"] += events

    def lost_by_sender(self, events: int) -> None:
        """Events that a sender says it lost."""
        self._events["lost_by_sender"] += events

    def answered(self, status: int) -> None:
        """A batch was answered with this HTTP status."""
        self._requests[str(status)] += 1

    @property
    def event_counts(self) -> dict[str, int]:
        """Events so far by what became of them."""
        return dict(self._events)

    def event_rate(self) -> float:
        """Events per second over the last minute, or since the start where that is shorter."""
        recent = self._recent_seconds()
        length = min(float(WINDOW_SECONDS), max(1.0, self._clock() - self._began))
        return sum(one.events for one in recent) / length

    def average_latency(self) -> float:
        """Mean seconds of the calls of the last minute; NaN where there was none."""
        recent = self._recent_seconds()
        events = sum(one.events for one in recent)
        return sum(one.seconds for one in recent) / events if events else float("nan")

    def render(self, brain: BrainMetrics) -> bytes:
        """The whole page.

        Args:
            brain: what only the brain can count.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Page(list(self._families(brain))))
        return generate_latest(registry)

    def _families(self, brain: BrainMetrics) -> Iterator[Metric]:
        unknown = float("nan")
        estimate = unknown if brain.fpr_estimate is None else brain.fpr_estimate
        for name, meaning, value in (
            (SIX[0], "Events taken per second over the last minute.", self.event_rate()),
            (SIX[1], "Mean seconds of the calls of the last minute.", self.average_latency()),
            (SIX[2], "Observed share of ordinary calls that were flagged.", estimate),
            (SIX[3], "Active detectors.", float(brain.detector_count)),
            (SIX[4], "Candidates that wait for their validation.", float(brain.sandbox_queue_length)),
        ):
            yield GaugeMetricFamily(name, meaning, value=value)
        watchdog = GaugeMetricFamily(SIX[5], "1 for the watchdog's state.", labels=["state"])
        for state in WatchdogState:
            watchdog.add_metric([state.value], float(state is brain.watchdog))
        yield watchdog
        yield _counter("pic_cellagent_events", "Events by what became of them.", "status", self._events)
        yield _counter("pic_sentinel_detections", "Decisions by action.", "action", brain.detections)
        yield _counter("pic_sentinel_requests", "Batches by HTTP status.", "code", self._requests)
        calls = {name: one.calls for name, one in self._functions.items()}
        errors = {name: one.errors for name, one in self._functions.items()}
        yield _counter("pic_sentinel_calls", "Calls, observed or not.", "function", calls)
        yield _counter("pic_sentinel_call_errors", "Calls that raised.", "function", errors)
        durations = HistogramMetricFamily(
            "pic_sentinel_call_duration_seconds", "Durations of observed calls.", labels=["function"]
        )
        for name, one in self._functions.items():
            durations.add_metric([name], _cumulated(one.buckets), one.seconds)
        yield durations

    def _function(self, name: str) -> _Function:
        found = self._functions.get(name)
        if found is None:
            # A function that is called like that shares the label; it could not be told apart anyway.
            name = name if len(self._functions) < MAX_FUNCTION_LABELS else OTHER
            found = self._functions.setdefault(name, _Function())
        return found

    def _recent_seconds(self) -> list[_Second]:
        oldest = int(self._clock()) - WINDOW_SECONDS
        return [one for one in self._recent if one.number > oldest]


class _Page(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _counter(name: str, meaning: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    pairs: list[tuple[str, float]] = []
    for bound, count in zip([*map(repr, BUCKETS), "+Inf"], buckets, strict=True):
        total += count
        pairs.append((bound, float(total)))
    return pairs
