"""What NVFlare keeps once per process, borrowed for a job and put back afterwards.

NVFlare assumes a process per participant and job. Three of its process-wide things matter where a whole job
runs in one process that also does other work: its loggers, its configuration service, which collects every
path it has ever seen, and its reliable-message service, whose threads a local job has no use for and which
cannot be started again once it was shut down.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nvflare.apis.utils.reliable_message import ReliableMessage
from nvflare.fuel.utils.config_service import ConfigService

_LOGGERS = ("nvflare", "cloister.federation.flare")
_ABOVE_ALL_LEVELS = logging.CRITICAL + 1

BUILDING = threading.Lock()
"""Held while NVFlare reads a participant's configuration into its process-wide service."""


class _Borrowed:
    """What has to be put back; counted, so that jobs may overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._levels: dict[str, int] = {}
        self._reliable = (False, False)
        self._config: dict[str, object] = {}

    def take(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            for name in _LOGGERS:
                logger = logging.getLogger(name)
                self._levels[name] = logger.level
                logger.setLevel(_ABOVE_ALL_LEVELS)
            self._reliable = (ReliableMessage._enabled, ReliableMessage._shutdown_asked)
            ReliableMessage._enabled, ReliableMessage._shutdown_asked = True, True
            self._config = {
                "_sections": dict(ConfigService._sections),
                "_config_path": list(ConfigService._config_path),
                "_cmd_args": ConfigService._cmd_args,
                "_var_dict": ConfigService._var_dict,
                "_var_values": dict(ConfigService._var_values),
            }

    def put_back(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for name, level in self._levels.items():
                logging.getLogger(name).setLevel(level)
            ReliableMessage._enabled, ReliableMessage._shutdown_asked = self._reliable
            for name, value in self._config.items():
                setattr(ConfigService, name, value)


_BORROWED = _Borrowed()


@contextmanager
def borrowed_process() -> Iterator[None]:
    """Quiet loggers, no reliable-message threads and an untouched configuration service, for one job."""
    _BORROWED.take()
    try:
        yield
    finally:
        _BORROWED.put_back()
