"""What a process says without being asked, kept to what kind of thing happened and where.

An exception that nobody caught, one in a thread or a destructor, a warning, a line that a library logs: each
would print its message, and a message written by a library may hold what it worked on, such as a record's
value. Within :func:`guarded_outlets` such a message goes nowhere. What remains is one line on standard error
and one in the structured log: the kind, the built-in type it comes from, and where in this package it was.

What this doesn't cover: code that writes to a stream by itself. A sealed worker has no stream to write to.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from cloister.core.errors import CloisterError
from cloister.core.loggable import built_in_name

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_WITHHELD: Final = "[withheld]"


@contextmanager
def guarded_outlets() -> Iterator[None]:
    """Keep the messages of whatever fails or warns within the block from every stream and log."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    show, factory = warnings.showwarning, logging.getLogRecordFactory()
    sys.excepthook = _uncaught
    threading.excepthook = _in_thread
    sys.unraisablehook = _unraisable
    warnings.showwarning = _warned
    logging.setLogRecordFactory(_bare_record)
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        warnings.showwarning = show
        logging.setLogRecordFactory(factory)


def where(trace: TracebackType | None) -> str:
    """The last place of a traceback that lies in this package, as ``file:line``.

    Names of other files could be made up by who writes code, so they aren't shown.
    """
    found = "outside of cloister"
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(_PACKAGE):
            found = f"{file.relative_to(_PACKAGE.parent)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _log(event: str, **fields: object) -> None:
    # Where nobody configured the structured log, there is none; loading it costs what a short command takes.
    structured = sys.modules.get("cloister.core.logging")
    if structured is not None:
        structured.get_logger("core").error(event, **fields)


def _say(event: str, kind: type[BaseException], value: object, trace: TracebackType | None) -> None:
    named = value.code if isinstance(value, CloisterError) else built_in_name(kind)
    place = where(trace)
    _log(event, error=named, place=place.replace(" ", "-"))
    print(
        f"cloister: {event.replace('_', ' ')}: {named} at {place}; its message is withheld", file=sys.stderr
    )


def _uncaught(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    _say("uncaught_error", kind, value, trace)


def _in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        _say("error_in_a_thread", args.exc_type, args.exc_value, args.exc_traceback)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    _say("error_while_cleaning_up", args.exc_type, args.exc_value, args.exc_traceback)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del message, filename, lineno, file, line
    _log("library_warning", kind=built_in_name(category))


def _bare_record(
    name: str,
    level: int,
    path: str,
    line: int,
    message: object,
    args: object,
    exc_info: object,
    func: str | None = None,
    sinfo: str | None = None,
    **_: object,
) -> logging.LogRecord:
    """A record as the standard library makes it, without what was to be said."""
    del path, message, args, exc_info, func, sinfo
    return logging.LogRecord(name, level, "", line, _WITHHELD, None, None)
