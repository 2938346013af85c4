"""Addresses of the Internet protocol: four numbers with dots, and groups of hexadecimal digits with colons.

Rules this module keeps:

* IPv6 in every form of RFC 4291 section 2.2 (compressed, with an IPv4 tail) and RFC 4007's zone (``%eth0``),
  bare, in brackets with a port, or behind a key (``client:2001:db8::1``).
* Names with ``::`` in a programming language, slices (``x[::2]``), times, MAC addresses and fingerprints
  aren't addresses; the unspecified address ``::`` names nobody.
* Four numbers with dots behind a word for a version (``version 4.17.65.1``, ``Chrome/120.0.0.0``) aren't one.
* Candidates are maximal runs that are read once, so time is linear.
"""

from __future__ import annotations

import re

from cloister.core.redaction.kinds import Kind, Span
from cloister.core.redaction.patterns import pattern

_H = "[0-9A-Fa-f]"
_SEEMS_V6 = pattern(rf":{_H}{{1,4}}:{_H}{{1,4}}:{_H}{{1,4}}:")
# A first group that isn't the rest of a name, then a gap or three groups more; or a gap at the start.
_RUN = pattern(
    rf"(?:{_H}(?<![\w.]{_H})(?<!::{_H}){_H}{{0,3}}:(?::|(?:{_H}{{1,4}}:){{1,6}}:|(?:{_H}{{1,4}}:){{3}})"
    rf"|:(?<![\w:]:):(?={_H}))[0-9A-Fa-f:.]*+"
)
_NO_V6 = pattern(rf":::|::.*::|\A:(?!:)|(?<!:):\Z|{_H}{{5}}|\..*:")
_DIGIT = pattern("[0-9]")
_ZONE = pattern(r"%[0-9A-Za-z_.-]{1,15}")
# Read backwards from the first number: signs, and the word before them.
_WORD_BEFORE = pattern(r"v?[\s:=#\"'.]{0,3}([A-Za-z]+)", re.IGNORECASE)
_COMPARED = pattern(r"v?=[=<>~!][\w\]]", re.IGNORECASE)
_BEFORE_A_VERSION = (
    "ver versions release rel rev revision build firmware sdk sec section chapter clause paragraph "
    "appendix oid "
)
_VERSION_WORDS = frozenset(_BEFORE_A_VERSION.split())
_BROWSERS = (
    "chrome chromium headlesschrome crios edg edge edga edgios opr opera version firefox fxios safari "
    "brave vivaldi electron yabrowser samsungbrowser webkit applewebkit "
)
_PRODUCTS = frozenset(_BROWSERS.split())
_PACKAGED = pattern(r"\.(?:tar|tgz|zip|whl|gz|jar|rpm|deb|exe|msi|dll|so|egg|nupkg|dmg)\b|[-+][A-Za-z]")
_PRODUCT = pattern(r"/([A-Za-z]+)")
_SIGNS = ":=#\"'."
_HOSTS = ("ip", "addr", "address", "host", "src", "dst", "peer", "client", "server")
_BEFORE = 24
_LONGEST = 60


def is_v4(text: str, start: int, end: int) -> bool:
    """Whether four numbers with dots are an address where they stand.

    Args:
        text: what is searched.
        start: where the first number begins.
        end: where the last one ends, exclusive.
    """
    if text[start + 3] == "." and text[start : start + 3] > "255":
        return False
    before = text[max(0, start - _BEFORE) : start]
    last = before[-1:]
    if not last or (last in " \t\n,;([{" and not before[-2:-1].isalnum() and before[-2:-1] not in _SIGNS):
        return True
    if last == "." and before[-2:-1].isdecimal():
        return False
    if last == "-" and before[-2:-1].isalpha() and _PACKAGED.match(text, end) is not None:
        return False
    backwards = before[::-1]
    word_before = _WORD_BEFORE.match(backwards)
    word = "" if word_before is None else word_before[1][::-1].lower()
    if last == "/":
        return _slashed(backwards) not in _PRODUCTS
    if last.isalpha():
        return word.endswith(_HOSTS)
    if _COMPARED.match(backwards) is not None:
        return word.endswith(_HOSTS)
    return not (word in _VERSION_WORDS or word.endswith("version") or last in "~^")


def _slashed(backwards: str) -> str:
    product = _PRODUCT.match(backwards)
    return "" if product is None else product[1][::-1].lower()


def find_v6(text: str, found: list[Span]) -> None:
    """Add where IPv6 addresses stand.

    Args:
        text: what is searched.
        found: what is added to.
    """
    if "::" not in text and _SEEMS_V6.search(text) is None:
        return
    # Short runs repeat, and long ones are few.
    known: dict[str, tuple[int, int] | None] = {}
    for one in _RUN.finditer(text):
        start = one.start()
        run = one.group()
        if run not in known:
            known[run] = _within(run)
        offsets = known[run]
        if offsets is None:
            continue
        start, end = start + offsets[0], start + offsets[1]
        after = text[end : end + 1]
        if (
            after.isalpha()
            or after.isdecimal()
            or after == "_"
            or (after == "]" and _is_slice(text, start, end))
        ):
            continue
        if after == "%" and (zone := _ZONE.match(text, end)) is not None:
            end = zone.end()
        found.append((start, end, Kind.IP))


def _within(run: str) -> tuple[int, int] | None:
    """Where in a run of hexadecimal digits, colons and dots an address is."""
    if len(run) > _LONGEST:
        return None
    begin = 0
    address = run.rstrip(".")
    if address[-1] == ":" and address[-2:] != "::":
        address = address[:-1]
    end = len(address)
    if not is_v6(address):
        # The first group may be a key.
        begin = address.index(":") + 1
        address = address[begin:]
        if len(address) < 4 or not is_v6(address):
            return None
    # A name in a programming language, as ``face::add``.
    is_name = _DIGIT.search(address) is None and address.count(":") < 4
    return None if is_name else (begin, end)


def is_v6(run: str) -> bool:
    """Whether this is an IPv6 address by itself (RFC 4291, section 2.2).

    Args:
        run: hexadecimal digits, colons and dots.
    """
    if _NO_V6.search(run) is not None:
        return False
    gap = "::" in run
    groups = run.count(":") + 1
    if gap:
        groups -= 1 + (run[:2] == "::") + (run[-2:] == "::")
    if "." in run:
        octets = run.rpartition(":")[2].split(".")
        if len(octets) != 4 or not all(one.isdecimal() and len(one) < 4 and int(one) < 256 for one in octets):
            return False
        groups += 1
    return groups < 8 if gap else groups == 8


def _is_slice(text: str, start: int, end: int) -> bool:
    """Whether it stands in brackets behind a name or another bracket, as in ``rows[::2]``."""
    before = text[max(0, start - 2) : start]
    return before[1:] == "[" and (before[0].isalnum() or before[0] in "_)]") and end - start < 8
