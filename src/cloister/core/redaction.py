"""Personal data with a fixed shape, found and replaced: the last net under logs that should hold none.

What is looked for: e-mail addresses, IP addresses, US social security numbers, payment cards (with a sound
check digit, ISO/IEC 7812-1) and telephone numbers. Names and street addresses have no shape that a pattern
could find; they are kept out by what the log lets through, not here. Hashes, UUIDs and timestamps of our own
are left alone.
"""

from __future__ import annotations

import ipaddress
import re

# Tokens of our own that digits make look like personal data, then what is looked for; first match wins.
_PATTERN = re.compile(
    r"""
    (?P<own>(?<![0-9A-Za-z])(?:
        [0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}
      | [0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2}))?
      | (?:sha256:)?[0-9a-f]{64} | [0-9a-f]{96}
    )(?![0-9A-Za-z]))
  | (?P<email>[^\s@<>"',;:()\[\]]{1,64}@[^\s@<>"',;:()\[\]]{1,253}\.[^\W\d_]{2,})
  | (?P<ip>(?<![0-9A-Za-z.:])(?:
        [0-9]{1,3}(?:\.[0-9]{1,3}){3}
      | (?=[0-9a-fA-F]{0,4}:[0-9a-fA-F]{0,4}:)[0-9a-fA-F:]{2,39}(?:%[0-9A-Za-z]+)?
    )(?![0-9A-Za-z]|\.[0-9]))
  | (?P<ssn>(?<![0-9A-Za-z-])[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}(?![0-9A-Za-z-]))
  | (?P<card>(?<![0-9A-Za-z])[0-9](?:[ -]?[0-9]){11,18}(?![0-9A-Za-z]))
  | (?P<phone>(?<![0-9A-Za-z.])(?:
        \+[0-9](?:[ .()/-]{0,3}[0-9]){6,14}
      | (?:1[ .-])?(?:\([0-9]{3}\)[ ]?|[0-9]{3}[ .-])[0-9]{3}[ .-]?[0-9]{4}
      | 0[0-9]{1,4}[ ./-][0-9](?:[ .-]?[0-9]){4,9}
      | [0-9]{10}
    )(?:[ ]?(?:x|ext\.?)[ ]?[0-9]{1,6})?(?![0-9A-Za-z]))
  | (?P<groups>(?<![0-9A-Za-z.(])(?:
        \([0-9]{2,4}\)[ -]?[0-9]{2,6}(?:[ -][0-9]{2,6})*
      | [0-9]{2,4}(?:[ -][0-9]{2,6})+ | [0-9]{2,4}(?:\.[0-9]{2,4}){2,}
    )(?![0-9A-Za-z]|\.[0-9]))
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """Replace what looks like personal data by its kind in brackets; our own identifiers stay."""
    return _PATTERN.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    kind, found = match.lastgroup, match.group()
    if kind == "own" or (kind == "ip" and not _is_address(found)):
        return found
    if kind == "card" and not _luhn(found):
        return found if found.isdigit() else "[phone]"
    if kind == "groups":
        return "[phone]" if 7 <= sum(map(str.isdigit, found)) <= 15 else found
    return f"[{kind}]"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _luhn(text: str) -> bool:
    digits = [int(character) for character in reversed(text) if character.isdigit()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0
