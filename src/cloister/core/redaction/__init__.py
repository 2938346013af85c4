"""Redaction: personal data that rules can tell gives way to a token.

``Redactor().text(line)`` is the face; `kinds` names what is found, `reading` how text is read, and each
finder (`emails`, `addresses`, `numbers` with `cards`, `ibans`, `keyed`) what a kind demands.
"""

from __future__ import annotations

from cloister.core.redaction.kinds import Kind
from cloister.core.redaction.redactor import WITHHELD, Options, Redacted, RedactedValue, Redactor

__all__ = ["WITHHELD", "Kind", "Options", "Redacted", "RedactedValue", "Redactor"]
