"""Runs the service on a socket.

Rules this module keeps:

1. Only this machine reaches it, unless telemetry is signed or certificates are shown on both sides.
2. A request has ten seconds from its first byte to the end of its answer, and a connection as long for its
   first byte: who sends or reads slower is cut off. With 256 connections open, requests on more are told so
   (503); with 512, more are closed. A handshake has five seconds.
3. One process serves: limits and nonces are in its memory.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cloister.immune.errors import ImmuneError
from cloister.immune.service.app import create_app
from cloister.immune.service.loopback import is_loopback
from cloister.immune.service.shared_secret import read_secret
from cloister.immune.service.tls import server_context

if TYPE_CHECKING:
    from cloister.immune.service.brain_port import BrainPort
    from cloister.immune.settings import ApiSettings

REQUEST_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 30
MAX_CONNECTIONS: Final = 256
MAX_HEADER_BYTES: Final = 16 * 1024
HANDSHAKE_SECONDS: Final = 5.0


def serve(
    brain: BrainPort, settings: ApiSettings, *, announce: Callable[[str], object] = lambda _: None
) -> None:
    """Serve until SIGTERM or SIGINT; call it from the main thread.

    Args:
        brain: what takes the events in.
        settings: port 0 takes any that is free.
        announce: told the service's URL, before anything is served; what connects by then waits.

    Raises:
        ImmuneError: ``immune.service_unsafe`` or ``immune.setting_invalid``; nothing was opened.
        KeyStoreError: the token's or the key's file can't be used.
    """
    server, listening = _prepare(brain, settings, REQUEST_SECONDS)
    with listening:
        announce(_url(server, listening))
        _run(server, listening)


@contextmanager
def serving(
    brain: BrainPort, settings: ApiSettings, *, request_seconds: float = REQUEST_SECONDS
) -> Iterator[str]:
    """Serve from a thread as long as the block runs.

    Args:
        brain: what takes the events in.
        settings: port 0 takes any that is free.
        request_seconds: that a request may take.

    Yields:
        The service's URL.

    Raises:
        ImmuneError: ``immune.service_unsafe`` or ``immune.setting_invalid``; nothing was opened.
        KeyStoreError: the token's or the key's file can't be used.
    """
    server, listening = _prepare(brain, settings, request_seconds)
    thread = threading.Thread(
        target=_run, args=(server, listening), name="cloister-immune-service", daemon=True
    )
    with listening:
        thread.start()
        try:
            _await_start(server, thread)
            yield _url(server, listening)
        finally:
            server.should_exit = True
            thread.join(5.0)


def _url(server: uvicorn.Server, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    scheme = "https" if server.config.is_ssl else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _prepare(
    brain: BrainPort, settings: ApiSettings, request_seconds: float
) -> tuple[uvicorn.Server, socket.socket]:
    secret, context = read_secret(settings), server_context(settings)
    if secret is None and context is None and not is_loopback(settings.host):
        raise ImmuneError(
            "immune.service_unsafe",
            "The service would listen beyond this machine, and take telemetry from anybody.",
            "Set api.token_file or the certificates, or listen at 127.0.0.1.",
        )
    app = create_app(
        brain, settings, secret=secret, open_to_network=context is not None, body_seconds=request_seconds
    )
    factory = None if context is None else _given(context)
    config = uvicorn.Config(
        app,
        http=_protocol(request_seconds),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ssl_context_factory=factory,
    )
    config.load()
    return uvicorn.Server(config), _listen(settings)


class _Loop(asyncio.SelectorEventLoop):
    """Gives a handshake an end of its own: who never finishes one isn't seen by any protocol."""

    async def create_server(self, *given: Any, **named: Any) -> asyncio.Server:
        if named.get("ssl") is not None:
            named["ssl_handshake_timeout"] = HANDSHAKE_SECONDS
        return await super().create_server(*given, **named)


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(server.serve(sockets=[listening]))


def _given(context: ssl.SSLContext) -> Any:
    return lambda _config, _default: context


def _listen(settings: ApiSettings) -> socket.socket:
    try:
        return _listening(settings.host, settings.port)
    except OSError as error:
        raise ImmuneError(
            "immune.setting_invalid",
            f"The service can't listen at api.host and api.port ({type(error).__name__}).",
            "Choose another port, or end what listens there.",
        ) from None


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    # Its protocol is named, as asyncio turns off Nagle's algorithm for such sockets only; with it an answer
    # waits 40 ms for its other half.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(MAX_CONNECTIONS)
    except OSError:
        made.close()
        raise
    return made


def _await_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    for _ in range(1000):
        if server.started:
            return
        thread.join(0.01)
        if not thread.is_alive():
            break
    raise ImmuneError("immune.unreachable", "The service didn't start.")


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    class Impatient(H11Protocol):
        """HTTP/1.1 with an end to each request; uvicorn itself waits for one as long as bytes come."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._begin()
            if len(self.connections) > 2 * MAX_CONNECTIONS:
                transport.abort()

        def data_received(self, data: bytes) -> None:
            if self._deadline is None:
                self._begin()
            super().data_received(data)

        def on_response_complete(self) -> None:
            self._end()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def timeout_keep_alive_handler(self) -> None:
            # Closing would wait for a reader who never reads the rest of an answer.
            self.transport.abort()

        def _begin(self) -> None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

        def _end(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Impatient
