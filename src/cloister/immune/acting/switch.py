"""The kill switch: an operator lets every call through, at once and without a restart.

Three ways throw it, and each is enough:

* ``PIC_DISABLED`` in the environment, with any value but an empty one, ``0``, ``false``, ``no`` and ``off``,
  read when the process starts; a child inherits it.
* A signal to one process, where the setting ``effector.kill_signal`` names one. Its handler calls whatever
  handler was there, and only throws, until the process ends.
* The file `DISABLED_FILE` in the folder of the state, for all processes that keep their state there;
  ``pic`` writes and removes it (`throw`, `restore`).

Reading it costs a clock and a comparison; the file is looked at no more than every `LOOK_SECONDS`. Only a
plain file with something in it counts: a pipe or an empty file can be made by calls of which the interpreter
tells no audit hook. A folder that can't be read counts as thrown: it isn't known what the operator said, and
a broken part lets calls through. Whoever holds a switch is told each time that it is seen to change.
"""

from __future__ import annotations

import os
import secrets
import signal
import stat
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Final

from cloister.core.errors import StorageError
from cloister.core.files import write_atomic
from cloister.immune.errors import ImmuneError

DISABLED_FILE: Final = "disabled"
"""Its name in the folder of the state."""
LOOK_SECONDS: Final = 0.25
"""The longest that a thrown file goes unseen."""

_WRITTEN: Final = b"thrown\n"
_NOT_SET: Final = frozenset({"", "0", "false", "no", "off"})


class ThrownBy(StrEnum):
    """What threw the switch."""

    NOTHING = "nothing"
    ENVIRONMENT = "environment"
    SIGNAL = "signal"
    FILE = "file"
    UNREADABLE = "unreadable"


def _tell_nobody(_: ThrownBy) -> None:
    return None


class KillSwitch:
    """Whether everything is let through.

    Args:
        folder: of the state; none looks at no file.
        changed: told what throws it, whenever that is seen to be something else than before; what it raises
            is dropped.
        environment: where ``PIC_DISABLED`` is read, once.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        changed: Callable[[ThrownBy], None] = _tell_nobody,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = None if folder is None else str(folder / DISABLED_FILE)
        self._changed, self._clock = changed, clock
        self._by_environment = environment.get("PIC_DISABLED", "").strip().lower() not in _NOT_SET
        self._by_signal = False
        self._by_file = self._told = ThrownBy.NOTHING
        self._looked = -float("inf")

    def __call__(self) -> bool:
        """Whether the switch is thrown, as of at most `LOOK_SECONDS` ago."""
        # The difference is negative where the clock went back: then it is time to look as well.
        if self._file is not None and not 0.0 <= self._clock() - self._looked < LOOK_SECONDS:
            self._look()
        by = self._by()
        if by is not self._told:
            self._tell(by)
        return by is not ThrownBy.NOTHING

    @property
    def thrown_by(self) -> ThrownBy:
        """What threw it; the file is looked at now."""
        self._look()
        by = self._by()
        if by is not self._told:
            self._tell(by)
        return by

    def by_signal(self) -> None:
        """Throw it in this process; safe in a signal handler."""
        self._by_signal = True

    def _by(self) -> ThrownBy:
        if self._by_environment:
            return ThrownBy.ENVIRONMENT
        return ThrownBy.SIGNAL if self._by_signal else self._by_file

    def _tell(self, by: ThrownBy) -> None:
        # Before anybody is told: who is told may ask.
        self._told = by
        with suppress(Exception):
            self._changed(by)

    def _look(self) -> None:
        self._looked = self._clock()
        if self._file is None:
            return
        try:
            found = os.lstat(self._file)
        except FileNotFoundError:
            self._by_file = ThrownBy.NOTHING
        except OSError:
            self._by_file = ThrownBy.UNREADABLE
        else:
            thrown = stat.S_ISREG(found.st_mode) and found.st_size > 0
            self._by_file = ThrownBy.FILE if thrown else ThrownBy.NOTHING


def on_signal(switch: KillSwitch, number: int) -> Callable[[], None]:
    """Let a signal throw the switch of this process.

    Args:
        switch: the switch.
        number: the signal's.

    Returns:
        A function that puts back the handler that was there, where ours is still the one in place.

    Raises:
        ImmuneError: ``immune.setting_invalid`` outside of the main thread, or for a signal that can't be
        handled.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ImmuneError(
            "immune.setting_invalid",
            "A signal can only be handled by a process's main thread.",
            "Switch the immune system on where the service starts, or leave effector.kill_signal out.",
        )
    try:
        before = signal.getsignal(number)

        def handle(received: int, frame: FrameType | None) -> None:
            switch.by_signal()
            if callable(before):
                before(received, frame)

        signal.signal(number, handle)
    except (OSError, ValueError):
        raise ImmuneError(
            "immune.setting_invalid", f"The signal {number} can't be handled.", "Choose SIGUSR1 or SIGUSR2."
        ) from None

    def undo() -> None:
        if signal.getsignal(number) is handle:
            with suppress(ValueError):  # not outside of the main thread
                signal.signal(number, signal.SIG_DFL if before is None else before)

    return undo


def throw(folder: Path) -> None:
    """Throw the switch of every process that keeps its state in a folder; again, it stays thrown.

    Raises:
        ImmuneError: ``immune.state_unusable``: nothing was written.
    """
    path = folder / DISABLED_FILE
    try:
        if path.is_dir() and not path.is_symlink():
            # Somebody keeps the switch from being thrown.
            path.rename(path.with_name(f"{DISABLED_FILE}.found-{secrets.token_hex(4)}"))
        write_atomic(path, _WRITTEN)
    except OSError as error:
        raise _unusable(os.strerror(error.errno or 0)) from None
    except StorageError as error:
        raise _unusable(error.message) from None


def restore(folder: Path) -> None:
    """Take back `throw`; without it, nothing happens.

    Raises:
        ImmuneError: ``immune.state_unusable``: the switch is as it was.
    """
    try:
        (folder / DISABLED_FILE).unlink(missing_ok=True)
    except IsADirectoryError:
        return
    except OSError as error:
        raise _unusable(os.strerror(error.errno or 0)) from None


def _unusable(why: str) -> ImmuneError:
    return ImmuneError(
        "immune.state_unusable",
        f"The kill switch's file can't be changed ({why}).",
        "See that the folder of the state exists and is yours; PIC_DISABLED works without it.",
    )
