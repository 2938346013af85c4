"""How a text is read before it is searched, with the way back to what was written.

A number written in Arabic-Indic digits, an address with a soft hyphen in it or an ``@`` written as ``%40`` is
the same number and address to a reader. So one form of each character is searched, and what is found there is
replaced in the text as it was written. Rules kept here:

* A decimal digit of any script becomes its ASCII digit (NFKC alone leaves Arabic-Indic digits as they are);
  full-width forms, dashes, dots and spaces become their ASCII form. These changes keep every position.
* What can't be seen (zero-width and soft-hyphen characters, direction marks) is left out.
* Escapes of one character (``%40``, ``\\u0040``, ``\\x40``, ``&#64;``, ``\\n``) become that one.
* Time is linear: each character is looked at a fixed number of times.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from cloister.core.redaction.patterns import pattern

_INVISIBLE = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
_ESCAPE = (
    r"%[0-7][0-9A-Fa-f]"
    r"|\\(?:u[0-9A-Fa-f]{4}|x[0-7][0-9A-Fa-f]|[nrtfb\"'/])"
    r"|&(?:\#(?:[0-9]{1,5}|[xX][0-9A-Fa-f]{1,4});|(?:commat|period|quot|apos|amp|nbsp|lt|gt|colon|equals);)"
)
_LEFT_OUT = pattern(f"[{_INVISIBLE}]+")
_REWRITTEN = pattern(f"{_ESCAPE}|[{_INVISIBLE}]+")
_SEEMS_ESCAPED = pattern(r"%[2-7][0-9A-Fa-f]|\\[nrtfbux\"'/]|&[#a-z]")
_ENTITIES = {
    "commat": "@",
    "period": ".",
    "quot": '"',
    "apos": "'",
    "amp": "&",
    "nbsp": " ",
    "lt": "<",
    "gt": ">",
    "colon": ":",
    "equals": "=",
}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": "\b"}
_FORMS = {
    **dict.fromkeys(
        "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000", " "
    ),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58\ufe63\u30fc", "-"),
    **dict.fromkeys("\u3002\uff61\u2024\ufe52\u00b7\u2219\u30fb", "."),
    **dict.fromkeys("\ufe6b", "@"),
    **dict.fromkeys("\ufe55\ua789\u2236", ":"),
    **dict.fromkeys("\ufe62", "+"),
    **dict.fromkeys("\u2028\u2029\u0085", "\n"),
}


class Reading:
    """A text in the form that is searched.

    Attributes:
        text: what is searched.
    """

    __slots__ = ("_from", "_to", "text")

    def __init__(self, text: str, read_from: list[int], written_from: list[int]) -> None:
        self.text = text
        self._from = read_from
        self._to = written_from

    def written(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of the reading stands in the text as it was written.

        Args:
            start: where it starts in the reading.
            end: where it ends in the reading, exclusive, at least one further.
        """
        return (self._back(start), self._back(end)) if self._from else (start, end)

    def _back(self, position: int) -> int:
        piece = bisect_right(self._from, position) - 1
        return self._to[piece] + position - self._from[piece]


def read(text: str, *, decode: bool) -> Reading:
    """A text in the form that is searched.

    Args:
        text: as it was written.
        decode: whether escapes become the character that they stand for.
    """
    plain = text.isascii()
    escaped = (
        decode and ("%" in text or "\\" in text or "&" in text) and _SEEMS_ESCAPED.search(text) is not None
    )
    if plain and not escaped:
        return Reading(text, [], [])
    read_from: list[int] = []
    written_from: list[int] = []
    if escaped or _LEFT_OUT.search(text) is not None:
        text = _rewrite(text, _REWRITTEN if escaped else _LEFT_OUT, read_from, written_from)
    if not text.isascii():
        forms = {ord(one): form for one in set(text) if one > "\x7f" and (form := _form(one)) != one}
        if forms:
            text = text.translate(forms)
    return Reading(text, read_from, written_from)


def _rewrite(text: str, what: re.Pattern[str], read_from: list[int], written_from: list[int]) -> str:
    pieces: list[str] = []
    length = done = 0
    for found in what.finditer(text):
        start, end = found.span()
        if start > done or not pieces:
            read_from.append(length)
            written_from.append(done)
            pieces.append(text[done:start])
            length += start - done
        character = _decoded(found.group())
        if character:
            read_from.append(length)
            written_from.append(start)
            pieces.append(character)
            length += 1
        done = end
    read_from.append(length)
    written_from.append(done)
    pieces.append(text[done:])
    return "".join(pieces)


def _decoded(written: str) -> str:
    first, second = written[0], written[1:2]
    if first == "%":
        return chr(int(written[1:], 16))
    if first == "\\":
        return chr(int(written[2:], 16)) if second in ("u", "x") else _CONTROLS.get(second, second)
    if first == "&":
        name = written[1:-1]
        if name[0] != "#":
            return _ENTITIES[name]
        number = int(name[2:], 16) if name[1] in "xX" else int(name[1:])
        return chr(number) if 0 < number < 0xD800 else " "
    return ""


def _form(character: str) -> str:
    if character.isdecimal():
        return str(int(character))
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - 0xFEE0)
    return _FORMS.get(character, character)
