"""One worker as the fork server sees it: how it is watched, killed, and found to be gone.

It is *forked* (the first child tells of it and exits), *sealing* (it takes its own steps and sends the
listener), *serving*, *ending* once it is dead or was killed, and *over* when it is reaped. Rules kept here:

1. The server never reads or writes a worker's pipes, and keeps no end of them open.
2. Nothing here waits for a worker or its first child: each of them is a descriptor to poll.
3. On a forbidden call the worker is killed first and reported afterwards; the kernel says what the call was.
   Whatever else a worker is killed for, a call that is held back by then comes first.
4. Processes are signalled by pidfd alone, so that no other one is ever hit.
5. A worker whose listener is lost is killed: its calls would be refused, and nobody would know.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field

from cloister.enclave.sealed import kernel
from cloister.enclave.sealed.calls import UNKNOWN, ForbiddenCall, read_notice
from cloister.enclave.sealed.control import Cause, StartWorker, WorkerEnded, WorkerSealed, receive_packet
from cloister.enclave.sealed.forking import Child, read_news
from cloister.enclave.sealed.outside import look_for_leftovers, outcomes


@dataclass
class _Ending:
    cause: Cause
    call: ForbiddenCall | None
    look: bool
    reason: str = ""
    began: float = field(default_factory=time.perf_counter)


class Supervised:
    """One worker of this server. Every method returns at once.

    Args:
        request: how it is to be sealed.
        border: the server's end.
        first: the first child.
    """

    def __init__(self, request: StartWorker, border: socket.socket, first: Child) -> None:
        self.request = request
        self._border: socket.socket | None = border
        self._first: Child | None = first
        self._process: Child | None = None
        self._listener = -1
        self._spaces: dict[str, int] = {}
        self._began = time.monotonic()
        self._sealed = False
        self._ending: _Ending | None = None
        self._wait: tuple[int, resource.struct_rusage] | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What has to be polled for it, in the order in which it has to be looked at."""
        held = [] if self._ending is not None else [self._listener]
        if self._border is not None and self._ending is None:
            held.append(self._border.fileno())
        held += [one.pidfd for one in (self._first, self._process) if one is not None]
        return tuple(one for one in held if one >= 0)

    @property
    def located(self) -> bool:
        """Whether it is known which process it is, so that no child that nobody knows can be it."""
        return self._process is not None

    @property
    def children(self) -> tuple[int, ...]:
        """The processes that are waited for here."""
        return tuple(one.pid for one in (self._first, self._process) if one is not None)

    @property
    def overdue(self) -> bool:
        """Whether it should have been sealed by now."""
        late = 1000 * (time.monotonic() - self._began) > self.request.start_ms
        return late and not self._sealed and self._ending is None

    def look_at(self, descriptor: int, events: int) -> WorkerSealed | None:
        """Look at one of its descriptors, which a poll has shown.

        Args:
            descriptor: which.
            events: what the poll said of it.

        Returns:
            What came of the measures, when the worker is done with them.
        """
        try:
            if descriptor == self._listener:
                self._look_at_listener(events)
            elif self._border is not None and descriptor == self._border.fileno():
                return self._advance(self._border)
            else:
                self._look_at_children()
        except (OSError, EOFError):
            self.end("exited")
        return None

    def end(self, cause: Cause, *, look: bool = False, reason: str = "") -> None:
        """Kill what is left of it; it is over when `over` says so.

        Args:
            cause: why. A call that is held back now comes before it, and so does what the kernel tells of its
                end before "exited".
            look: look whether anything of it is left, when it is over.
            reason: where it could not be forked: an errno's name.
        """
        if self._ending is not None:
            self._ending.look |= look
            return
        call = self._held_back()
        self._kill(_Ending("violation" if call else cause, call, look, reason))

    def over(self) -> WorkerEnded | None:
        """How it ended, once nothing of it lives; None before. Gives its descriptors back."""
        ending = self._ending
        if ending is None:
            return None
        self._look_at_children()
        if self._first is None and self._process is None and self._wait is None:
            self._find_late()
        if self._first is not None or self._process is not None:
            return None
        if self._border is not None:
            self._border.close()
        if self._listener >= 0:
            os.close(self._listener)
        self._border, self._listener = None, -1
        return self._ended(ending)

    def _look_at_listener(self, events: int) -> None:
        if not events & select.POLLIN:
            self.end("exited")  # all that was under the filter is gone, or nothing more would be reported
            return
        call = self._received()
        if call is not None:
            self._kill(_Ending("violation", call, look=False))

    def _kill(self, ending: _Ending) -> None:
        self._ending = ending
        for one in (self._first, self._process):
            if one is not None:
                one.kill()

    def _held_back(self) -> ForbiddenCall | None:
        if self._listener < 0:
            return None
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        if not any(events & select.POLLIN for _, events in poller.poll(0)):
            return None
        with suppress(OSError):
            return self._received()
        return None

    def _received(self) -> ForbiddenCall | None:
        notice = kernel.receive_notification(self._listener)
        return None if notice is None else read_notice(notice)

    def _advance(self, border: socket.socket) -> WorkerSealed | None:
        packet, descriptors = receive_packet(border)
        if not packet:
            raise EOFError
        if self._process is None:
            news = read_news(packet, descriptors)
            if isinstance(news, str):
                self.end("not_forked", reason=news)
            else:
                self._process = news
                self._let_go()
            return None
        if descriptors:
            self._listener = descriptors[0]
        border.close()
        self._border, self._sealed = None, True
        measures, self._spaces = outcomes(
            packet,
            self._process.pid,
            listener_asked=self.request.level.reported,
            listener_held=self._listener >= 0,
        )
        return WorkerSealed(worker=self.request.worker, pid=self._process.pid, measures=measures)

    def _let_go(self) -> None:
        """Let the worker seal itself: once the first child is reaped, whose death it would take for ours."""
        if self._process is not None and self._first is None and self._border is not None:
            self._border.send(b"g")

    def _look_at_children(self) -> None:
        if self._first is not None:
            if self._first.reap() is None:
                return
            self._first = None
            if self._ending is None:
                self._let_go()
        # A child of the server's only now.
        if self._process is not None and (wait := self._process.reap()) is not None:
            self._process, self._wait = None, wait
            if self._ending is None:
                self._kill(_Ending("exited", None, look=False))

    def _find_late(self) -> None:
        """The first child may have told of the worker in the moment in which it was killed."""
        border, self._border = self._border, None
        if border is None:
            return
        with border, suppress(OSError):
            border.setblocking(False)
            news = read_news(*receive_packet(border))
            if isinstance(news, Child):
                self._process = news
                news.kill()

    def _ended(self, ending: _Ending) -> WorkerEnded:
        cause, call, status, core = ending.cause, ending.call, 0, False
        if self._wait is not None:
            raw, usage = self._wait
            status, core = os.waitstatus_to_exitcode(raw), os.WIFSIGNALED(raw) and os.WCOREDUMP(raw)
            if status == -signal.SIGSYS:
                cause, call = "violation", call or ForbiddenCall(UNKNOWN)
            elif cause == "exited" and status < 0:
                used = usage.ru_utime + usage.ru_stime
                spent = status == -signal.SIGKILL and used >= self.request.cpu_seconds - 0.5
                cause = "cpu_limit" if spent else "killed"
        ended = WorkerEnded(
            worker=self.request.worker,
            cause=cause,
            call="" if call is None else call.name,
            word="" if call is None else call.word,
            reason=ending.reason,
            status=status,
            core=core,
            reaped_ms=1000 * (time.perf_counter() - ending.began),
        )
        if ending.look and self._spaces:
            return ended.model_copy(update=look_for_leftovers(self._spaces))
        return ended


def reap_strangers(workers: tuple[Supervised, ...]) -> None:
    """Wait for children that belong to no worker: what a first child forked before it was killed.

    Nothing is done while some worker isn't located, as it may be one of those.

    Args:
        workers: all that there are.
    """
    if not all(one.located for one in workers):
        return
    known = {pid for one in workers for pid in one.children}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return
        os.waitpid(found.si_pid, 0)
