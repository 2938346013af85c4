"""A service behind a socket: who may come, how many, and how long each may take.

Rules kept here:

* A connection carries one conversation. The first thing refused ends it.
* Each connection has a thread of its own, so that a slow one holds up nobody; there are so many at a time,
  and so many from one address or user of the machine. Who comes beyond that hears that it is busy.
* Who connects and has not had answered within a minute what they came for makes room; who has, after some
  idle minutes.
* Whatever fails in an answer, a call that was stopped included, the client hears that it is refused, and the
  log has the kind of what failed. No message of it is told anywhere: it may hold figures.
* To close is to take nobody new, to give every answer that is being made, and to end.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from cloister.core.errors import CloisterError, StorageError
from cloister.core.logging import get_logger
from cloister.enclave.wire.address import Address, name_of, peer_of
from cloister.enclave.wire.dialect import Dialect, Kind
from cloister.enclave.wire.frames import Channel, Pace

CONNECTIONS: Final = 64
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_GONE: Final = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO})
_TURNING_AWAY: Final = 16
_AWAY_SECONDS: Final = 2.0


class Conversation(Protocol):
    """What a service has with one client; not for several threads at once."""

    def answer(self, kind: Kind, message: bytes) -> bytes:
        """The answer to what was said.

        Raises:
            CloisterError: refused.
        """
        ...

    def close(self) -> None:
        """End it."""
        ...


class Reception(Protocol):
    """Who has conversations, such as an inference service."""

    def connect(self) -> Conversation:
        """One for a client that came."""
        ...


@dataclass(frozen=True)
class ListenerLimits:
    """How many may come, and how long each may take.

    Attributes:
        connections: at a time.
        per_peer: of these, from one address, or one user of this machine.
        first_seconds: from connecting until the first answer to what clients come for.
        idle_seconds: between an answer and what is said next.
        drain_seconds: for what is being answered when it closes.
        pace: how fast a message has to pass.
    """

    connections: int = CONNECTIONS
    per_peer: int = CONNECTIONS // 4
    first_seconds: float = 60.0
    idle_seconds: float = 600.0
    drain_seconds: float = 30.0
    pace: Pace = field(default_factory=Pace)


class Listener:
    """Listens on an address from when it is made, and serves who comes there; a context manager.

    Args:
        address: a path, ``host:port`` or ``[host]:port``; port 0 takes a free one.
        dialect: what may be said.
        limits: how many may come, and how long each may take.

    Raises:
        StorageError: ``storage.in_use`` where the address can't be listened on.
        InputError: it is none.
    """

    def __init__(self, address: str, dialect: Dialect, limits: ListenerLimits | None = None) -> None:
        self._dialect, self._limits = dialect, limits or ListenerLimits()
        self._where = Address.parse(address)
        self._lock = threading.Lock()
        self._open: dict[socket.socket, tuple[str, threading.Thread]] = {}
        self._turning_away = threading.BoundedSemaphore(_TURNING_AWAY)
        self._closed: bool = False
        self._failures = 0
        self._socket = self._where.listen()

    @property
    def address(self) -> str:
        """Where it listens."""
        return name_of(self._socket)

    def serve(self, reception: Reception) -> None:
        """Serve until `close` is called; what is being answered then is answered.

        Args:
            reception: has a conversation with each client.

        Raises:
            StorageError: ``storage.failed`` where the machine takes the socket away.
        """
        try:
            while (connection := self._next()) is not None:
                self._take(connection, reception)
        finally:
            self._drain()
            self._leave()

    def close(self) -> None:
        """Stop. May be called from a signal's handler, from any thread, and as often as you like."""
        self._closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._leave()

    def _leave(self) -> None:
        if self._socket.fileno() >= 0:
            self._socket.close()
            if self._where.path is not None:
                self._where.path.unlink(missing_ok=True)

    def _next(self) -> socket.socket | None:
        while not self._closed:
            try:
                return self._socket.accept()[0]
            except OSError as error:
                if error.errno in _SHORT:  # of descriptors or memory: others will give some back
                    time.sleep(0.1)
                elif error.errno not in _GONE:
                    break
        if not self._closed:
            raise StorageError("storage.failed", f"{self._where.text} is no longer listened on.")
        return None

    def _take(self, connection: socket.socket, reception: Reception) -> None:
        peer = peer_of(connection)
        with self._lock:
            full = len(self._open) >= self._limits.connections
            if full or sum(one == peer for one, _ in self._open.values()) >= self._limits.per_peer:
                thread = None
            else:
                thread = threading.Thread(target=self._served, args=(connection, reception), daemon=True)
                self._open[connection] = peer, thread
        away = thread is None
        if away and self._turning_away.acquire(blocking=False):
            thread = threading.Thread(target=self._turned_away, args=(connection,), daemon=True)
        try:
            if thread is None:
                connection.close()
            else:
                thread.start()
        except RuntimeError:  # the machine has no thread to give: this one is not served, others are
            with self._lock:
                self._open.pop(connection, None)
            if away:
                self._turning_away.release()
            connection.close()

    def _served(self, connection: socket.socket, reception: Reception) -> None:
        try:
            with ExitStack() as ending:
                ending.callback(self._end, connection)
                conversation = reception.connect()
                ending.callback(conversation.close)
                self._answer_all(Channel(connection, self._dialect, self._limits.pace), conversation)
        except CloisterError as error:
            get_logger("enclave").debug("wire.connection-ended", code=error.code)
        except Exception as error:
            with self._lock:
                self._failures += 1
                failures = self._failures
            if failures & (failures - 1) == 0:
                get_logger("enclave").warning("wire.answer-failed", error=error, refusals=failures)

    def _end(self, connection: socket.socket) -> None:
        with self._lock:
            del self._open[connection]
        connection.close()

    def _answer_all(self, channel: Channel, conversation: Conversation) -> None:
        dialect = self._dialect
        proven_by, proven = time.monotonic() + self._limits.first_seconds, False
        bounds = dialect.greeting
        while not self._closed:
            patience = self._limits.idle_seconds if proven else proven_by - time.monotonic()
            kind, message = channel.read(bounds, patience)
            try:
                answer = self._answered(conversation, kind, message)
            except Exception as error:
                told = error if isinstance(error, CloisterError) else dialect.refused()
                channel.write(Kind.REFUSED, dialect.word_for(told))
                if told.code == dialect.busy().code:
                    continue
                raise
            channel.write(dialect.answer_to(kind), answer)
            bounds, proven = dialect.bounds, proven or kind is dialect.then.said

    def _answered(self, conversation: Conversation, kind: Kind, message: bytes) -> bytes:
        if self._closed:
            raise self._dialect.stopped()
        return conversation.answer(kind, message)

    def _turned_away(self, connection: socket.socket) -> None:
        """Say that it is busy. What the other end has sent is read first, else it might not hear it."""
        try:
            with connection:
                channel = Channel(connection, self._dialect, Pace(_AWAY_SECONDS))
                channel.write(Kind.REFUSED, self._dialect.word_for(self._dialect.busy()))
                connection.shutdown(socket.SHUT_WR)
                channel.read(self._dialect.greeting, _AWAY_SECONDS)
        except (CloisterError, OSError):
            return
        finally:
            self._turning_away.release()

    def _drain(self) -> None:
        deadline = time.monotonic() + self._limits.drain_seconds
        with self._lock:
            still = list(self._open.items())
        for connection, _ in still:
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:
                continue
        for _, (_, thread) in still:
            thread.join(max(0.0, deadline - time.monotonic()))
