"""How an inference service and its clients speak, and the service behind a socket."""

from __future__ import annotations

from typing import Final

from cloister.enclave.inference.messages import (
    MAX_ANSWER_BYTES,
    MAX_HELLO_BYTES,
    MAX_QUERY_BYTES,
    MAX_SESSIONS,
    MAX_WELCOME_BYTES,
)
from cloister.enclave.inference.refusals import (
    busy,
    error_for,
    nobody,
    other_end_gone,
    refused,
    stopped,
    too_slow,
    word_for,
)
from cloister.enclave.wire import Dialect, Kind, Listener, ListenerLimits, Turn

INFERENCE: Final = Dialect(
    first=Turn(Kind.HELLO, MAX_HELLO_BYTES, Kind.WELCOME, MAX_WELCOME_BYTES),
    then=Turn(Kind.QUERY, MAX_QUERY_BYTES, Kind.ANSWER, MAX_ANSWER_BYTES),
    nobody=nobody,
    gone=other_end_gone,
    too_slow=too_slow,
    busy=busy,
    stopped=stopped,
    refused=refused,
    word_for=word_for,
    error_for=error_for,
)
LIMITS: Final = ListenerLimits(connections=MAX_SESSIONS, per_peer=MAX_SESSIONS // 4)
"""No more connections than a worker takes sessions."""


class InferenceListener(Listener):
    """An inference service behind a socket: a connection carries a hello and the queries of that session.

    Args:
        address: a path, ``host:port`` or ``[host]:port``; port 0 takes a free one.
        limits: how many may come, and how long each may take.

    Raises:
        StorageError: ``storage.in_use`` where the address can't be listened on.
        InputError: it is none.
    """

    def __init__(self, address: str, limits: ListenerLimits = LIMITS) -> None:
        super().__init__(address, INFERENCE, limits)
