"""A key service behind a socket: its dialect, its side of a connection, and a client's way to it.

What passes is protected from end to end: evidence binds the request, and the key is sealed to the attested
worker. Rules kept here:

* A connection begins with an ask. Requests, which are large and cost a verification, come after a challenge
  only, and each needs one of its own.
* Who is refused hears one word, whatever the reason, and the connection ends.
* A client that isn't the worker, such as its node, carries; it holds back what it likes, and reads nothing.
"""

from __future__ import annotations

from typing import Final, Protocol

from cloister.core.errors import CloisterError
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease.messages import MAX_REQUEST_BYTES, MAX_SHORT_BYTES, REFUSAL, refused
from cloister.enclave.wire import Dialect, Kind, Listener, ListenerLimits, Pace, Turn, WireEndpoint
from cloister.enclave.wire.endpoint import PATIENCE_SECONDS

_REFUSED, _BUSY, _UNREACHABLE = "release.refused", "release.busy", "release.unreachable"


class Keeper(Protocol):
    """Who keeps data keys: a `ReleaseService` here, or a `KeyServiceEndpoint` to one elsewhere."""

    def challenge(self, ask: bytes) -> bytes:
        """Answer an ask with a challenge."""
        ...

    def release(self, request: bytes) -> bytes:
        """Answer a request with the sealed key, or the one refusal."""
        ...


def _busy() -> ReleaseError:
    return ReleaseError(
        _BUSY, "The key service has as much to do as it takes on at a time.", "Ask again in a minute."
    )


def _nobody(address: str) -> ReleaseError:
    return ReleaseError(_UNREACHABLE, f"No key service answers at {address}.")


def _gone() -> ReleaseError:
    return ReleaseError(_UNREACHABLE, "The other end of the connection is gone, or speaks otherwise.")


def _too_slow() -> ReleaseError:
    return ReleaseError(_UNREACHABLE, "The other end of the connection is too slow.")


def _stopped() -> ReleaseError:
    return ReleaseError(_UNREACHABLE, "The key service is ending.")


def _word_for(error: CloisterError) -> bytes:
    return error.code.encode() if error.code in (_BUSY, _UNREACHABLE) else _REFUSED.encode()


def _error_for(word: bytes) -> ReleaseError:
    return {_BUSY.encode(): _busy, _UNREACHABLE.encode(): _stopped}.get(word, refused)()


KEY_RELEASE: Final = Dialect(
    first=Turn(Kind.ASK, MAX_SHORT_BYTES, Kind.CHALLENGE, MAX_SHORT_BYTES),
    then=Turn(Kind.REQUEST, MAX_REQUEST_BYTES, Kind.REPLY, MAX_SHORT_BYTES),
    nobody=_nobody,
    gone=_gone,
    too_slow=_too_slow,
    busy=_busy,
    stopped=_stopped,
    refused=refused,
    word_for=_word_for,
    error_for=_error_for,
)
LIMITS: Final = ListenerLimits(idle_seconds=60.0)
"""A challenge holds for a minute: whoever takes longer asks anew."""


class KeyServiceListener(Listener):
    """A key service behind a socket.

    Args:
        address: a path, ``host:port`` or ``[host]:port``; port 0 takes a free one.
        limits: how many may come, and how long each may take.

    Raises:
        StorageError: ``storage.in_use`` where the address can't be listened on.
        InputError: it is none.
    """

    def __init__(self, address: str, limits: ListenerLimits = LIMITS) -> None:
        super().__init__(address, KEY_RELEASE, limits)


class KeyDesk:
    """Where clients of a keeper come; a `cloister.enclave.wire.Reception`.

    Args:
        keeper: answers them; safe to share between threads.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def connect(self) -> KeyConversation:
        """The conversation with one client."""
        return KeyConversation(self._keeper)


class KeyConversation:
    """An ask, then requests and asks; made by `KeyDesk`. It keeps nothing: challenges are the keeper's."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def answer(self, kind: Kind, message: bytes) -> bytes:
        """See `cloister.enclave.wire.Conversation.answer`.

        Raises:
            ReleaseError: ``release.refused``.
        """
        answered = (self._keeper.challenge if kind is Kind.ASK else self._keeper.release)(message)
        if answered == REFUSAL:
            raise refused()
        return answered

    def close(self) -> None:
        """Nothing is left to end."""


class KeyServiceEndpoint(WireEndpoint):
    """A client's way to a key service; a `Keeper` to who asks.

    Args:
        address: a path, ``host:port`` or ``[host]:port``.
        pace: how fast a message has to pass.
        patience: how long an answer is waited for, in seconds.

    Raises:
        ReleaseError: ``release.unreachable`` where nobody listens.
        InputError: it is no address.
    """

    def __init__(self, address: str, pace: Pace | None = None, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__(address, KEY_RELEASE, pace, patience)

    def challenge(self, ask: bytes) -> bytes:
        """Carry an ask.

        Raises:
            ReleaseError: ``release.refused``, ``release.busy`` or ``release.unreachable``.
        """
        return self.exchange(KEY_RELEASE.first, ask)

    def release(self, request: bytes) -> bytes:
        """Carry a request.

        Raises:
            ReleaseError: as `challenge`.
        """
        return self.exchange(KEY_RELEASE.then, request)
