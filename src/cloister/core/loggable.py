"""What a value must be to stand in a log: what its field is declared to hold, in a form that holds no record.

A log is read by people who may not see records, so it isn't asked whether a value looks like personal data
but whether it is known not to be. Rules kept here:

* Numbers pass in fields that are declared to hold counts or measures, and nowhere else; a count of more than
  eight digits isn't one. A patient's number has nine to eleven.
* Text passes in fields that are declared to hold words of ours, and nowhere else, since a surname is a word
  too and a patient's id may be a UUID. There it passes if it is one word (`round.finished`, `hospital-a`, a
  code, a place in this package) with few digits in it, or an id of our own form: a UUID or a hash. Dates,
  names with a space, numbers in text and sentences don't.
* Whether something is so passes in fields that are declared to tell it of a run. Who smokes is a truth too.
* Times pass in fields that are declared to hold the time of an event. A date of birth is a time too.
* Of an exception its code passes, or the built-in type that it is or comes from: other types can be named
  after anything.
* Everything else becomes ``[withheld]``, under its field's name.
* What passes as a word is redacted nevertheless (`core.redaction`): an address can have the form of one.
"""

from __future__ import annotations

import builtins
import math
import re
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Final
from uuid import UUID

from cloister.core.clock import format_time, parse_time
from cloister.core.errors import CloisterError
from cloister.core.redaction import Redactor

WITHHELD: Final = "[withheld]"
COUNTS: Final = frozenset(
    {
        "attempts",
        "bytes",
        "milliseconds",
        "missing",
        "refusals",
        "round",
        "rounds",
        "sites",
        "statements",
        "withheld_fields",
        "worker",
        "workers",
    }
)
"""Fields that hold whole numbers of things that aren't people's."""
MEASURES: Final = frozenset({"delta", "epsilon"})
"""Fields that hold figures of what was spent, which are public."""
TIMES: Final = frozenset({"at", "begun_at", "ended_at", "evaluated_at"})
"""Fields that hold the time of an event."""
FLAGS: Final = frozenset({"passed", "receipt_accepted", "simulated"})
"""Fields that tell whether something is so of a run."""
WORDS: Final = frozenset(
    {
        "call",
        "code",
        "correlation_id",
        "error",
        "event",
        "experiment_id",
        "kind",
        "level",
        "name",
        "place",
        "protection",
        "reason",
        "room",
        "seal",
        "site",
        "source",
        "word",
    }
)
"""Fields that hold a word or an id that this program, or whoever wrote a job, chose."""

_LARGEST_COUNT = 10**8
_MAX_WORD = 100
_MOST_DIGITS = 5
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:[-./:][A-Za-z0-9_]+)*")
# What is personal and has the form of a word has a colon in it, or more dots and digits than this.
_HARMLESS = re.compile(r"[^.:0-9]*(?:[.0-9][^.:0-9]*){0,3}")
_REDACTOR: Final = Redactor()
_OWN_ID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?:sha256:)?[0-9a-f]{64}|[0-9a-f]{96}"
)
_BUILT_IN: Final = frozenset(
    one for one in vars(builtins).values() if isinstance(one, type) and issubclass(one, BaseException)
)

Shown = str | int | float | bool | None


def shown(name: str, value: object) -> Shown:
    """What of a value stands in the log.

    Args:
        name: the field's name.
        value: what was to be logged.
    """
    match value:
        case None:
            return None
        case bool():
            return value if name in FLAGS else WITHHELD
        case Enum():
            return shown(name, value.value)
        case int():
            return _number(name, int(value))
        case float():
            return _measure(name, float(value))
        case str() if name in TIMES:
            return _time(value)
        case str() | UUID() | Path() if name in WORDS:
            return word(str(value))
        case datetime() if name in TIMES and value.utcoffset() is not None:
            return format_time(value)
        case BaseException():
            return kind_of(value)
        case _:
            return WITHHELD


def word(text: str) -> str:
    """Text if it is one word or one id of our own, redacted if need be, else that it is withheld."""
    if _OWN_ID.fullmatch(text):
        return text
    plain = len(text) <= _MAX_WORD and _WORD.fullmatch(text) is not None
    if not plain or sum(map(str.isdigit, text)) > _MOST_DIGITS:
        return WITHHELD
    return text if _HARMLESS.fullmatch(text) is not None else _REDACTOR.text(text).text


def kind_of(error: BaseException) -> str:
    """An error's code, or the name of the built-in type that it is or comes from."""
    return error.code if isinstance(error, CloisterError) else built_in_name(type(error))


def built_in_name(kind: type) -> str:
    """The name of the nearest built-in type of errors that a type is or comes from."""
    return next((one.__name__ for one in kind.__mro__ if one in _BUILT_IN), BaseException.__name__)


def _time(text: str) -> str:
    try:
        return format_time(parse_time(text))
    except CloisterError:
        return WITHHELD


def _number(name: str, value: int) -> Shown:
    counted = name in COUNTS and abs(value) < _LARGEST_COUNT
    return value if counted else _measure(name, value) if abs(value) < _LARGEST_COUNT else WITHHELD


def _measure(name: str, value: float) -> Shown:
    if name not in MEASURES:
        return WITHHELD
    return value if math.isfinite(value) else "[not finite]"
