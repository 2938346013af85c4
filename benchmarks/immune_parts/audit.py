"""Entries of the audit a second, durable and vouched for: waited for in groups of 64, and in one stream."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cloister.immune.audit import AuditTrail
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_export import verify_audit
from cloister.immune.audit_folder import AuditFolder, open_audit
from immune_parts._figures import Figures, Row, Target
from immune_parts._turns import rounds_of

AT, REASON = "2026-11-21T14:00:00.000000Z", "duration 5.1x median, p=0.0004"
NAME = "shop.payments:Service.pay"
GROUP, ENTRIES = 64, 20_000
GROUPS, STREAM = f"groups of {GROUP}", "one stream"
DURABLE, READ = "durable a second", "read a CPU second"
TARGETS = (Target(GROUPS, DURABLE, "at least", 15_000.0),)

Write = Callable[[AuditTrail, list[AuditEvent]], None]


def measure(share: float = 1.0) -> Figures:
    """Medians over folders of their own, on the disk of the temporary folder."""
    entries = max(GROUP, round(ENTRIES * share))
    ways: dict[str, Write] = {GROUPS: in_groups, STREAM: in_a_stream}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(rounds_of(share, 5, 1)):
        for name, write in ways.items():
            rounds[name].append(once(write, entries))
    found: dict[str, Row] = {
        name: {column: statistics.median(one[column] for one in all_rounds) for column in all_rounds[0]}
        | {"best, durable a second": max(one[DURABLE] for one in all_rounds)}
        for name, all_rounds in rounds.items()
    }
    return Figures(f"{entries:,} entries, each on disk and under a signature.", found, TARGETS)


def once(write: Write, entries: int) -> dict[str, float]:
    """One round in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = AuditFolder(Path(name) / "audit")
        trail = open_audit(folder)
        events = [
            AuditEvent(AT, AuditKind.DECISION, "quarantine", NAME, 96.5, REASON, f"{number:016x}")
            for number in range(entries)
        ]
        trail.record_durably(events[0])
        wall, used = time.perf_counter(), time.process_time()
        write(trail, events)
        wall, used = time.perf_counter() - wall, time.process_time() - used
        trail.close()
        begun = time.process_time()
        verdict = verify_audit(folder)
        verifying = time.process_time() - begun
        if not verdict.accepted or verdict.entries != entries + 1:
            raise SystemExit(f"{verdict.entries} of {entries + 1} entries: {verdict.problems}")
        return {DURABLE: entries / wall, "CPU us an entry": used / entries * 1e6, READ: entries / verifying}


def in_groups(trail: AuditTrail, events: list[AuditEvent]) -> None:
    """Wait for the disk after each group."""
    for start in range(0, len(events), GROUP):
        for event in events[start : start + GROUP]:
            trail.record(event)
        _wait(trail)


def in_a_stream(trail: AuditTrail, events: list[AuditEvent]) -> None:
    """Wait once, at the end; where the queue fills up, for a moment."""
    for number, event in enumerate(events):
        while number % 256 == 0 and trail.status().waiting > 5000:
            time.sleep(0.001)
        trail.record(event)
    _wait(trail)


def _wait(trail: AuditTrail) -> None:
    if not trail.flush(60):
        raise SystemExit("the disk didn't follow")
