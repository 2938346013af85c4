"""One call of a trace, and traces as lines of canonical JSON.

Rules this module keeps:

* Times are whole nanoseconds, held as seconds: written they are integers, so each has one form only.
* The first line says format and number of calls; a cut file is refused, and so is any line that isn't exactly
  what the writer writes.
* `read_trace` takes no more than `MAX_CALLS` calls and `MAX_LINE` bytes a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.errors import CloisterError
from cloister.immune.errors import ImmuneError

FORMAT: Final = "cloister.traces/1"
MAX_CALLS: Final = 1_000_000
MAX_LINE: Final = 1_000
_MAX_NS: Final = 10**15  # eleven days: up to there seconds as floats tell every nanosecond apart
_MAX_SIZE: Final = 10**12
_MAX_NAME: Final = 200


class Pattern(StrEnum):
    """What a call belongs to: ordinary traffic, or one of ten kinds of attack."""

    BENIGN = "benign"
    SLOWLORIS = "slowloris"
    SPIKE = "spike"
    GRADUAL = "gradual"
    BURST = "burst"
    OSCILLATING = "oscillating"
    EXFIL_LOOP = "exfil-loop"
    ARGUMENT_JUMP = "argument-jump"
    RATE_BURST = "rate-burst"
    ERROR_BURST = "error-burst"
    NEW_CALLER = "new-caller"


BENIGN: Final = Pattern.BENIGN


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A call of a trace.

    Attributes:
        at: when it began, seconds from the trace's own zero; whole nanoseconds.
        duration: seconds; whole nanoseconds.
        size: total size of its arguments, as `Entered.size` counts it.
        caller: ``module:qualname`` of the calling code.
        failed: whether it raised.
        label: what it belongs to. Every call of an episode bears the episode's pattern, also one that looks
            ordinary by itself.
    """

    at: float
    duration: float
    size: int
    caller: str
    failed: bool
    label: Pattern


def whole_nanoseconds(seconds: float) -> float:
    """Seconds, rounded to the nanosecond: the only times that a trace holds."""
    return round(seconds * 1e9) / 1e9


def encode_trace(calls: Iterable[TracedCall]) -> bytes:
    """A trace as lines of canonical JSON, a heading before them.

    Args:
        calls: in order of time.

    Returns:
        The same bytes for the same calls, on every machine.

    Raises:
        ImmuneError: ``immune.generator_invalid``; a call is out of bounds or goes back in time.
    """
    lines: list[bytes] = []
    before = 0
    for number, call in enumerate(calls, start=1):
        if number > MAX_CALLS:
            raise _invalid(f"A trace holds {MAX_CALLS:,} calls at most.")
        at, duration = _nanoseconds(call.at), _nanoseconds(call.duration)
        _check(number, at, duration, call.size, call.caller, before)
        before = at
        line: dict[str, JSON] = {
            "at_ns": at,
            "caller": call.caller,
            "duration_ns": duration,
            "failed": call.failed,
            "label": call.label.value,
            "size": call.size,
        }
        lines.append(canonicalize(line))
    heading: dict[str, JSON] = {"calls": len(lines), "format": FORMAT}
    return b"\n".join([canonicalize(heading), *lines]) + b"\n"


def read_trace(data: bytes) -> tuple[TracedCall, ...]:
    """The calls of a trace that `encode_trace` wrote.

    Args:
        data: all of it.

    Returns:
        The calls, in order of time.

    Raises:
        ImmuneError: ``immune.generator_invalid``, naming the line; the data isn't what the writer writes.
    """
    if not data.endswith(b"\n"):
        raise _invalid("A trace ends with a line's end; this one was cut.")
    if data.count(b"\n") > MAX_CALLS + 1:
        raise _invalid(f"A trace holds {MAX_CALLS:,} calls at most.")
    first, *rest = data[:-1].split(b"\n")
    heading = _members(first, 1)
    if heading != {"calls": len(rest), "format": FORMAT}:
        raise _invalid(f"The first line of a trace says {FORMAT} and how many calls follow.")
    calls: list[TracedCall] = []
    before = 0
    for number, line in enumerate(rest, start=1):
        call, before = _call(_members(line, number + 1), number, before)
        calls.append(call)
    return tuple(calls)


def _call(members: dict[str, JSON], number: int, before: int) -> tuple[TracedCall, int]:
    match members:
        case {
            "at_ns": int(at),
            "caller": str(caller),
            "duration_ns": int(duration),
            "failed": bool(failed),
            "label": str(label),
            "size": int(size),
        } if len(members) == 6 and not any(isinstance(one, bool) for one in (at, duration, size)):
            _check(number, at, duration, size, caller, before)
            try:
                pattern = Pattern(label)
            except ValueError:
                raise _invalid(f"Call {number} of the trace has a label that isn't known.") from None
            return TracedCall(at / 1e9, duration / 1e9, size, caller, failed, pattern), at
        case _:
            raise _invalid(f"Call {number} of the trace hasn't exactly the fields of a call.")


def _check(number: int, at: int, duration: int, size: int, caller: str, before: int) -> None:
    if not before <= at <= _MAX_NS:
        raise _invalid(f"Call {number} of the trace goes back in time, or lies beyond eleven days.")
    if not (0 <= duration <= _MAX_NS and 0 <= size <= _MAX_SIZE and len(caller) <= _MAX_NAME):
        raise _invalid(f"Call {number} of the trace has a duration, size or caller out of bounds.")


def _members(line: bytes, number: int) -> dict[str, JSON]:
    try:
        value = parse_canonical(line, max_bytes=MAX_LINE)
    except CloisterError:
        raise _invalid(
            f"Line {number} of the trace isn't canonical JSON of {MAX_LINE} bytes or less."
        ) from None
    if not isinstance(value, dict):
        raise _invalid(f"Line {number} of the trace isn't an object.")
    return value


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9) if math.isfinite(seconds) else -1


def _invalid(message: str) -> ImmuneError:
    return ImmuneError("immune.generator_invalid", message)
