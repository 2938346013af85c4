"""International bank account numbers (ISO 13616), by their country's length and the check of ISO 7064."""

from __future__ import annotations

from cloister.core.redaction.kinds import Kind, Span
from cloister.core.redaction.patterns import pattern

_REGISTRY = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 "
    "EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 "
    "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 "
    "NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 "
    "SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30 "
)
_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _REGISTRY.split()}
"""The registry's lengths (release 100)."""

# ISO 7064 mod 97-10 reads letters as 10 to 35.
_VALUES = {ord(one): str(int(one, 36)) for one in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"}
# From the first check digit on: two letters before it, with no letter or digit before them.
_START = pattern(
    r"[0-9](?<=[A-Za-z]{2}[0-9])(?<![A-Za-z0-9][A-Za-z]{2}[0-9])[0-9](?=(?:[ -]?[A-Za-z0-9]{4}){2})"
)


def find(text: str, found: list[Span]) -> None:
    """Add where account numbers stand, in one piece or in groups of four.

    Args:
        text: what is searched.
        found: what is added to.
    """
    for one in _START.finditer(text):
        start = one.start() - 2
        length = _LENGTHS.get(text[start : start + 2].upper())
        if length is None:
            continue
        end = start + length
        if text[start + 4] in " -":
            end += (length - 1) // 4
        after = text[end : end + 1]
        if after.isalpha() or after.isdecimal():
            continue
        number = text[start:end].replace(" ", "").replace("-", "")
        if len(number) == length and number.isascii() and number.isalnum() and _checks(number):
            found.append((start, end, Kind.IBAN))


def _checks(number: str) -> bool:
    """Whether the remainder that ISO 13616 asks for is left."""
    return int((number[4:] + number[:4]).translate(_VALUES)) % 97 == 1
