"""The client's way to a service behind a socket."""

from __future__ import annotations

from cloister.enclave.inference.listener import INFERENCE
from cloister.enclave.wire import Pace, WireEndpoint
from cloister.enclave.wire.endpoint import PATIENCE_SECONDS


class SocketEndpoint(WireEndpoint):
    """The client's way to a listener; an `Endpoint` for one session.

    Args:
        address: a path, ``host:port`` or ``[host]:port``.
        pace: how fast a message has to pass.
        patience: how long an answer is waited for, in seconds.

    Raises:
        InferenceError: ``inference.worker`` where nobody listens.
        InputError: it is no address.
    """

    def __init__(self, address: str, pace: Pace | None = None, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__(address, INFERENCE, pace, patience)

    def hello(self, message: bytes) -> bytes:
        """Carry a hello; InferenceError where it is refused or nobody answers."""
        return self.exchange(INFERENCE.first, message)

    def query(self, message: bytes) -> bytes:
        """Carry a query; InferenceError where it is refused or nobody answers."""
        return self.exchange(INFERENCE.then, message)
