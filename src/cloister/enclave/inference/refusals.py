"""How an inference is refused, and the few words in which a client hears of it.

Rules kept here:

* Who is refused hears one of three words, whatever the reason: refused, busy, or that nothing serves here.
* A word that came over a wire has one sentence here; nothing of what an operator sends is repeated.
"""

from __future__ import annotations

from cloister.core.errors import CloisterError
from cloister.enclave.errors import InferenceError, SealedError

_REFUSED, _BUSY, _STOPPED = "inference.refused", "inference.busy", "inference.worker"


def malformed() -> InferenceError:
    """The refusal of a message that isn't of its exact form."""
    return InferenceError("inference.malformed", "A message of the inference is not of its exact form.")


def refused() -> InferenceError:
    """The refusal of a message, without its reason."""
    return InferenceError(
        _REFUSED, "The enclave or its operator refuses the message.", "Connect anew, open a session, and ask."
    )


def busy() -> InferenceError:
    """The refusal of a message that would have been fine at another time."""
    return InferenceError(
        _BUSY, "The service has as much to do as it takes on at a time.", "Ask again in a minute."
    )


def stopped() -> InferenceError:
    """What every client hears once the worker has ended, whatever ended it."""
    return InferenceError(_STOPPED, "Nothing serves here any more: the worker has ended.")


def nobody(address: str) -> InferenceError:
    """Nobody listens at an address."""
    return InferenceError(_STOPPED, f"Nobody answers at {address}.")


def other_end_gone() -> InferenceError:
    """The connection has ended, or carries something else than frames."""
    return InferenceError(_STOPPED, "The other end of the connection is gone, or speaks otherwise.")


def too_slow() -> InferenceError:
    """The other end takes or gives a message more slowly than is waited for."""
    return InferenceError(_STOPPED, "The other end of the connection is too slow.")


def word_for(error: CloisterError) -> bytes:
    """What a client hears of an error."""
    if isinstance(error, SealedError):
        return _STOPPED.encode()
    return error.code.encode() if error.code in (_BUSY, _STOPPED) else _REFUSED.encode()


def error_for(word: bytes) -> InferenceError:
    """What a client raises who hears it; a refusal for any other word."""
    return {_BUSY.encode(): busy, _STOPPED.encode(): stopped}.get(word, refused)()
