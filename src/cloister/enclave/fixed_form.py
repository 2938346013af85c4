"""Reading messages that have one form: canonical JSON of known fields under a schema, sizes bounded before.

Every protocol of this room names its own refusal; what is refused never shows any of what came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cloister.core.canonical import JSON, b64decode, parse_canonical
from cloister.core.errors import CloisterError, InputError
from cloister.core.hashes import is_sha256

_MAX_DEPTH: Final = 8
_MAX_NAME: Final = 200


class FixedForm:
    """Reads the messages of one protocol.

    Args:
        refusal: makes the protocol's error for whatever isn't of its exact form; every method raises that.
    """

    def __init__(self, refusal: Callable[[], CloisterError]) -> None:
        self._refusal = refusal

    def fields(self, data: bytes, schema: str, names: set[str], max_bytes: int) -> dict[str, JSON]:
        """The fields of a message, the schema among them.

        Args:
            data: the message.
            schema: what it has to say it is.
            names: its other fields, no more and no fewer.
            max_bytes: the most that is read.
        """
        try:
            value = parse_canonical(data, max_bytes=max_bytes, max_depth=_MAX_DEPTH)
        except InputError:
            raise self._refusal() from None
        if not isinstance(value, dict) or value.keys() != {"schema", *names} or value["schema"] != schema:
            raise self._refusal()
        return value

    def data(self, value: JSON, size: int) -> bytes:
        """Exactly so many bytes, written as base64."""
        if not isinstance(value, str):
            raise self._refusal()
        try:
            data = b64decode(value)
        except InputError:
            raise self._refusal() from None
        if len(data) != size:
            raise self._refusal()
        return data

    def sha256(self, value: JSON) -> str:
        """A SHA-256, as 64 hex digits."""
        if not isinstance(value, str) or not is_sha256(value):
            raise self._refusal()
        return value

    def name(self, value: JSON) -> str:
        """A printable name of at most 200 characters."""
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
            raise self._refusal()
        return value
