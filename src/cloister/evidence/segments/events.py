"""Whether a line with an event is written in its one form, at the pace of a stream.

What counts is `parse_canonical`, which takes longer for a line than all else together. But most events of a
stream have one of few shapes: the same names in the same places, other strings and numbers. Rules kept here:

1. A shape is made from an event that `parse_canonical` took, and matches only what it takes too: strings of
   printable ASCII without escapes, whole numbers of up to 15 digits, decimals of up to 14 without exponent,
   true, false and null. Such texts have one form. Any other event is parsed.
2. Few shapes are kept, and none of a large event: no stream makes the verifier learn without end.
3. An encrypted event is base64 in its one form; what it holds is for who opens it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from cloister.core.canonical import JSON, b64decode, canonicalize, parse_canonical
from cloister.core.clock import parse_time
from cloister.core.errors import InputError
from cloister.evidence.segments.layout import MAX_EVENT_BYTES, MAX_EVENT_DEPTH, Cipher

_MAX_SHAPES: Final = 16
_MAX_SHAPE_BYTES: Final = 2048
_SEALED_BYTES: Final = 12 + 16
_START: Final = len(b'{"at":"2026-11-21T14:00:00.000000Z","event":')
_AT: Final = slice(7, 34)
_MINUTE: Final = len(b'{"at":"2026-11-21T14:00')

_REST_OF_AT: Final = rb':[0-5][0-9]\.[0-9]{6}Z","event":'
_CLEAR: Final = re.compile(_REST_OF_AT + rb"(\{.*\})", re.DOTALL)
_SEALED: Final = re.compile(_REST_OF_AT + rb'"([A-Za-z0-9+/]+={0,2})"')
_STRING: Final = rb'"[ !#-\[\]-~]*+"'
_NUMBER: Final = rb"(?:0|-?[1-9][0-9]{0,14}|-?(?!0\.000000)(?:0|[1-9][0-9]{0,5})\.[0-9]{0,7}[1-9])"
_NAME: Final = rb"(?:true|false|null)"


class EventForms:
    """Judges the lines of one segment that are events.

    Args:
        cipher: how the segment's events are kept.
    """

    def __init__(self, cipher: Cipher) -> None:
        self._encrypted = cipher is not Cipher.NONE
        self._shapes: list[re.Pattern[bytes]] = []
        self._minute = b""
        sealed = -(-(MAX_EVENT_BYTES + _SEALED_BYTES) // 3) * 4 + 2
        self._furthest = _START + (sealed if self._encrypted else MAX_EVENT_BYTES)

    def fits(self, line: bytes, end: int) -> bool:
        """Whether a line has the one form of an event's.

        Args:
            line: the line.
            end: where its event ends; what follows isn't judged here.
        """
        if end > self._furthest:
            return False
        if line[:_MINUTE] != self._minute and not self._begins_minute(line):
            return False
        for shape in self._shapes:
            if shape.fullmatch(line, _MINUTE, end):
                return True
        return self._sealed(line, end) if self._encrypted else self._parsed(line, end)

    def _begins_minute(self, line: bytes) -> bool:
        try:
            parse_time(line[_AT].decode("ascii", "replace"))
        except InputError:
            return False
        self._minute = line[:_MINUTE]
        return line.startswith(b'{"at":"')

    def _parsed(self, line: bytes, end: int) -> bool:
        found = _CLEAR.fullmatch(line, _MINUTE, end)
        if found is None:
            return False
        text: bytes = found[1]
        try:
            event = parse_canonical(text, max_bytes=MAX_EVENT_BYTES, max_depth=MAX_EVENT_DEPTH)
        except InputError:
            return False
        if len(text) <= _MAX_SHAPE_BYTES and len(self._shapes) < _MAX_SHAPES:
            self._shapes.append(_compiled(_REST_OF_AT + _shape(event)))
        return True

    def _sealed(self, line: bytes, end: int) -> bool:
        found = _SEALED.fullmatch(line, _MINUTE, end)
        try:
            return found is not None and len(b64decode(found[1].decode("ascii"))) > _SEALED_BYTES
        except InputError:
            return False


def _shape(value: JSON) -> bytes:
    """A pattern of canonical texts with the same names, and values of the same kinds, in the same places."""
    if isinstance(value, dict):
        members = (re.escape(canonicalize(name)) + b":" + _shape(inner) for name, inner in value.items())
        return rb"\{" + b",".join(members) + rb"\}"
    if isinstance(value, list):
        return rb"\[" + b",".join(map(_shape, value)) + rb"\]"
    if isinstance(value, str):
        return _STRING
    return _NAME if value is None or isinstance(value, bool) else _NUMBER


@lru_cache(maxsize=64)
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern)
