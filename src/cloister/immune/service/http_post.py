"""Posts a batch over one connection that is kept open.

Rules this module keeps:

1. Answers are read up to 64 KiB, redirects aren't followed, and no proxy is used.
2. Beyond this machine a batch is signed or the connection is TLS 1.3 with certificates on both sides.
3. A batch that is tried again keeps its nonce, so that a service that did take it knows it again. Only where
   the service says that the signature itself is no good is it signed anew.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from cloister.immune.errors import ImmuneError
from cloister.immune.service.delivery import Answer, Attempt, Reply
from cloister.immune.service.loopback import is_loopback
from cloister.immune.service.signing import prove

PATH: Final = "/api/v1/telemetry"
_MAX_ANSWER: Final = 65_536
_TRY_AGAIN: Final = frozenset({401, 408, 425, 429, 500, 502, 503, 504})
_TAKEN_BEFORE: Final = 409


class HttpPost:
    """One service, and the connection to it. For one thread.

    Args:
        url: ``http://host:port`` or ``https://host:port``.
        secret: what batches are signed with; None signs none.
        tls: the context of an ``https`` URL.
        seconds: how long connecting, and each wait for the answer, may take.
        clock: Unix time, seconds.

    Raises:
        ImmuneError: ``immune.setting_invalid`` for another kind of URL, or one beyond this machine with
            neither secret nor TLS.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: bytes | None = None,
        tls: ssl.SSLContext | None = None,
        seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        host = parts.hostname
        if parts.scheme not in ("http", "https") or host is None or parts.path not in ("", "/"):
            raise ImmuneError(
                "immune.setting_invalid", "api.url is no address of a service.", "Write http://HOST:PORT."
            )
        if (parts.scheme == "https") != (tls is not None):
            raise ImmuneError(
                "immune.setting_invalid",
                "An https address and the certificates of api.certificate_file go together.",
                "Set both: api.url with https, and api.certificate_file, key_file and authority_file.",
            )
        if tls is None and secret is None and not is_loopback(host):
            raise ImmuneError(
                "immune.setting_invalid",
                "Telemetry leaves this machine only signed, or over TLS with certificates on both sides.",
                "Set api.token_file, or the certificates and an https address.",
            )
        self._host, self._port, self._tls, self._seconds = host, port, tls, seconds
        self._secret, self._clock = secret, clock
        self._connection: http.client.HTTPConnection | None = None

    def begin(self, body: bytes) -> Attempt:
        """Prepare a batch.

        Returns:
            A function that tries it once each time it is called.
        """
        header: str | None = None

        def attempt() -> Answer:
            nonlocal header
            if self._secret is not None and header is None:
                header = prove(self._secret, body, self._clock(), os.urandom).header()
            status, answer = self._ask(body, header)
            if status == 401:
                header = None
            return answer

        return attempt

    def forget_connection(self) -> None:
        """Leave the connection to whom this process was forked from."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.sock is not None:
            # Closes this process's descriptor only; nothing is said to the service.
            os.close(connection.sock.detach())

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, body: bytes, header: str | None) -> tuple[int, Answer]:
        kept_open = self._connection is not None
        try:
            return self._once(body, header)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # The service may close an idle connection at any time (RFC 9112 section 9.3.1).
            if not (kept_open and isinstance(error, http.client.RemoteDisconnected | ConnectionError)):
                return 0, Answer(Reply.TRY_AGAIN)
        try:
            return self._once(body, header)
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, Answer(Reply.TRY_AGAIN)

    def _once(self, body: bytes, header: str | None) -> tuple[int, Answer]:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._connect()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if header is not None:
            headers["Authorization"] = header
        connection.request("POST", PATH, body, headers)
        response = connection.getresponse()
        content = response.read(_MAX_ANSWER)
        if response.will_close or not response.isclosed():
            self.close()
        return response.status, _meaning(response.status, response.headers.get("Retry-After", ""), content)

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._seconds)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._seconds, context=self._tls)


def _meaning(status: int, retry_after: str, content: bytes) -> Answer:
    if 200 <= status < 300:
        return Answer(Reply.TAKEN, limited=_limited(content))
    if status == _TAKEN_BEFORE:
        return Answer(Reply.TAKEN)
    if status in _TRY_AGAIN:
        seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
        return Answer(Reply.TRY_AGAIN, wait=seconds)
    return Answer(Reply.REFUSED)


def _limited(content: bytes) -> int:
    try:
        limited = json.loads(content).get("limited", 0)
    except (ValueError, AttributeError, RecursionError):
        return 0
    return limited if isinstance(limited, int) and limited >= 0 else 0
