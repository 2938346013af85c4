"""Reading what was signed: anchors, decisions, approvals and kept stages: all canonical JSON (RFC 8785).

A document is read by its members and written again: it must come out as the same bytes. So no other type, no
further member and no second spelling is ever taken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from cloister.core.canonical import JSON, parse_canonical
from cloister.core.errors import CloisterError
from cloister.immune.errors import ImmuneError

if TYPE_CHECKING:
    from cloister.core.keys import PublicKey

MAX_BYTES: Final = 64 * 1024


class Signed(Protocol):
    """What is signed as a document."""

    def document(self) -> bytes:
        """It as canonical JSON."""
        ...


S = TypeVar("S", bound=Signed)


def open_signed(
    document: bytes, signature: bytes, trusted: PublicKey, read: Callable[[dict[str, JSON]], S]
) -> S:
    """Read a signed document.

    Args:
        document: as it was signed.
        signature: over it.
        trusted: the key that it must be signed with.
        read: makes it of its members; KeyError, TypeError, ValueError and AttributeError say that they are
            not those of one.

    Raises:
        ImmuneError: ``immune.anchor_invalid``.
    """
    try:
        trusted.verify(signature, document)
        members = parse_canonical(document, max_bytes=MAX_BYTES)
        if not isinstance(members, dict):
            raise _invalid()
        found = read(members)
    except (CloisterError, KeyError, TypeError, ValueError, AttributeError):
        raise _invalid() from None
    if found.document() != document:
        raise _invalid()
    return found


def count(value: JSON) -> int:
    """A whole number, 0 or more.

    Raises:
        ValueError: it isn't one.
    """
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def seconds(value: JSON) -> float:
    """A number.

    Raises:
        TypeError: it isn't one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def text(value: JSON) -> str:
    """A text.

    Raises:
        TypeError: it isn't one.
    """
    if not isinstance(value, str):
        raise TypeError
    return value


def _invalid() -> ImmuneError:
    return ImmuneError(
        "immune.anchor_invalid",
        "A signed baseline doesn't verify, or is of another function.",
        "The function is only observed until its baseline is approved anew: pic approve FUNCTION",
    )
