"""What Prometheus reads: the six metrics whatever came in, read with Prometheus' own parser."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from cloister.immune.service.brain_port import BrainMetrics, WatchdogState
from cloister.immune.service.metrics import (
    CONTENT_TYPE,
    MAX_FUNCTION_LABELS,
    OTHER,
    SIX,
    ServiceMetrics,
)
from cloister.immune.service.telemetry_form import TelemetryForm
from tests.conftest import ROOT
from tests.immune.service.brains import MemoryBrain, batch, event, running

BRAIN = BrainMetrics({"allow": 1}, None, 0, 0, WatchdogState.ABSENT)
OF_R23_1 = (
    "event_rate",
    "avg_latency",
    "fpr_estimate",
    "detector_count",
    "sandbox_queue_length",
    "watchdog_status",
)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def parsed(page: bytes) -> dict[str, Metric]:
    return {one.name: one for one in text_string_to_metric_families(page.decode())}


def value(page: bytes, name: str, **labels: str) -> float:
    samples = [sample for one in parsed(page).values() for sample in one.samples]
    found = [one.value for one in samples if one.name == name and one.labels == labels]
    assert len(found) == 1, (name, labels)
    return found[0]


def told(**changes: object) -> TelemetryForm:
    return TelemetryForm.model_validate({**event(), **changes}, strict=False)


EVENTS = st.lists(
    st.builds(
        told,
        function_name=st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=30),
        duration_ms=st.floats(0, 1e12),
        calls=st.integers(1, 2**53 - 1),
        errors=st.integers(0, 2**53 - 1),
        failed=st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(
    EVENTS,
    st.dictionaries(st.sampled_from(["allow", "quarantine", "block"]), st.integers(0, 2**40)),
    st.none() | st.floats(0, 1),
    st.integers(0, 10**6),
    st.sampled_from(WatchdogState),
)
def test_all_six_are_there_whatever_came(
    events: list[TelemetryForm],
    detections: dict[str, int],
    estimate: float | None,
    count: int,
    state: WatchdogState,
) -> None:
    """PIC-P65: metrics completeness. Every scrape exposes the six metrics of PIC-R23.1."""
    metrics = ServiceMetrics(Time())
    metrics.taken(events)
    page = parsed(metrics.render(BrainMetrics(detections, estimate, count, count, state)))
    for name in OF_R23_1:
        assert page[f"pic_sentinel_{name}"].samples, name
    assert tuple(f"pic_sentinel_{name}" for name in OF_R23_1) == SIX


def test_names_are_those_of_the_seed() -> None:
    """PIC-X4."""
    metrics = ServiceMetrics(Time())
    metrics.taken([told()])
    metrics.limited(3)
    page = metrics.render(BrainMetrics({"allow": 5, "block": 2}, 0.02, 4, 1, WatchdogState.SAFE_MODE))
    assert value(page, "pic_cellagent_events_total", status="taken") == 1
    assert value(page, "pic_cellagent_events_total", status="limited") == 3
    assert value(page, "pic_sentinel_detections_total", action="block") == 2
    assert value(page, "pic_sentinel_fpr_estimate") == 0.02
    assert value(page, "pic_sentinel_watchdog_status", state="safe_mode") == 1
    assert value(page, "pic_sentinel_watchdog_status", state="watching") == 0


def test_every_counter_ends_with_total_and_every_metric_says_what_it_is() -> None:
    page = parsed(ServiceMetrics(Time()).render(BRAIN))
    for one in page.values():
        assert one.documentation
        assert one.type in ("counter", "gauge", "histogram")
        if one.type == "counter":
            assert all(sample.name.endswith("_total") for sample in one.samples)


def test_a_histogram_counts_each_call_once_in_its_bucket() -> None:
    metrics = ServiceMetrics(Time())
    metrics.taken([told(duration_ms=one) for one in (0.0, 0.01, 1.0, 2.0, 20_000.0)])
    page = metrics.render(BRAIN)
    name, labels = "pic_sentinel_call_duration_seconds", {"function": "shop.pay:refund"}
    assert value(page, f"{name}_count", **labels) == 5
    assert value(page, f"{name}_sum", **labels) == pytest.approx(20.00301)
    assert value(page, f"{name}_bucket", le="1e-05", **labels) == 2
    assert value(page, f"{name}_bucket", le="0.001", **labels) == 3
    assert value(page, f"{name}_bucket", le="10.0", **labels) == 4
    assert value(page, f"{name}_bucket", le="+Inf", **labels) == 5


def test_calls_and_errors_are_exact_and_not_only_the_observed_ones() -> None:
    metrics = ServiceMetrics(Time())
    metrics.taken([told(calls=10, errors=2, failed=True), told(calls=7, errors=0, failed=False)])
    page = metrics.render(BRAIN)
    assert value(page, "pic_sentinel_calls_total", function="shop.pay:refund") == 17
    assert value(page, "pic_sentinel_call_errors_total", function="shop.pay:refund") == 3


def test_more_than_500_functions_share_one_label() -> None:
    metrics = ServiceMetrics(Time())
    metrics.taken([told(function_name=f"m:f{number}", calls=1) for number in range(700)])
    page = parsed(metrics.render(BRAIN))["pic_sentinel_calls"]
    assert len(page.samples) == MAX_FUNCTION_LABELS + 1
    assert {one.labels["function"]: one.value for one in page.samples}[OTHER] == 200


def test_a_function_named_other_adds_no_label_of_its_own() -> None:
    metrics = ServiceMetrics(Time())
    metrics.taken([told(function_name=OTHER)])
    metrics.taken([told(function_name=f"m:f{number}") for number in range(700)])
    assert len(parsed(metrics.render(BRAIN))["pic_sentinel_calls"].samples) <= MAX_FUNCTION_LABELS + 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\\", '"} 7', "\u2028"])
def test_a_label_cannot_write_a_line_of_its_own(name: str) -> None:
    metrics = ServiceMetrics(Time())
    metrics.taken([told(function_name=name, calls=3)])
    assert value(metrics.render(BRAIN), "pic_sentinel_calls_total", function=name) == 3


def test_rate_and_latency_are_of_the_last_minute() -> None:
    clock = Time()
    metrics = ServiceMetrics(clock)
    assert math.isnan(value(metrics.render(BRAIN), "pic_sentinel_avg_latency"))
    clock.now += 600
    metrics.taken([told(duration_ms=10.0), told(duration_ms=30.0)] * 60)
    assert value(metrics.render(BRAIN), "pic_sentinel_event_rate") == 2.0
    assert value(metrics.render(BRAIN), "pic_sentinel_avg_latency") == pytest.approx(0.02)
    clock.now += 61
    assert value(metrics.render(BRAIN), "pic_sentinel_event_rate") == 0.0
    assert math.isnan(value(metrics.render(BRAIN), "pic_sentinel_avg_latency"))


def test_what_is_not_known_is_not_zero() -> None:
    assert math.isnan(value(ServiceMetrics(Time()).render(BRAIN), "pic_sentinel_fpr_estimate"))


def test_the_page_is_served_as_prometheus_asks_for_it() -> None:
    """PIC-22.1.c."""
    with running(MemoryBrain()) as client:
        client.post(batch(event()))
        client.post(b"{")
        page: Any = client.get("/metrics")
    assert (page.status, page.headers["content-type"]) == (200, CONTENT_TYPE)
    assert value(page.body, "pic_cellagent_events_total", status="taken") == 1
    assert value(page.body, "pic_sentinel_requests_total", code="202") == 1
    assert value(page.body, "pic_sentinel_requests_total", code="400") == 1
    assert value(page.body, "pic_sentinel_detections_total", action="block") == 1


def test_the_reference_names_every_metric_and_no_other() -> None:
    metrics = ServiceMetrics(Time())
    metrics.taken([told()])
    metrics.answered(202)
    page = parsed(metrics.render(BRAIN))
    served = {f"{one.name}_total" if one.type == "counter" else one.name: one.type for one in page.values()}
    text = (ROOT / "docs" / "reference" / "immune-service.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(pic_\w+)` \| (\w+) \|", text, re.MULTILINE)
    assert dict(listed) == served
