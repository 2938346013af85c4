"""Events leave in batches, from a thread of their own; what can't leave is counted."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from cloister.immune.service.delivery import Answer, Attempt, Breaker, Outcome, Reply, deliver
from cloister.immune.service.sender import _SENDERS, Sender

TAKEN, AGAIN, NO = Answer(Reply.TAKEN), Answer(Reply.TRY_AGAIN), Answer(Reply.REFUSED)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Wire:
    """Answers what it is told to, then takes everything."""

    answers: list[Answer] = field(default_factory=list)
    bodies: list[list[int]] = field(default_factory=list)
    tries: int = 0
    threads: set[str] = field(default_factory=set)
    hold: threading.Event | None = None

    def begin(self, body: bytes) -> Attempt:
        def attempt() -> Answer:
            if self.hold is not None:
                self.hold.wait(10)
            self.tries += 1
            self.threads.add(threading.current_thread().name)
            answer = self.answers.pop(0) if self.answers else TAKEN
            if answer.reply is Reply.TAKEN:
                self.bodies.append(json.loads(body))
            return answer

        return attempt

    def forget_connection(self) -> None:
        pass


def encode(events: Sequence[int]) -> bytes:
    return json.dumps(list(events)).encode()


class Still(Sender[int]):
    """Without its thread, and without waiting: a test takes its turns."""

    def __init__(self, wire: Wire, clock: Callable[[], float], **changes: int) -> None:
        super().__init__(encode, wire, clock=clock, chance=random.Random(1), **changes)
        self.waits: list[float] = []

    def _start(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_sender_stays() -> object:
    yield
    for sender in list(_SENDERS):
        sender.close(1.0)


def still(wire: Wire, clock: Callable[[], float] | None = None, **changes: int) -> Still:
    made = Still(wire, clock or Time(), **changes)

    def wait(seconds: float | None = None) -> bool:
        made.waits.append(seconds or 0.0)
        return False

    made._ending.wait = wait  # type: ignore[method-assign]
    return made


def test_100_events_go_at_once() -> None:
    """PIC-12.1.a, the first trigger."""
    wire = Wire()
    sender = still(wire)
    for number in range(99):
        sender.offer(number)
    assert sender.send_due() is None
    sender.offer(99)
    assert sender.send_due() is not None
    assert wire.bodies == [list(range(100))]


def test_fewer_go_after_five_seconds() -> None:
    """PIC-12.1.a, the second trigger."""
    wire, clock = Wire(), Time()
    sender = still(wire, clock)
    sender.offer(7)
    assert sender.send_due() is None
    clock.now = 4.99
    assert sender.send_due() is None
    clock.now = 5.0
    assert sender.send_due() is not None
    assert wire.bodies == [[7]]


def test_nothing_goes_where_there_is_nothing() -> None:
    wire, clock = Wire(), Time()
    sender = still(wire, clock)
    clock.now = 1e6
    assert sender.send_due() is None
    assert wire.tries == 0


def test_a_service_that_fails_twice_gets_the_batch_at_the_third_try() -> None:
    """PIC-12.1.b: retry."""
    wire = Wire([AGAIN, AGAIN])
    sender = still(wire, batch_size=2)
    sender.offer(1)
    sender.offer(2)
    sender.send_due()
    assert (wire.tries, wire.bodies) == (3, [[1, 2]])
    assert (sender.counts.sent, sender.counts.dropped) == (2, 0)


def test_after_three_failures_the_batch_is_dropped_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PIC-12.1.c: discard."""
    wire = Wire([AGAIN] * 3)
    sender = still(wire, batch_size=2)
    for number in range(4):
        sender.offer(number)
    sender.send_due()
    assert (wire.tries, sender.counts.dropped, sender.counts.lost_batches) == (3, 2, 1)
    assert "2 events of telemetry were lost" in caplog.text
    sender.send_due()
    assert wire.bodies == [[2, 3]]


def test_losses_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    sender = still(Wire([NO] * 20), clock, batch_size=1)
    for second in range(20):
        clock.now = float(second * 4)
        sender.offer(second)
        sender.send_due()
    assert caplog.text.count("were lost") == 2
    assert sender.counts.dropped == 20


def test_a_refused_batch_is_not_tried_again() -> None:
    wire = Wire([NO])
    sender = still(wire, batch_size=1)
    sender.offer(1)
    sender.send_due()
    assert (wire.tries, sender.counts.dropped) == (1, 1)


def test_waits_have_full_jitter_below_their_bounds() -> None:
    waits: list[float] = []
    drawn: list[list[float]] = []
    for seed in range(200):
        waits = []
        deliver(lambda: AGAIN, waits.append, random.Random(seed))
        drawn.append(waits)
    for place, most in enumerate((0.2, 0.4, 0.8)):
        column = [one[place] for one in drawn]
        assert 0 <= min(column) < 0.1 * most
        assert 0.9 * most < max(column) <= most


def test_the_service_says_how_long_to_wait_up_to_five_seconds() -> None:
    waits: list[float] = []
    slow = Answer(Reply.TRY_AGAIN, wait=3.0)
    slower = Answer(Reply.TRY_AGAIN, wait=3600.0)
    answers = [slow, slower, TAKEN]
    assert deliver(lambda: answers.pop(0), waits.append, random.Random(1)).outcome is Outcome.DELIVERED
    assert waits == [3.0, 5.0]


def test_a_batch_that_cannot_be_written_is_lost_and_the_next_one_goes() -> None:
    wire = Wire()

    def fussy(events: Sequence[int]) -> bytes:
        if 13 in events:
            raise ValueError("13")
        return encode(events)

    clock = Time()
    sender: Sender[int] = Sender(fussy, wire, batch_size=1, clock=clock)
    sender._start = lambda: True  # type: ignore[method-assign]
    for number in (13, 14):
        sender.offer(number)
        sender.send_due()
    assert wire.bodies == [[14]]
    assert sender.counts.dropped == 1


def test_what_does_not_fit_is_dropped_and_counted_and_nobody_waits() -> None:
    sender = still(Wire(), capacity=5)
    assert [sender.offer(number) for number in range(8)] == [True] * 5 + [False] * 3
    assert (sender.counts.queued, sender.counts.dropped) == (5, 3)


def test_after_three_lost_batches_nothing_is_tried_for_thirty_seconds() -> None:
    wire, clock = Wire([AGAIN] * 12), Time()
    sender = still(wire, clock, batch_size=1)
    for number in range(6):
        sender.offer(number)
    while sender.send_due() is not None:
        pass
    assert wire.tries == 9
    clock.now = 29.9
    assert sender.send_due() is None
    clock.now = 30.0
    assert sender.send_due() is not None  # the probe fails, and it is open again at once
    assert wire.tries == 12
    assert sender.send_due() is None
    clock.now = 60.0
    assert sender.send_due() is not None
    assert wire.bodies == [[4]]
    assert sender.send_due() is not None


def test_one_delivered_batch_closes_the_breaker() -> None:
    clock = Time()
    breaker = Breaker(clock)
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert breaker.seconds_left() == 0.0


def test_the_fill_that_the_sampling_rate_follows_is_that_of_the_queue() -> None:
    """PIC-X7: back-pressure; the table is `wrapping.sampling.backpressure`."""
    sender = still(Wire(), capacity=100)
    for number in range(90):
        sender.offer(number)
    assert sender.fill == 0.9


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.005)


def test_no_thread_runs_before_the_first_event_and_nothing_is_sent_on_the_callers() -> None:
    wire = Wire()
    sender: Sender[int] = Sender(encode, wire, batch_size=3)
    assert sender._thread is None
    for number in range(3):
        sender.offer(number)
    until(lambda: wire.bodies == [[0, 1, 2]])
    assert wire.threads == {"cloister-immune-sender"}
    assert sender._thread is not None
    assert sender._thread.daemon


@pytest.mark.timed
def test_a_small_batch_goes_in_time_on_the_real_clock() -> None:
    wire = Wire()
    sender: Sender[int] = Sender(encode, wire, batch_seconds=0.2)
    began = time.monotonic()
    sender.offer(1)
    until(lambda: bool(wire.bodies))
    assert 0.2 <= time.monotonic() - began < 2.0
    time.sleep(0.05)
    sender.offer(2)
    until(lambda: len(wire.bodies) == 2)


@pytest.mark.timed
def test_a_service_that_hangs_holds_nobody_up() -> None:
    wire = Wire(hold=threading.Event())
    sender: Sender[int] = Sender(encode, wire, batch_size=10, capacity=100)
    began = time.thread_time()
    for number in range(10_000):
        sender.offer(number)
    assert time.thread_time() - began < 1.0
    assert sender.counts.dropped >= 9_800
    assert wire.hold is not None
    wire.hold.set()


def test_no_event_is_lost_or_doubled_among_threads() -> None:
    wire = Wire()
    sender: Sender[int] = Sender(encode, wire, batch_size=50, capacity=10**6)

    def offer(base: int) -> None:
        for number in range(2000):
            sender.offer(base + number)

    threads = [threading.Thread(target=offer, args=(base * 10_000,)) for base in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.close(10.0)
    sent = [number for body in wire.bodies for number in body]
    assert len(sent) == len(set(sent)) == 16_000


def test_closing_sends_what_waits() -> None:
    wire = Wire()
    sender: Sender[int] = Sender(encode, wire)
    for number in range(250):
        sender.offer(number)
    sender.close()
    assert sum(map(len, wire.bodies)) == 250
    assert not sender.offer(1)
    assert sender.counts.dropped == 1


@pytest.mark.timed
def test_closing_takes_two_seconds_at_most_and_counts_what_it_leaves() -> None:
    wire = Wire(hold=threading.Event())
    sender: Sender[int] = Sender(encode, wire, batch_size=10)
    for number in range(100):
        sender.offer(number)
    until(lambda: sender.counts.queued == 90)
    began = time.monotonic()
    sender.close()
    assert 1.9 <= time.monotonic() - began < 3.0
    assert sender.counts.dropped == 90
    assert wire.hold is not None
    wire.hold.set()


def test_a_sender_in_an_event_handler_that_interrupts_it_does_not_lock_up() -> None:
    wire = Wire()
    sender = still(wire, capacity=10)
    with sender._lock:  # as if interrupted while it counts
        for number in range(20):
            sender.offer(number)
    assert sender.counts.dropped == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_sends_its_own_events_and_none_of_its_parents() -> None:
    wire = Wire()
    sender: Sender[int] = Sender(encode, wire, batch_size=3)
    sender.offer(1)
    until(lambda: sender._oldest_at is not None)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in (7, 8, 9):
                sender.offer(number)
            end = time.monotonic() + 5
            while not wire.bodies and time.monotonic() < end:
                time.sleep(0.01)
            os.write(writing, json.dumps(wire.bodies).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert json.loads(answer.read() or "null") == [[7, 8, 9]]
    os.waitpid(child, 0)
    sender.close()
    assert wire.bodies == [[1]]


PROGRAM = """
import json, sys, time
from cloister.immune.service.delivery import Answer, Reply
from cloister.immune.service.sender import Sender

class Wire:
    def begin(self, body):
        def attempt():
            print(len(json.loads(body)), flush=True)
            return Answer(Reply.TAKEN)
        return attempt
    def forget_connection(self): pass

sender = Sender(lambda events: json.dumps(list(events)).encode(), Wire())
for number in range(5):
    sender.offer(number)
assert "pydantic" not in sys.modules and "starlette" not in sys.modules, sorted(sys.modules)
"""


def test_a_program_that_ends_sends_what_waits_and_loads_none_of_the_services_libraries() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "5"), done.stderr
