"""The other end of the service: a sender to it, and its status, from the same settings."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from cloister.immune.errors import ImmuneError
from cloister.immune.service.encoding import Tellable, encode_batch
from cloister.immune.service.http_post import HttpPost
from cloister.immune.service.sender import Sender
from cloister.immune.service.shared_secret import read_secret
from cloister.immune.service.signing import reading_token
from cloister.immune.service.tls import client_context

if TYPE_CHECKING:
    from cloister.core.canonical import JSON
    from cloister.immune.settings import ApiSettings, ImmuneSettings

_MAX_ANSWER: Final = 16 * 1024 * 1024
_SECONDS: Final = 5.0


T = TypeVar("T", bound=Tellable)


def open_sender(settings: ImmuneSettings) -> Sender[T]:
    """A sender to the service that the settings name. It does nothing before its first event.

    Raises:
        ImmuneError: ``immune.setting_invalid`` where they name none, or not enough of it.
        KeyStoreError: the token's or the key's file can't be used.
    """
    api, agent = settings.api, settings.cellagent
    if api.url is None:
        raise ImmuneError("immune.setting_invalid", "api.url names no service.", "Set api.url.")
    post = HttpPost(api.url, secret=read_secret(api), tls=client_context(api))
    return Sender(
        encode_batch,
        post,
        batch_size=agent.batch_size,
        batch_seconds=agent.batch_interval_sec,
        capacity=agent.buffer_size,
    )


def read_status(settings: ApiSettings) -> dict[str, JSON]:
    """What a running service says of itself and its brain.

    Args:
        settings: its ``url``, or the host and port at which it listens.

    Raises:
        ImmuneError: ``immune.unreachable`` where nobody answers, ``immune.telemetry_unproven`` where the
            secret is another.
        KeyStoreError: the token's or the key's file can't be used.
    """
    secret, tls = read_secret(settings), client_context(settings)
    headers = {} if secret is None else {"Authorization": f"Bearer {reading_token(secret)}"}
    host, port = settings.host, settings.port
    if settings.url is not None:
        parts = urlsplit(settings.url)
        host, port = parts.hostname or host, parts.port or port
    connection = (
        http.client.HTTPConnection(host, port, timeout=_SECONDS)
        if tls is None
        else http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=tls)
    )
    try:
        connection.request("GET", "/status", headers=headers)
        response = connection.getresponse()
        status, content = response.status, response.read(_MAX_ANSWER)
    except (OSError, http.client.HTTPException):
        raise _unreachable("Nobody answers") from None
    finally:
        connection.close()
    if status == 401:
        raise ImmuneError("immune.telemetry_unproven", "The service has another secret than api.token_file.")
    if status != 200:
        raise _unreachable(f"An answer came with status {status}")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise _unreachable("Something else answers") from None
    if not isinstance(told, dict):
        raise _unreachable("Something else answers")
    return told


def _unreachable(what: str) -> ImmuneError:
    return ImmuneError(
        "immune.unreachable", f"{what} at the address of the brain service.", "Start it: pic start"
    )
