"""What the sections on the log share: envelopes signed beforehand, and quick ways to a large log."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.envelope import Envelope, sign_envelope
from cloister.evidence.log import EvidenceLog, LogItem
from cloister.evidence.log.group import PendingEntry, Ticket
from cloister.evidence.merkle import leaf_hash

ORIGIN = "cloister/site/bench"
SIGNER = EphemeralKeyStore().generate("bench")
PAYLOAD = 300
STREAM_LENGTH = 1000
BATCH = 10_000


def envelopes(count: int) -> list[Envelope]:
    """Envelopes whose signing is not measured."""
    return [sign_envelope("application/json", b"%0*d" % (PAYLOAD, number), SIGNER) for number in range(count)]


def new_log(path: Path) -> EvidenceLog:
    """An empty log."""
    return EvidenceLog.create(path, origin=ORIGIN, signer=SIGNER)


def grow(log: EvidenceLog, start: int, end: int) -> None:
    """Fill a log up to a size in large groups, with entries of a few bytes: the tree sees hashes only."""
    for first in range(start, end, BATCH):
        entries = []
        for number in range(first, min(first + BATCH, end)):
            data = b"%d" % number
            entries.append(PendingEntry(data, leaf_hash(data), *place(number)))
        ticket = Ticket(entries)
        log.commit_tickets((ticket,))
        ticket.result()


def place(number: int) -> tuple[str, int]:
    """The stream and position of the n-th entry, in streams of a job's length."""
    return f"00000000-0000-4000-8000-{number // STREAM_LENGTH:012d}", number % STREAM_LENGTH


def items(start: int, end: int, ready: list[Envelope]) -> Iterator[LogItem]:
    """Envelopes for the entries from one index to another."""
    for number in range(start, end):
        yield LogItem(ready[number % len(ready)], *place(number))


def median_ms(act: Callable[[int], object], arguments: list[int]) -> tuple[float, float]:
    """The median and the 99th percentile of how many milliseconds a call takes."""
    taken = []
    for one in arguments:
        started = time.perf_counter()
        act(one)
        taken.append((time.perf_counter() - started) * 1000)
    taken.sort()
    return statistics.median(taken), taken[int(len(taken) * 0.99)]
