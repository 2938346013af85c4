"""Structured logs: one JSON object on one line for each event, and never a record's content.

Rules this module keeps:

* A run that isn't protected has ``protection`` with its mark in every line.
* Every line has ``timestamp``, ``level``, ``event``, ``room``, ``experiment_id`` and ``correlation_id``.
* Only what is known to be no record's passes (`core.loggable`): what a field is declared to hold, in the form
  that is declared for it, and an exception's code. All else becomes ``[withheld]``.
* A full disk does not stop a run: the evidence is kept elsewhere. One line on standard error says that the
  log has stopped.
* Until `configure_logging` is called nothing is written anywhere.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.files import storage_error
from cloister.core.loggable import shown, word

_RESERVED = ("timestamp", "level", "event", "room", "experiment_id", "correlation_id", "protection")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}")
_correlation: ContextVar[str | None] = ContextVar("cloister_correlation_id", default=None)


class LogLevel(StrEnum):
    """How much is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level's number in the standard library."""
        return int(getattr(logging, self.name))


@dataclass
class _Sink:
    """Where lines go now."""

    descriptor: int
    level: LogLevel
    experiment_id: str
    clock: Clock
    owned: bool
    protection: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False

    def write(self, line: str) -> None:
        data = memoryview((line + "\n").encode("utf-8", "replace"))
        with self.lock:
            if self.stopped:
                return
            try:
                while data:
                    data = data[os.write(self.descriptor, data) :]
            except OSError as error:
                self.stopped = True
                print(f"cloister: the log has stopped (error {error.errno})", file=sys.stderr)

    def close(self) -> None:
        with self.lock:
            self.stopped = True
            if self.owned:
                os.close(self.descriptor)


_sink: _Sink | None = None
_sink_lock = threading.Lock()


def configure_logging(
    *,
    path: Path | None,
    level: LogLevel,
    experiment_id: str,
    clock: Clock = system_clock,
    protection: str | None = None,
) -> None:
    """Say where this process's log goes; a later call replaces an earlier one.

    Args:
        path: a file to append to, made with mode 0600; None for standard error.
        level: the lowest level that is written.
        experiment_id: the run's id, written with every line.
        clock: where timestamps come from.
        protection: the mark of a run that isn't protected, written with every line; None for none.

    Raises:
        StorageError: the file cannot be opened; what was configured before stays.
    """
    if path is None:
        sink = _Sink(2, level, word(experiment_id), clock, owned=False, protection=protection)
    else:
        try:
            descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise storage_error(error, path) from None
        sink = _Sink(descriptor, level, word(experiment_id), clock, owned=True, protection=protection)
    _replace_sink(sink)


def log_is_kept() -> bool:
    """Whether this process's log goes anywhere at present."""
    return _sink is not None


def stop_logging() -> None:
    """Close the log; nothing more is written until it is configured again."""
    _replace_sink(None)


def _replace_sink(sink: _Sink | None) -> None:
    global _sink
    with _sink_lock:
        earlier, _sink = _sink, sink
    if earlier is not None:
        earlier.close()


@contextmanager
def bind_correlation(correlation_id: str) -> Iterator[None]:
    """Write this id with every line of the block (of this thread or task), to follow one request through."""
    token = _correlation.set(correlation_id)
    try:
        yield
    finally:
        _correlation.reset(token)


class Logger:
    """A room's log. Events are short constant names; what varies goes into fields."""

    def __init__(self, room: str) -> None:
        self._log = structlog.wrap_logger(
            _Output(),
            processors=[
                _drop_unwanted,
                _only_what_is_ours,
                _stamp,
                structlog.processors.JSONRenderer(json.dumps),
            ],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
            room=room,
        )

    def debug(self, event: str, /, **fields: object) -> None:
        """Write what only a developer asks for."""
        self._log.debug(event, **_named(fields))

    def info(self, event: str, /, **fields: object) -> None:
        """Write what happened."""
        self._log.info(event, **_named(fields))

    def warning(self, event: str, /, **fields: object) -> None:
        """Write what somebody should look at."""
        self._log.warning(event, **_named(fields))

    def error(self, event: str, /, **fields: object) -> None:
        """Write what failed."""
        self._log.error(event, **_named(fields))


def get_logger(room: str) -> Logger:
    """The log of a room (``"privacy"``)."""
    return Logger(room)


def _named(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in _RESERVED}


class _Output:
    """The end of structlog's chain."""

    def _write(self, line: str) -> None:
        sink = _sink
        if sink is not None:
            sink.write(line)

    debug = info = warning = error = _write


Event = MutableMapping[str, Any]


def _drop_unwanted(_: object, method: str, event: Event) -> Event:
    sink = _sink
    if sink is None or LogLevel(method).number < sink.level.number:
        raise structlog.DropEvent
    return event


def _only_what_is_ours(_: object, __: str, event: Event) -> Event:
    kept: Event = {}
    withheld = 0
    for name, value in event.items():
        if _FIELD.fullmatch(name):
            kept[name] = shown(name, value)
        else:
            withheld += 1
    if withheld:
        kept["withheld_fields"] = withheld
    return kept


def _stamp(_: object, method: str, event: Event) -> Event:
    sink = _sink
    if sink is None:
        raise structlog.DropEvent
    correlation = _correlation.get()
    return {
        "timestamp": format_time(sink.clock()),
        "level": method,
        "event": event.pop("event"),
        "room": event.pop("room"),
        "experiment_id": sink.experiment_id,
        "correlation_id": None if correlation is None else word(correlation),
        **({} if sink.protection is None else {"protection": sink.protection}),
        **event,
    }
