"""What the name before it tells: ``MRN: 00123456``, ``ssn=123456789``, ``password: x``, ``Fax: 88 165 40``.

A medical record number or a password has no form of its own, and nine bare digits are a social security
number only where the text says so. Rules this module keeps:

* A pattern is only tried where a stem of its name stands, since most lines have none.
* Between a name and its value stand signs and a few small words, all bounded, so time is linear.
* A word that says that there is no value (``password: required``, ``patient_id=None``) stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cloister.core.redaction import cards
from cloister.core.redaction.kinds import Kind, Span
from cloister.core.redaction.patterns import pattern

_SAYS_NONE = (
    "none null nil true false yes no undefined unset unknown missing required optional invalid empty "
    "redacted hidden withheld str string int integer bytes bool object text any field column header and "
    "or is not n/a na "
)
_NO_VALUE = frozenset(_SAYS_NONE.split())
_I = re.IGNORECASE
_SIGNS = r"[\s\"':=#.,?>()\[\]-]{0,6}"
_SMALL = r"(?:(?:is|was|no\.?|nr\.?|num|number|ending)[\s:=#\"'.]{1,4}){0,3}"
_SOCIAL = pattern(
    rf"(?:ssn|social[ _-]?security(?:[ _-]?(?:number|num|no|nr|\#))?){_SIGNS}{_SMALL}"
    r"(?P<value>[0-9](?:[ .-]{0,3}[0-9]){8})(?![0-9])",
    _I,
)
_CARD = pattern(
    rf"card(?:[ _-]?(?:number|num|no|nr|\#))?{_SIGNS}{_SMALL}"
    r"(?P<value>[0-9](?:[ .-]{0,3}[0-9]){11,18})(?![0-9])",
    _I,
)
_RECORD = pattern(
    r"(?<![a-z])(?:(?P<certain>mrn(?:[ _-]?(?:number|num|no|nr|id))?"
    r"|(?:medical|health)[ _-]?record[ _-]?(?:number|num|no|nr|id|identifier|\#)"
    r"|(?:patient|hospital|chart|nhs|subject|health[ _-]?card|medicare|medicaid)[ _-]?"
    r"(?:identifier|id|number|num|no|nr|\#))|medical[ _-]?record)(?![a-z])"
    rf"(?P<signs>[\s\"':=#.>()\[\]-]{{0,6}}){_SMALL}"
    r"(?P<value>[0-9]{1,4}(?:[ -][0-9]{2,4}){1,4}(?![\w-])|[a-z0-9](?:[a-z0-9/._-]{0,40}[a-z0-9])?)",
    _I,
)
_SECRET = pattern(
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|authorization"
    r"|(?:(?<=api)|(?<=api[ _-])|(?<=private)|(?<=private[_-])|(?<=access[_-])|(?<=secret[_-]))key"
    r"|(?:(?<=access)|(?<=access[_-])|(?<=auth[_-])|(?<=bearer[_-])|(?<=refresh[_-])|(?<=session[_-]))token)"
    r"[\"']?\s{0,3}[:=]\s{0,3}(?:(?:bearer|basic|digest)\s)?"
    r"(?:\"(?P<double>[^\"\n]{1,256})\"|'(?P<single>[^'\n]{1,256})'"
    r"|[\"']?(?P<bare>[A-Za-z0-9_+/!@#^.~][^\s,;&\"'<>)\]}]{0,256}))",
    _I,
)
_IN_URL = pattern(r"://[^\s/@:]{0,64}:(?P<value>[^\s/@:]{1,64})@")
_NUMBER = r"(?P<value>\+?\(?[0-9](?:[ ().\\/-]{0,3}[0-9]){5,14}(?:\ ?(?:x|ext\.?)\ ?[0-9]{1,6})?)(?![0-9])"
_PHONE = pattern(
    r"(?:(?P<sure>phone|(?<![a-z])(?:tel|mobile|cell|fax))"
    r"|(?<![a-z])(?:call|calls|reach|contact)(?![a-z]))"
    r"(?:[ _-]?(?:number|num|no|nr)(?![a-z]))?[\s:=\#.\"'>()-]{0,5}+"
    r"(?:\s?(?:number|no\.?|nr\.?|is|was|me|us|him|her|them|at|on|to|back|the|my|home|work|office|line)"
    r"(?![a-z])){0,4}+"
    rf"[\s:=\#.\"'>-]{{0,4}}+{_NUMBER}",
    _I,
)
# Read backwards from the name: an extension, then groups of digits.
_NUMBER_BACKWARDS = pattern(
    r"[ (]{0,2}(?P<value>(?:[0-9]{1,6}x)?[0-9]{1,8}(?:[ ().-]{1,3}[0-9]{1,8}){1,5})(?![\w.])"
)
_SEPARATED = pattern(r"[0-9][ ()-]+[0-9]|[0-9]\.[0-9]+\.[0-9]")
_DATED = pattern(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}\Z|[0-9]+\.[0-9]+\Z")
_DIGITS = pattern("[0-9]")
_MAY_BE_TOLD = pattern("[0-9=\"']")


def find(text: str, lower: str, found: list[Span]) -> None:
    """Add where a name says what stands behind it.

    Args:
        text: what is searched.
        lower: the same in small letters, of the same length.
        found: what is added to.
    """
    for stem, judge in [pair for pair in _STEMS if pair[0] in lower]:
        at = lower.find(stem)
        while at >= 0:
            span = judge(text, at)
            if span is not None:
                found.append(span)
            at = lower.find(stem, at + 1 if span is None else max(at + 1, span[1]))
    if "://" in text and "@" in text:
        found.extend((*one.span("value"), Kind.SECRET) for one in _IN_URL.finditer(text))


def kind_of_field(name: str) -> Kind | None:
    """What a field holds by its name alone, as a key of a mapping says it.

    Args:
        name: the field's name, as ``patientSSN`` or ``home_phone``.
    """
    return next((kind for names, kind in _FIELDS if names.search(name[:80]) is not None), None)


_FIELDS = (
    (
        pattern(
            r"pass(?:word|wd|phrase|code)|pwd|secret|api[_ -]?key|private[_ -]?key"
            r"|(?:access|auth|bearer|refresh|session)[_ -]?token|^authorization$",
            _I,
        ),
        Kind.SECRET,
    ),
    (pattern(r"ssn|social[_ -]?security", _I), Kind.SSN),
    (pattern(r"e-?mail(?:[_ -]?addr(?:ess)?)?$", _I), Kind.EMAIL),
    (pattern(r"(?:phone|mobile|fax|(?<![a-z])(?:tel|cell))(?:[_ -]?(?:number|num|no|nr))?$", _I), Kind.PHONE),
    (pattern(r"(?:card|(?<![a-z])cc)[_ -]?(?:number|num|no|nr)$", _I), Kind.CARD),
    (pattern(r"(?<![a-z])iban$", _I), Kind.IBAN),
    (
        pattern(
            r"(?:(?<![a-z])mrn|medical[_ -]?record[_ -]?(?:number|num|no|nr|id)"
            r"|(?:patient|hospital|chart|nhs)[_ -]?(?:identifier|id|number|num|no|nr))$",
            _I,
        ),
        Kind.MRN,
    ),
)


def _social(text: str, at: int) -> Span | None:
    one = _SOCIAL.match(text, at)
    return None if one is None else (*one.span("value"), Kind.SSN)


def _card(text: str, at: int) -> Span | None:
    one = _CARD.match(text, at)
    if one is None:
        return None
    digits = "".join(_DIGITS.findall(one["value"]))
    # A mistyped number of an issued range is one, and so is one that checks and whose range isn't known.
    issued = cards.is_issued(digits) or (digits.strip("0") and cards.has_check_digit(digits))
    return (*one.span("value"), Kind.CARD) if issued else None


def _record(text: str, at: int) -> Span | None:
    if _MAY_BE_TOLD.search(text, at, at + 90) is None:
        return None
    one = _RECORD.match(text, at)
    if one is None:
        return None
    signs, value = one["signs"], one["value"]
    if "=" not in signs and '"' not in signs and "'" not in signs and _DIGITS.search(value) is None:
        return None
    digits = len(_DIGITS.findall(value))
    told = one["certain"] is not None and (":" in signs or "=" in signs or "#" in signs)
    assigned = told and (signs == "=" or '"' in signs or "'" in signs)
    if assigned and value.lower() in _NO_VALUE:
        return None
    if assigned or digits >= (1 if told else 4):
        return *one.span("value"), Kind.MRN
    return None


def _secret(text: str, at: int) -> Span | None:
    one = _SECRET.match(text, at)
    if one is None:
        return None
    name = next(name for name in ("double", "single", "bare") if one[name] is not None)
    none = one[name].strip("[]<>*").lower() in _NO_VALUE or not one[name].strip("*")
    return None if none else (*one.span(name), Kind.SECRET)


def _phone(text: str, at: int) -> Span | None:
    one = _PHONE.match(text, at)
    if one is None or _DATED.match(one["value"]) is not None:
        return None
    value = one["value"]
    if one["sure"] is not None or _SEPARATED.search(value) or len(_DIGITS.findall(value)) >= 10:
        return *one.span("value"), Kind.PHONE
    return None


def _phone_before(text: str, at: int) -> Span | None:
    nearest = text[max(0, at - 3) : at]
    if nearest.upper() != nearest.lower():
        return None
    one = _NUMBER_BACKWARDS.match(text[max(0, at - 48) : at][::-1])
    if one is None:
        return None
    start, end = at - one.end("value"), at - one.start("value")
    number = text[start:end]
    if len(number) > 6 and len(_DIGITS.findall(number)) >= 6 and _DATED.match(number) is None:
        return start - (text[start - 1 : start] == "("), end, Kind.PHONE
    return None


def _phone_around(text: str, at: int) -> Span | None:
    return _phone(text, at) or _phone_before(text, at)


_JUDGES: tuple[tuple[Callable[[str, int], Span | None], str], ...] = (
    (_social, "ssn social"),
    (_record, "mrn medic patient hospital chart nhs subject health"),
    (_secret, "pass pwd secret key token authoriz"),
    (_phone, "phone tel call reach contact"),
    (_phone_around, "mobile cell fax"),
    (_phone_before, "office"),
    (_card, "card"),
)
_STEMS = tuple((stem, judge) for judge, stems in _JUDGES for stem in stems.split())
