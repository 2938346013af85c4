"""Time comes in as an argument: a clock is a function that answers an aware UTC datetime.

Times are written in one form only, RFC 3339 in UTC with six decimals, so that equal times are equal bytes and
text order is time order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

from cloister.core.errors import InputError

Clock: TypeAlias = Callable[[], datetime]

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def system_clock() -> datetime:
    """The machine's time, UTC."""
    return datetime.now(UTC)


def fixed_clock(moment: datetime) -> Clock:
    """A clock that stands still, for tests and for verdicts at a recorded time.

    Raises:
        InputError: ``input.syntax`` where the moment has no time zone.
    """
    aware = _utc(moment)
    return lambda: aware


def format_time(moment: datetime) -> str:
    """Write a moment as ``2026-11-21T14:00:00.000000Z``.

    Raises:
        InputError: ``input.syntax`` where the moment has no time zone.
    """
    return _utc(moment).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """Read what `format_time` writes, and nothing else.

    Raises:
        InputError: ``input.syntax`` for any other form and for times that do not exist.
    """
    if _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            pass
    raise InputError(
        "input.syntax", "A time is not of the form 2026-11-21T14:00:00.000000Z.", "Write times in UTC."
    )


def _utc(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise InputError("input.syntax", "A time without a time zone cannot be used.", "Use UTC.")
    return moment.astimezone(UTC)
