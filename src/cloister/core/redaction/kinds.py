"""The kinds of personal data that are found by rule, and the token that stands where one was."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """A kind of personal data; its value is the middle of its token."""

    EMAIL = "EMAIL"
    PHONE = "PHONE"
    CARD = "CC"
    SSN = "SSN"
    IP = "IP"
    IBAN = "IBAN"
    MRN = "MRN"
    SECRET = "SECRET"  # noqa: S105 - the name of a kind

    @property
    def token(self) -> str:
        """What is written in its place, as ``[EMAIL_REDACTED]``."""
        return _TOKENS[self]


_TOKENS = {kind: f"[{kind.value}_REDACTED]" for kind in Kind}

Span = tuple[int, int, Kind]
"""Where something was found: start, end (exclusive), and what it is."""
