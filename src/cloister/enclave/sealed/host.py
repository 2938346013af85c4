"""The node's side: one fork server to a process, and the workers that were forked from it.

Rules kept here:

1. A worker is handed out only when every measure of an accepted level holds, as seen from outside where that
   can be seen. Levels are tried in the policy's order; no other one ever.
2. Nothing waits without a deadline. A worker that is late is killed.
3. Whatever ends a worker has one typed error, and who waits for an answer gets it.
4. Each violation is told once, to whoever asked for the worker, before anybody learns that the worker ended:
   what waits for its end finds the violation stated. Where it can't be told, everything stops.
5. The server is started anew, so that nothing of the node's memory is in it or in a worker (`launching`).
"""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final, Self

from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.closing import Closing
from cloister.core.logging import get_logger
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed.claims import (
    MEASURES,
    Measure,
    SealClaims,
    SealLevel,
    SealPolicy,
    SealViolation,
)
from cloister.enclave.sealed.control import (
    EndWorker,
    Event,
    ServerFailed,
    ServerLoaded,
    ServerReady,
    StartWorker,
    WorkerEnded,
    WorkerSealed,
    receive_event,
    send,
)
from cloister.enclave.sealed.ends import ViolationSink, error_of_end, log_violation, unavailable
from cloister.enclave.sealed.frames import NodeEnd
from cloister.enclave.sealed.launching import launch_server
from cloister.enclave.sealed.users import worker_user
from cloister.enclave.sealed.worker import SealedWorker

_PIPE_BYTES: Final = 1024 * 1024
_END_SECONDS: Final = 5.0
_WARM_SECONDS: Final = 600.0
"""A slow disk and no byte code yet: minutes. A server that fails says so, or its socket closes."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker may use.

    Attributes:
        memory_bytes: address space, that of the libraries included (about 1 GiB).
        cpu_seconds: processor time, over all its requests.
        answer_seconds: how long any one request may take.
        start_seconds: how long sealing may take.
    """

    memory_bytes: int = 16 * 1024**3
    cpu_seconds: int = 24 * 3600
    answer_seconds: float = 3600.0
    start_seconds: float = 10.0


class SealedHost(Closing):
    """A fork server and its workers; use `start`, and as a context manager."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connection: socket.socket,
        on_violation: ViolationSink,
        clock: Clock,
    ) -> None:
        self._process, self._connection = process, connection
        self._on_violation, self._clock = on_violation, clock
        # A lock's own `with` has no instruction of Python in it that an interrupt could land before.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._ready: ServerReady | None = None
        self._modules: list[tuple[str, str]] = []
        self._sealed: dict[int, WorkerSealed] = {}
        self._ended: dict[int, WorkerEnded] = {}
        self._violations: dict[int, SealViolation] = {}
        self._sinks: dict[int, ViolationSink] = {}
        self._number = 0
        self._gone: SealedError | None = None
        self._reader = threading.Thread(target=self._read, name="sealed-host", daemon=True)
        self._reader.start()

    @classmethod
    def start(
        cls,
        *,
        on_violation: ViolationSink = log_violation,
        clock: Clock = system_clock,
        seconds: float = _WARM_SECONDS,
    ) -> Self:
        """Start the fork server and wait until it is warm: seconds, once.

        Args:
            on_violation: told of the violations of workers that nobody else is told of, from a thread of the
                host.
            clock: dates violations.
            seconds: how long it may take.

        Raises:
            SealedError: ``sealed.unavailable``.
        """
        process, ours = launch_server(_END_SECONDS)
        host = cls(process, ours, on_violation, clock)
        try:
            host._await(lambda: host._ready is not None, seconds)
        except BaseException:
            host.close()
            raise
        return host

    @property
    def server_pid(self) -> int:
        """The fork server's process number."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server still serves."""
        with self._lock:
            return self._gone is None

    @property
    def families(self) -> tuple[str, ...]:
        """The model families that workers can build without a file."""
        return () if self._ready is None else self._ready.warmed

    @property
    def modules(self) -> tuple[tuple[str, str], ...]:
        """The files that the server says it was loaded from, each with that of its byte code."""
        return tuple(self._modules)

    def worker(
        self,
        task: str,
        *,
        policy: SealPolicy | None = None,
        limits: WorkerLimits | None = None,
        on_violation: ViolationSink | None = None,
    ) -> SealedWorker:
        """Fork and seal a worker.

        Args:
            task: the name of the built-in task it serves.
            policy: which levels are acceptable; by default namespaces and a listener.
            limits: what it may use.
            on_violation: told of a violation of this worker, whenever it happens, from a thread of the host;
                by default the host's own is.

        Raises:
            SealedError: ``sealed.measure_missing``, with every measure that does not hold at the last
                accepted level; ``sealed.unavailable``, ``sealed.died`` or ``sealed.timeout``.
        """
        policy, limits = policy or SealPolicy(), limits or WorkerLimits()
        lacking: tuple[Measure, ...] = ()
        for level in policy.accepts:
            worker = self._forked(level, limits, on_violation or self._on_violation)
            lacking = worker.claims.lacking((*level.measures, *policy.also))
            if not lacking:
                try:
                    worker.begin(task)
                except BaseException:
                    worker.kill()
                    raise
                return worker
            worker.kill()
        raise SealedError(
            "sealed.measure_missing",
            f"At no level that the policy accepts do all measures hold; at {policy.accepts[-1].value}, "
            f"{len(lacking)} do not.",
            "Let the machine allow them, or accept another level by name in the policy.",
            details=[f"{one.name}: {one.outcome} {one.detail}".rstrip() for one in lacking],
        )

    def stop(self, reason: SealedError) -> None:
        """Kill the server, and with it every worker; whoever waits for one gets the reason.

        Args:
            reason: why; the first one stays.
        """
        with self._lock:
            self._gone = self._gone or reason
            self._changed.notify_all()
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End all workers and the server. Call it as often as you like."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_END_SECONDS)
        self._connection.close()

    def end_worker(self, number: int, *, look: bool) -> WorkerEnded | None:
        """Kill a worker and wait until it is reaped; None where the server does not say so in time."""
        with self._lock:
            known = self._ended.get(number)
        if known is not None:
            return known
        self._ask_to_end(number, look=look)
        with suppress(SealedError):
            self._await(lambda: number in self._ended, _END_SECONDS)
        return self._ended.get(number)

    def require_alive(self, number: int) -> None:
        """Raise the error that a dead worker, or a dead server, stands for.

        Raises:
            SealedError: see `cloister.enclave.sealed.ends.error_of_end`.
        """
        with self._lock:
            ended, gone = self._ended.get(number), self._gone
            violation = self._violations.get(number)
        if ended is not None:
            raise error_of_end(ended, violation)
        if gone is not None:
            raise gone

    def await_end(self, number: int) -> None:
        """Wait a moment for the news of a worker's end, whose pipe has closed."""
        with suppress(SealedError):
            self._await(lambda: number in self._ended, _END_SECONDS)

    def _forked(self, level: SealLevel, limits: WorkerLimits, on_violation: ViolationSink) -> SealedWorker:
        with self._lock:
            self._number += 1
            number = self._number
            self._sinks[number] = on_violation
        with ExitStack() as theirs, ExitStack() as ours:
            (to_worker, requests), (answers, from_worker) = _pipe(theirs, ours), _pipe(ours, theirs)
            start = StartWorker(
                worker=number,
                level=level,
                uid=worker_user(number),
                memory_bytes=limits.memory_bytes,
                cpu_seconds=limits.cpu_seconds,
                start_ms=int(1000 * limits.start_seconds),
            )
            try:
                send(self._connection, start, (to_worker, from_worker))
            except OSError:
                raise self._gone or unavailable("its fork server is gone") from None
            try:
                self._await(
                    lambda: number in self._sealed or number in self._ended,
                    limits.start_seconds + _END_SECONDS,
                )
                self.require_alive(number)
            except BaseException:
                self._ask_to_end(number, look=False)
                raise
            ours.pop_all()
        said = self._sealed.pop(number).measures
        measures = tuple(Measure(name, *said.get(name, ("not_tried", ""))) for name in MEASURES)
        claims = SealClaims(level, measures, platform.release())
        return SealedWorker(self, number, NodeEnd(answers, requests), claims, limits.answer_seconds)

    def _ask_to_end(self, number: int, *, look: bool) -> None:
        with suppress(OSError):
            send(self._connection, EndWorker(worker=number, look=look))

    def _await(self, holds: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._lock:
            while not holds():
                if self._gone is not None:
                    raise self._gone
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise SealedError("sealed.timeout", "The fork server did not answer in its time.")

    def _read(self) -> None:
        reason: SealedError = SealedError("sealed.closed", "The fork server of sealed workers has ended.")
        try:
            while (event := receive_event(self._connection)) is not None:
                self._take(event)
        except SealedError as error:
            reason = error
        except OSError:
            pass
        finally:
            with self._lock:
                self._gone = self._gone or reason
                self._changed.notify_all()

    def _take(self, event: Event) -> None:
        if isinstance(event, WorkerEnded):
            self._take_end(event)
            return
        with self._lock:
            match event:
                case ServerLoaded(modules=modules):
                    self._modules.extend(modules)
                case ServerReady():
                    self._ready = event
                case ServerFailed(reason=reason):
                    self._gone = unavailable(f"its fork server failed with {reason}")
                case WorkerSealed():
                    self._sealed[event.worker] = event
            self._changed.notify_all()

    def _take_end(self, ended: WorkerEnded) -> None:
        with self._lock:
            sink = self._sinks.pop(ended.worker, None)
        violation = None
        if ended.cause == "violation" and sink is not None:
            at = format_time(self._clock())
            violation = SealViolation(ended.worker, ended.call, ended.word, at, ended.reaped_ms)
            try:
                sink(violation)
            except Exception as error:
                log_violation(violation)
                get_logger("enclave").error("sealed.violation-untold", error=error)
                self.stop(SealedError("sealed.closed", "A violation could not be taken note of."))
        with self._lock:
            if violation is not None:
                self._violations[ended.worker] = violation
            self._ended[ended.worker] = ended
            self._changed.notify_all()


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """A pipe, each end of which is closed with its stack; as large as it may be made."""
    try:
        ends = os.pipe()
    except OSError:
        raise unavailable("no more files may be open in this process") from None
    reading.callback(os.close, ends[0])
    writing.callback(os.close, ends[1])
    with suppress(OSError):
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends
