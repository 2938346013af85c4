"""A client's way to a service behind a socket."""

from __future__ import annotations

from typing import Final

from cloister.enclave.wire.address import Address
from cloister.enclave.wire.dialect import Dialect, Kind, Turn
from cloister.enclave.wire.frames import Channel, Pace

CONNECT_SECONDS: Final = 10.0
PATIENCE_SECONDS: Final = 120.0
"""How long an answer is waited for, before its first byte."""
_WORD_BYTES: Final = 64


class WireEndpoint:
    """One connection to a service; not for several threads at once.

    Args:
        address: a path, ``host:port`` or ``[host]:port``.
        dialect: how the service speaks.
        pace: how fast a message has to pass.
        patience: how long an answer is waited for, in seconds.

    Raises:
        CloisterError: the dialect's, where nobody listens.
        InputError: it is no address.
    """

    def __init__(
        self, address: str, dialect: Dialect, pace: Pace | None = None, patience: float = PATIENCE_SECONDS
    ) -> None:
        made = Address.parse(address).connect(CONNECT_SECONDS)
        if made is None:
            raise dialect.nobody(address)
        self._socket, self._dialect, self._patience = made, dialect, patience
        self._channel = Channel(made, dialect, pace)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def exchange(self, turn: Turn, message: bytes) -> bytes:
        """Say something and wait for its answer.

        Raises:
            CloisterError: the dialect's, where it is refused or nobody answers.
        """
        self._channel.write(turn.said, message)
        bounds = {turn.answered: turn.most_answered, Kind.REFUSED: _WORD_BYTES}
        kind, content = self._channel.read(bounds, self._patience)
        if kind is Kind.REFUSED:
            raise self._dialect.error_for(content)
        return content
