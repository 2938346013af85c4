"""The house's one redactor: personal data that a rule can tell is replaced by a token that names its kind.

It is the second line. The first is that values never leave: what is logged or shipped is declared, typed and
sized (`core.loggable`, the immune room's telemetry). This line stands where text passes nevertheless.

Rules this module keeps:

* Pure: no clock, no files, no state; one redactor serves all threads and survives a fork.
* Linear time on every input, so that an attacker who chooses a text can't stop who logs it.
* A place is only replaced when it fulfils what its kind demands: an ordinary number, an id or a hash stays.
* A value is walked by its exact built-in types within bounds. Nothing of a foreign object is called, neither
  ``repr`` nor ``str``: it is withheld whole. So is what lies beyond a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from cloister.core.redaction import emails, ibans, keyed, numbers
from cloister.core.redaction.addresses import find_v6
from cloister.core.redaction.kinds import Kind, Span
from cloister.core.redaction.reading import read

WITHHELD: Final = "[withheld]"
_NOTHING: Final[Mapping[Kind, int]] = MappingProxyType({})
_NAMED: Final = (str, int, float, bytes, bytearray)
_LARGEST: Final = 10**19


class Options(NamedTuple):
    """What a redactor looks for, and how far it walks.

    Attributes:
        kinds: the kinds that are replaced.
        decode: whether escapes of one character (``%40``, ``\\u0040``, ``&#64;``) are read as that character.
        bare_numbers: whether ten bare digits that keep the North American numbering plan count as a telephone
            number, and nine that can be issued as a social security number. Off by default: they collide with
            ordinary numbers.
        depth: how deeply nested a value may be.
        items: how many items a value may hold in all.
        characters: how many characters all text in a value may have together.
    """

    kinds: frozenset[Kind] = frozenset(Kind)
    decode: bool = True
    bare_numbers: bool = False
    depth: int = 16
    items: int = 10_000
    characters: int = 1_000_000


class Redacted(NamedTuple):
    """A text with tokens.

    Attributes:
        text: the text.
        counts: how many places of each kind were replaced; kinds with none aren't in it.
    """

    text: str
    counts: Mapping[Kind, int]


class RedactedValue(NamedTuple):
    """A value with tokens.

    Attributes:
        value: of built-in types only: None, bool, int, float, str, bytes, list, tuple, frozenset and dict.
        counts: how many places of each kind were replaced.
        withheld: how many parts were withheld whole, as foreign or beyond a bound.
    """

    value: object
    counts: Mapping[Kind, int]
    withheld: int


class Redactor:
    """Replaces personal data by tokens, as ``[EMAIL_REDACTED]``.

    Args:
        options: what it looks for.
    """

    __slots__ = ("_all", "_options")

    def __init__(self, options: Options = Options()) -> None:  # noqa: B008 - immutable
        self._options = options
        self._all = options.kinds >= frozenset(Kind)

    @property
    def options(self) -> Options:
        """What it looks for."""
        return self._options

    def clean(self, text: str) -> str:
        """A text with every place that was found replaced, and nothing beside it."""
        return self.text(text).text

    def text(self, text: str) -> Redacted:
        """A text with every place that was found replaced.

        Args:
            text: any text; one without findings is returned as it is.
        """
        found = self.places(text)
        if not found:
            return Redacted(text, _NOTHING)
        pieces: list[str] = []
        counts: dict[Kind, int] = {}
        done = 0
        for start, end, kind in found:
            pieces += (text[done:start], kind.token)
            counts[kind] = counts.get(kind, 0) + 1
            done = end
        pieces.append(text[done:])
        return Redacted("".join(pieces), MappingProxyType(counts))

    def places(self, text: str) -> list[Span]:
        """Where `text` writes tokens: start, end (exclusive) and kind, in order and apart from each other.

        Args:
            text: any text.
        """
        reading = read(text, decode=self._options.decode)
        found = self._found(reading.text)
        if not found:
            return found
        merged = _merged(found)
        if reading.text is text:
            return list(merged)
        return [(*reading.written(start, end), kind) for start, end, kind in merged]

    def value(self, value: object) -> RedactedValue:
        """A value in which every text, number, bytes and key is redacted, however nested.

        A number that is a card's or that its key names becomes a token, bytes are read as UTF-8, and what a
        mapping's key names (``password``, ``ssn``, ``mrn``) is replaced whole. Two keys that become the same
        token stay two.

        Args:
            value: anything.
        """
        return _Walk(self).run(value)

    def _found(self, text: str) -> list[Span]:
        found: list[Span] = []
        lower = text.lower()
        if len(lower) != len(text):
            # One capital letter has two small ones (U+0130).
            lower = text.replace("\u0130", "i").lower()
        emails.find(text, lower, found)
        find_v6(text, found)
        ibans.find(text, found)
        numbers.find(text, found)
        if self._options.bare_numbers:
            numbers.find_bare(text, found)
        keyed.find(text, lower, found)
        return found if self._all else [one for one in found if one[2] in self._options.kinds]


def _merged(found: list[Span]) -> Iterator[Span]:
    """Spans in order, those that overlap as one, of the kind that starts first."""
    found.sort()
    begin, last, first = found[0]
    for start, end, kind in found:
        if start >= last:
            yield begin, last, first
            begin, last, first = start, end, kind
        elif end > last:
            last = end
            if start == begin:
                first = kind
    yield begin, last, first


class _Walk:
    """One walk over one value: what is left of its bounds, and what was found."""

    __slots__ = ("characters", "counts", "items", "redactor", "withheld")

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.items = redactor.options.items
        self.characters = redactor.options.characters
        self.counts: dict[Kind, int] = {}
        self.withheld = 0

    def run(self, value: object) -> RedactedValue:
        walked = self._walk(value, self.redactor.options.depth)
        return RedactedValue(walked, MappingProxyType(self.counts), self.withheld)

    def _walk(self, value: object, depth: int) -> object:
        if value is None or value is True or value is False:
            return value
        self.items -= 1
        if self.items < 0 or depth < 0:
            return self._withhold()
        # `isinstance` would ask a foreign object for its class, and a subclass may have methods of its own.
        walk = next((walk for builtin, walk in _WALKS if issubclass(type(value), builtin)), None)
        return self._withhold() if walk is None else walk(self, value, depth - 1)

    def _each(self, values: Iterator[object], depth: int) -> Iterator[object]:
        # At once, since another thread may change what is walked.
        for one in tuple(values):
            yield self._walk(one, depth)
            if self.items < 0:
                return

    def _mapping(self, value: dict[object, object], depth: int) -> dict[object, object]:
        walked: dict[object, object] = {}
        for key, one in tuple(dict.items(value)):
            kept = self._walk(key, depth)
            if kept in walked:
                kept = f"{kept} #{len(walked)}"
            kind = keyed.kind_of_field(str.__str__(cast("str", key))) if issubclass(type(key), str) else None
            walked[kept] = self._named(one, kind, depth)
            if self.items < 0:
                break
        return walked

    def _named(self, value: object, kind: Kind | None, depth: int) -> object:
        named = kind is not None and kind in self.redactor.options.kinds
        if kind is not None and named and type(value) is not bool and issubclass(type(value), _NAMED):
            return self._token(kind)
        return self._walk(value, depth)

    def _token(self, kind: Kind) -> str:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return kind.token

    def _withhold(self) -> str:
        self.withheld += 1
        return WITHHELD

    def _text(self, text: str) -> str:
        self.characters -= len(text)
        if self.characters < 0:
            return self._withhold()
        redacted = self.redactor.text(text)
        for kind, count in redacted.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
        return redacted.text

    def _number(self, number: int) -> int | str:
        if not 10**8 <= number < _LARGEST:
            return number
        written = str(number)
        redacted = self._text(written)
        return number if redacted == written else redacted

    def _float(self, number: float) -> float | str:
        if not (10**11 <= number < 2**53 and number.is_integer()):
            return number
        redacted = self._number(int(number))
        return redacted if isinstance(redacted, str) else number

    def _bytes(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        redacted = self._text(text)
        return data if redacted == text else redacted.encode("utf-8", "surrogateescape")


_Walking = Callable[[_Walk, Any, int], object]
# Each built-in type, and how its own methods read it.
_WALKS: Final[tuple[tuple[type, _Walking], ...]] = (
    (str, lambda walk, value, _: walk._text(str.__str__(value))),
    (int, lambda walk, value, _: walk._number(int.__int__(value))),
    (float, lambda walk, value, _: walk._float(float.__float__(value))),
    (dict, lambda walk, value, depth: walk._mapping(value, depth)),
    (list, lambda walk, value, depth: list(walk._each(list.__iter__(value), depth))),
    (tuple, lambda walk, value, depth: tuple(walk._each(tuple.__iter__(value), depth))),
    (set, lambda walk, value, depth: frozenset(walk._each(set.__iter__(value), depth))),
    (frozenset, lambda walk, value, depth: frozenset(walk._each(frozenset.__iter__(value), depth))),
    (bytes, lambda walk, value, _: walk._bytes(bytes.__getitem__(value, slice(None)))),
    (bytearray, lambda walk, value, _: walk._bytes(bytes(bytearray.__getitem__(value, slice(None))))),
)
