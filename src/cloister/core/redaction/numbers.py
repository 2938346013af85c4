"""What the shape of its digits tells: cards, US social security numbers, telephone numbers, IPv4 addresses.

Rules this module keeps:

* One pattern finds places worth a look: it starts at the first digit of a run of digits and knows the shapes
  that numbers are written in. Each match is then judged by what the number must fulfil, and by what stands
  around it: part of a UUID, of a hash, of a float or of a longer list of numbers is none.
* A place that isn't what it seemed costs one run of digits, and the search goes on at the next: two numbers
  side by side are two. Shapes are bounded and a row of single digits is read once, so time is linear.
* Ten bare digits and nine bare digits are ordinary numbers unless the caller wants them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cloister.core.redaction import addresses, cards
from cloister.core.redaction.kinds import Kind, Span
from cloister.core.redaction.patterns import pattern

_EXTENSION = r"(?:\ ?(?:x|ext\.?|extension|\#)\ ?[0-9]{1,6}(?![0-9]))?"
_OCTET = r"\.(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]{1,2})"
# The first digit of a run, then what any shape has at least, but for a date.
_SHAPES = pattern(
    rf"""[0-9](?=[0-9 .()/-]{{6}})(?<![0-9][0-9])(?![0-9]{{3}}-[0-9][0-9]-[0-9][0-9][ T])(?:
    (?P<v4>[0-9]{{0,2}}(?:{_OCTET}){{3}}(?!\.?[0-9]))
    |(?P<ssn>[0-9]{{2}}(?P<s>[ .]|\ ?-\ ?)[0-9]{{2}}(?P=s)[0-9]{{4}}(?![0-9]|-[0-9]))
    |(?P<american>
        (?:(?<=1)(?:[ .-]\(?|\()[0-9]{{3}}(?:\)[ .-]?|[ .-])|[0-9]{{2}}(?:\)[ .-]{{0,2}}|\ ?[./-]\ ?|\ ))
        [0-9]{{3}}(?:\ ?[.-]\ ?|\ )[0-9]{{4}}(?![0-9]){_EXTENSION})
    |(?P<bracketed>(?<=\([0-9])[0-9]{{1,4}}\)\ ?
        (?:[0-9]{{3,4}}[ -][0-9]{{3,4}}|[0-9]{{7}})(?![0-9]){_EXTENSION})
    |(?P<abroad>(?<=0)0[1-9][0-9]{{0,3}}(?:(?:[ ./-]|\)\ ?|\ ?\()[0-9]{{1,8}}){{2,5}}(?![0-9]){_EXTENSION})
    |(?P<national>(?<=0)[1-9](?<![0-9][ ,.-]0[0-9])(?:(?P<n>[ .-])[0-9]{{2}}(?:(?P=n)[0-9]{{2}}){{3}}
        |[ -][0-9]{{4}}[ -][0-9]{{4}}|[0-9]{{1,3}}(?:\)\ ?|[ /-])[0-9]{{2,8}}(?:[ -][0-9]{{2,4}}){{0,3}}
        )(?![ .,/-]?[0-9]){_EXTENSION})
    |(?P<card>(?<=[2-68])(?:[0-9]{{3}}[ .-]{{1,3}}(?:[0-9]{{4}}[ .-]{{1,3}}[0-9]{{4}}[ .-]{{1,3}}[0-9]{{4}}
        (?:[ .-][0-9]{{1,3}}(?![0-9]))?|[0-9]{{6}}[ .-]{{1,3}}[0-9]{{4,5}})
        |[0-9]{{5}}[ -][0-9]{{13}})(?![0-9]))
    |(?P<long>(?:(?<=[2-68])[0-9]{{11,18}}|(?<=1)800[0-9]{{11}})(?![0-9]))
    |(?P<apart>(?:(?:\ [.-]?\ ?|[.-]\ )[0-9](?![0-9])){{8,}}+)
    )""",
    re.VERBOSE,
)
_PLUS = pattern(rf"\+\ ?\(?[1-9](?:(?:[ ./-]|\)\ ?-?|\ ?\(|\ -\ )?[0-9]){{6,17}}(?![0-9]){_EXTENSION}")
_BARE = pattern(r"[0-9](?<![\w.+-][0-9])[0-9]{8,9}(?![\w-]|\.[0-9])")
_GROUP = pattern("[0-9]+")
_NO_DIGIT = pattern("[^0-9]+")
_HEX = pattern(r"(?:0[xX])?[0-9A-Fa-f]+|[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_TOKEN = pattern(r"(?s)[^0-9A-Za-z-].*")
# A UUID is longer by 24 than the digits in it that a card may have.
_REACH = 25
_ASSIGNED = (
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 "
    "66 81 82 84 86 90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 "
    "231 232 233 234 235 236 237 238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 "
    "256 257 258 260 261 262 263 264 265 266 267 268 269 290 291 297 298 299 350 351 352 353 354 355 356 "
    "357 358 359 370 371 372 373 374 375 376 377 378 380 381 382 383 385 386 387 389 420 421 423 500 501 "
    "502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597 598 599 670 672 673 674 675 676 677 "
    "678 679 680 681 682 683 685 686 687 688 689 690 691 692 800 808 850 852 853 855 856 870 878 880 881 "
    "882 883 886 888 960 961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977 979 992 993 994 "
    "995 996 998 "
)
_CALLING_CODES = frozenset(_ASSIGNED.split())
"""Country codes of ITU-T E.164, as assigned."""


def find(text: str, found: list[Span]) -> None:
    """Add where cards, social security numbers, telephone numbers and IPv4 addresses stand.

    Args:
        text: what is searched.
        found: what is added to.
    """
    at = 0
    search = _SHAPES.search
    while (one := search(text, at)) is not None:
        shape = one.lastgroup or ""
        start, end = one.span()
        span = _apart(one) if shape == "apart" else _judged(text, start, end, shape)
        if span is not None:
            found.append(span)
            at = span[1]
        else:
            at = end if shape == "apart" else start + 1
    if "+" in text:
        _find_plus(text, found)


def find_bare(text: str, found: list[Span]) -> None:
    """Add where ten bare digits are a North American telephone number, and nine a social security number.

    Args:
        text: what is searched.
        found: what is added to.
    """
    for one in _BARE.finditer(text):
        digits = one.group()
        if len(digits) == 10 and _is_american(digits):
            found.append((*one.span(), Kind.PHONE))
        elif len(digits) == 9 and is_ssn(digits):
            found.append((*one.span(), Kind.SSN))


def is_ssn(digits: str) -> bool:
    """Whether nine digits are a social security number that can be issued (area, group and serial)."""
    return (
        digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"
    )


def _is_of_a_word(character: str) -> bool:
    # A raised figure is alphanumeric to Python, but the mark of a footnote.
    return character.isalpha() or character.isdecimal()


def _judged(text: str, start: int, end: int, shape: str) -> Span | None:
    return _JUDGES[shape](text, start, end)


def _v4(text: str, start: int, end: int) -> Span | None:
    return (start, end, Kind.IP) if addresses.is_v4(text, start, end) else None


def _bracketed(text: str, start: int, end: int) -> Span | None:
    """A number whose area stands in brackets, as ``(64) 3591-3246``."""
    clean = start < 2 or not (_is_of_a_word(text[start - 2]) or text[start - 2] in "_.")
    return (start - 1, end, Kind.PHONE) if clean else None


def _abroad(text: str, start: int, end: int) -> Span | None:
    """A number behind 00 and its country, as ``0044 20 7946 0958``."""
    digits = _NO_DIGIT.sub("", text[start:end])[2:]
    clean = _is_clean(text, start, end)
    return (start, end, Kind.PHONE) if clean and 8 <= len(digits) <= 20 and _country(digits) else None


def _apart(one: re.Match[str]) -> Span | None:
    """A number whose digits stand apart, as ``4 1 5 - 5 5 5 - 0 1 3 2``."""
    together = one.group().replace(" ", "")
    if len(together) > 24:
        return None
    whole = _SHAPES.fullmatch(together)
    span = None if whole is None else _judged(together, 0, len(together), whole.lastgroup or "")
    return None if span is None else (*one.span(), span[2])


def _is_clean(text: str, start: int, end: int) -> bool:
    """Whether a number isn't the rest of a word, or of a longer number."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if _is_of_a_word(before[-1:]) or _is_of_a_word(after[:1]):
        return False
    if before[-1:] in ("-", ".", "/", ":") and before[:1].isdecimal():
        return False
    return not (after[:1] in ("-", ".", "/") and after[1:].isdecimal())


def _in_a_list(text: str, start: int, end: int) -> bool:
    """Whether other numbers stand beside it, or a log's quoted request before it."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before in ('" ', "' ") or (before[-1:] in (" ", ",") and before[:1].isdecimal()):
        return True
    return after[:1] in (" ", ",") and after[1:].isdecimal()


def _ssn(text: str, start: int, end: int) -> Span | None:
    written = text[start:end]
    if not is_ssn(_NO_DIGIT.sub("", written)) or _is_of_a_word(text[start - 1 : start]):
        return None
    before = text[max(0, start - 2) : start]
    if before[-1:] in ("-", ".") and before[:1].isdecimal():
        return None
    if written[3] == " " and written[4] != "-" and _in_a_list(text, start, end):
        return None
    if written[3] == "." and (
        _is_of_a_word(text[end : end + 1])
        or (text[end : end + 2][:1] == "." and text[end + 1 : end + 2].isdecimal())
    ):
        return None
    return start, end, Kind.SSN


def _is_american(digits: str) -> bool:
    """Whether ten digits keep the rules of the North American numbering plan."""
    return digits[0] in "23456789" and digits[1:3] != "11" and digits[3] in "23456789" and digits[4:6] != "11"


def _american(text: str, start: int, end: int) -> Span | None:
    written = text[start:end]
    digits = "".join(_GROUP.findall(written)[: 4 if written[1] in " .-(" else 3])
    if len(digits) == 11:
        digits = digits[1:]
    begin = start - 1 if text[start - 1 : start] == "(" and ")" in written[:6] else start
    valid = _is_american(digits)
    only_spaces = not any(sign in written for sign in ").-/")
    if only_spaces and (not valid or _in_a_list(text, start, end)):
        return None
    before = text[begin - 1 : begin] if begin else ""
    if _is_of_a_word(before) or _is_of_a_word(text[end : end + 1]):
        return None
    chained = before in ("-", ".", "/") and begin > 1 and _is_of_a_word(text[begin - 2])
    chained = chained or (text[end : end + 1] in ("-", ".") and text[end + 1 : end + 2].isdecimal())
    return None if chained and not valid else (begin, end, Kind.PHONE)


def _national(text: str, start: int, end: int) -> Span | None:
    """A number with its country's trunk prefix 0, as ``020 7946 0958`` or ``01 84 17 61 18``."""
    written = text[start:end]
    groups = _GROUP.findall(re.split("[xe#]", written, maxsplit=1)[0])
    lengths = tuple(map(len, groups))
    bracketed = text[start - 1 : start] == "("
    separators = {one for one in written.lstrip("0123456789") if one in " ./-"}
    usual = lengths in ((2, 2, 2, 2, 2), (2, 4, 4), (2, 3, 3, 2)) or 3 <= lengths[0] <= 5
    least = 10 if len(lengths) == 2 and not bracketed else 9
    if not usual or not least <= sum(lengths) <= 11 or len(separators) > 1 + bracketed:
        return None
    begin = start - bracketed
    if not _is_clean(text, begin, end) or _in_a_list(text, begin, end):
        return None
    return begin, end, Kind.PHONE


def _country(digits: str) -> str:
    """The calling code that a number starts with; empty where none is assigned."""
    return next((digits[:size] for size in (1, 2, 3) if digits[:size] in _CALLING_CODES), "")


def _find_plus(text: str, found: list[Span]) -> None:
    for one in _PLUS.finditer(text):
        start = one.start()
        if _is_of_a_word(text[start - 1 : start]) or (start and text[start - 1] in "+_"):
            continue
        number = re.split("[xe#]", one.group(), maxsplit=1)[0]
        if ("." in number and number.count(".") < 2) or ("." in number and not set(" -/").isdisjoint(number)):
            continue
        groups = list(_GROUP.finditer(number))
        digits = "".join(group.group() for group in groups)
        country = _country(digits)
        if not country:
            continue
        most = 11 if country == "1" else 15
        end, total = one.end(), len(digits)
        while total > most and len(groups) > 1:
            total -= len(groups.pop().group())
            end = start + groups[-1].end()
        if total >= (11 if country == "1" else 8):
            found.append((start, end, Kind.PHONE))


def _card(text: str, start: int, end: int) -> Span | None:
    written = text[start:end]
    digits = written.replace(" ", "").replace("-", "").replace(".", "")
    if not cards.is_card(digits):
        # The last group may be another number.
        if len(digits) < 17 or len(digits) == len(written) or not cards.is_card(digits[:16]):
            return None
        end = start + max(written.rfind(sign) for sign in " .-")
    before = text[max(0, start - 2) : start]
    if before[-1:] == "." and before[:1].isdecimal():
        return None
    return None if _is_part_of_an_id(text, start, end) else (start, end, Kind.CARD)


def _is_part_of_an_id(text: str, start: int, end: int) -> bool:
    """Whether digits are part of a UUID or of hexadecimal digits."""
    left, right = text[start - 1 : start], text[end : end + 1]
    if not (_is_of_a_word(left) or _is_of_a_word(right) or left == "-" or right == "-"):
        return False
    before = _TOKEN.sub("", text[max(0, start - _REACH) : start][::-1])[::-1]
    after = _TOKEN.sub("", text[end : end + _REACH])
    if _HEX.fullmatch(before + text[start:end] + after) is not None:
        return True
    # Of what hyphens join, the part that the digits stand in.
    begins, ends = before.rpartition("-")[2], after.partition("-")[0]
    return bool(begins or ends) and _HEX.fullmatch(begins + text[start:end] + ends) is not None


_JUDGES: dict[str, Callable[[str, int, int], Span | None]] = {
    "v4": _v4,
    "ssn": _ssn,
    "american": _american,
    "bracketed": _bracketed,
    "abroad": _abroad,
    "national": _national,
    "card": _card,
    "long": _card,
}
