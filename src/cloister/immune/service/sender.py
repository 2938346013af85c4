"""The sender of telemetry: batches of 100 events or 5 seconds, from a thread of its own.

Rules this module keeps:

1. `Sender.offer` never waits, takes no lock that a signal handler could meet again, and raises nothing. Its
   queue is bounded; what doesn't fit is dropped and counted.
2. One daemon thread sends. It starts with the first event, and anew in a forked child, which leaves what its
   parent had queued to the parent.
3. A batch is tried three times with full jitter between (up to 0.2 and 0.4 s, and 0.8 s before the next
   batch), then dropped and counted. After three lost batches nothing is tried for 30 s.
   Source of the jitter: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
4. When the process ends, what is queued gets two seconds.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, RLock, Thread
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from cloister.immune.service.delivery import Attempt, Breaker, Delivery, Outcome, deliver

Item = TypeVar("Item")

QUEUE_EVENTS: Final = 10_000
LAST_FLUSH_SECONDS: Final = 2.0
_COMPLAIN_SECONDS: Final = 60.0
_NEVER: Final = sys.maxsize
_LOG: Final = logging.getLogger("cloister.immune")


class Post(Protocol):
    """Where batches go: `HttpPost`, or another way out of the process."""

    def begin(self, body: bytes) -> Attempt:
        """Prepare a batch; what is returned tries it once each time it is called."""
        ...

    def forget_connection(self) -> None:
        """Leave the connection to the process that this one was forked from."""
        ...


@dataclass(frozen=True, slots=True)
class SentCounts:
    """What became of the events so far.

    Attributes:
        queued: waiting now.
        sent: taken by the service.
        limited: sent, and left out by the service because there were too many.
        dropped: lost here: no room, or a batch that nobody took.
        lost_batches: batches among them.
    """

    queued: int
    sent: int
    limited: int
    dropped: int
    lost_batches: int


class Sender(Generic[Item]):
    """Takes events on any thread and posts them from its own.

    Args:
        encode: a batch as bytes; runs on the sender's thread.
        post: where they go; used on the sender's thread only.
        batch_size: events that make a batch.
        batch_seconds: seconds after which fewer go.
        capacity: events that wait at most.
        clock: monotonic seconds.
        chance: for the jitter; seeded where a run is to be repeated.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Item]], bytes],
        post: Post,
        *,
        batch_size: int = 100,
        batch_seconds: float = 5.0,
        capacity: int = QUEUE_EVENTS,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self._encode, self._post, self._clock = encode, post, clock
        self._size, self._seconds, self._capacity = batch_size, batch_seconds, capacity
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._begin()
        _SENDERS.add(self)

    def _begin(self) -> None:
        self._queue: deque[Item] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._wake_at = _NEVER
        self._ending = Event()
        # One that a signal handler may meet again on the thread that holds it.
        self._lock = RLock()
        self._thread: Thread | None = None
        self._breaker = Breaker(self._clock)
        self._oldest_at: float | None = None
        self._complained_at: float | None = None
        self._sent = self._limited = self._dropped = self._lost_batches = 0

    def offer(self, event: Item) -> bool:
        """Queue an event.

        Returns:
            Whether there was room; false also after `close`.
        """
        queue = self._queue
        if len(queue) >= self._capacity or self._ending.is_set():
            self._count(dropped=1)
            return False
        queue.append(event)
        if self._thread is None and not self._start():
            return False
        if len(queue) >= self._wake_at:
            self._wake_at = _NEVER
            self._wake.put(None)
        return True

    @property
    def fill(self) -> float:
        """Share of the queue that is in use."""
        return len(self._queue) / self._capacity

    @property
    def counts(self) -> SentCounts:
        """What became of the events so far."""
        with self._lock:
            return SentCounts(len(self._queue), self._sent, self._limited, self._dropped, self._lost_batches)

    def close(self, seconds: float = LAST_FLUSH_SECONDS) -> None:
        """Send what is queued, as far as that goes in this time, and end. What is left counts as dropped."""
        self._ending.set()
        self._wake.put(None)
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(seconds)
        left = self._take(self._capacity)
        self._count(dropped=len(left))

    def send_due(self) -> Delivery | None:
        """One turn of the thread: post a batch where one is due, and wait out its retries.

        Returns:
            What became of it; None where nothing is due, or nothing is to be tried for now.
        """
        if self._seconds_until_due() > 0.0:
            return None
        batch = self._take(self._size)
        if not batch:
            return None
        try:
            body = self._encode(batch)
        except Exception as error:
            # The kind only: a message may hold what the application works on.
            _LOG.debug("a batch of telemetry couldn't be written: %s", type(error).__name__)
            delivery = Delivery(Outcome.REFUSED)
        else:
            delivery = deliver(self._post.begin(body), self._ending.wait, self._chance)
        self._settle(len(batch), delivery)
        return delivery

    def after_fork(self) -> None:
        """Start anew in a child: nothing queued, no thread, no lock that another thread held."""
        closed = self._ending.is_set()
        self._begin()
        if closed:
            self._ending.set()
        self._post.forget_connection()

    def _settle(self, events: int, delivery: Delivery) -> None:
        if delivery.outcome is Outcome.DELIVERED:
            self._breaker.succeeded()
            self._count(sent=events, limited=delivery.limited)
            return
        if delivery.outcome is Outcome.UNREACHABLE:
            self._breaker.failed()
        self._count(dropped=events, lost_batches=1)
        now = self._clock()
        if self._complained_at is None or now - self._complained_at >= _COMPLAIN_SECONDS:
            self._complained_at = now
            _LOG.warning("%d events of telemetry were lost: %s", events, delivery.outcome.value)

    def _seconds_until_due(self) -> float:
        """How long the thread has to wait; infinite while nothing is queued."""
        if not self._queue:
            self._oldest_at = None
            return float("inf")
        now = self._clock()
        if self._oldest_at is None:
            self._oldest_at = now
        if self._ending.is_set():
            return 0.0
        full = len(self._queue) >= self._size
        waited = now - self._oldest_at
        return max(self._breaker.seconds_left(), 0.0 if full else self._seconds - waited)

    def _take(self, most: int) -> list[Item]:
        batch: list[Item] = []
        self._oldest_at = None
        while len(batch) < most:
            try:
                batch.append(self._queue.popleft())
            except IndexError:
                break
        return batch

    def _run(self) -> None:
        while self._queue or not self._ending.is_set():
            try:
                if self.send_due() is None:
                    self._sleep()
            except Exception:
                _LOG.exception("the sender of telemetry failed, and goes on")
                self._ending.wait(self._seconds)

    def _sleep(self) -> None:
        # The level first, then the look: an event that comes between the two isn't slept over.
        self._wake_at = 1 if not self._queue else self._size
        seconds = self._seconds_until_due()
        if seconds > 0.0 and self._breaker.seconds_left() > 0.0:
            self._wake_at = _NEVER
        elif self._queue and self._wake_at == 1:
            return
        try:
            self._wake.get(timeout=None if seconds == float("inf") else max(seconds, 0.001))
            while True:
                self._wake.get_nowait()
        except Empty:
            return

    def _start(self) -> bool:
        with self._lock:
            if self._thread is not None:
                return True
            self._thread = Thread(target=self._run, name="cloister-immune-sender", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is ending, or there are too many threads
                self._thread = None
                self._dropped += len(self._take(self._capacity))
                return False
            return True

    def _count(self, *, sent: int = 0, limited: int = 0, dropped: int = 0, lost_batches: int = 0) -> None:
        with self._lock:
            self._sent += sent
            self._limited += limited
            self._dropped += dropped
            self._lost_batches += lost_batches


_SENDERS: Final[WeakSet[Sender[Any]]] = WeakSet()


def close_senders(seconds: float = LAST_FLUSH_SECONDS) -> None:
    """End every sender of this process, all of them within this time."""
    end = time.monotonic() + seconds
    for sender in list(_SENDERS):
        sender.close(max(0.0, end - time.monotonic()))


def _after_fork() -> None:
    for sender in list(_SENDERS):
        sender.after_fork()


atexit.register(close_senders)
os.register_at_fork(after_in_child=_after_fork)
