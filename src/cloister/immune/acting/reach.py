"""What an operation reaches for: a host, a folder, a program or a library, from the interpreter's audit
events.

The events and their arguments are those of the table "Audit events" of the Python library reference (PEP
578). Targets are coarse on purpose, so that they repeat: a file stands for its folder, an address for its
host without the port, a program for its name without arguments. Of a file's content nothing is known here.

What the interpreter opens for itself is left out (`Places`): reading its library, installed packages, time
zones, sources of randomness, ``/proc/self``; what the import system and the printing of a traceback read; and
``/dev/null``. Reading a watched function's own new module is no egress, and a traceback must not fail. A
native module is loaded like any library, unless it lies where modules are looked for (``sys.path``).

What is changed in the immune system's own folder (`Places.kept`) is told apart, whatever lies around it: also
its mode, its owner, its times, and a folder that holds it.

Limits: links aren't followed, so a link in a folder that is known leads anywhere. A relative path that is
opened from a folder's descriptor (``dir_fd``) is taken to count from the current folder: the event doesn't
name the descriptor. ``os.mkfifo``, ``os.mknod``, ``signal.raise_signal`` and SQLite's ``ATTACH`` and ``VACUUM
INTO`` are no audit events: who has a connection reaches other database files through it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cloister.immune.acting.programs import program, shell_line


class Operation(StrEnum):
    """What is done with a target."""

    CONNECT = "connect"
    RESOLVE = "resolve"
    LISTEN = "listen"
    READ = "read"
    WRITE = "write"
    RUN = "run"
    LOAD = "load"
    SIGNAL = "signal"

    # The enumeration's own is written in Python, and every operation is looked up by it.
    __hash__ = str.__hash__


@dataclass(frozen=True, slots=True)
class Places:
    """Which files are told apart.

    Attributes:
        own: folders, each with a slash at its end, below which reading is the interpreter's own affair.
        merged: folders, each with a slash at its end, that stand for all that is below them: names in a
            folder for temporary files are drawn by chance and would never repeat.
        kept: folders, each with a slash at its end, that are the immune system's own.
    """

    own: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @classmethod
    def of_this_interpreter(cls, kept: Path | None = None) -> Places:
        """The folders of this interpreter and machine.

        Args:
            kept: the immune system's own folder, if it has one.
        """
        # Loaded here: a service that watches nothing's egress doesn't wait for them.
        import sysconfig
        import tempfile
        import zoneinfo

        own = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
        return cls(
            own=tuple(sorted({*map(_folder, own), *map(_folder, zoneinfo.TZPATH)})),
            merged=(_folder(tempfile.gettempdir()),),
            kept=()
            if kept is None
            else tuple({_folder(os.path.abspath(kept)), _folder(os.path.realpath(kept))}),  # noqa: PTH100
        )


Reach = tuple[Operation, str]
"""One operation and its target."""

Reader = Callable[[tuple[object, ...], Places], Iterable[Reach]]
"""Reads an audit event's arguments."""

_OWN_READ: Final = frozenset(
    {"/dev/null", "/dev/urandom", "/dev/random", "/dev/zero", "/etc/localtime", "/etc/mime.types"}
)
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_WITHOUT_NAME: Final = getattr(os, "O_TMPFILE", 0)
_IS_FOLDER: Final = getattr(os, "O_DIRECTORY", 0)


def _opened(arguments: tuple[object, ...], places: Places) -> Iterable[Reach]:
    path, flags = arguments[0], arguments[2]
    if isinstance(path, int) or not isinstance(flags, int):
        return ()  # a descriptor: what is behind it was opened before
    writes = flags & _WRITES != 0
    if not writes and _name(path).startswith("<") and _name(path).endswith(">"):
        return ()  # code without a file, ``<string>``, of which an error's line is looked for
    whole = _absolute(path)
    itself = flags & _IS_FOLDER != 0
    # Who holds a folder can change what is in it by names that don't say where they are.
    writes = writes or (itself and _folder(whole).startswith(places.kept))
    return _file(whole, places, Operation.WRITE if writes else Operation.READ, itself=itself)


def _changed(folder: int | None = None, path: int = 0, *, of_a_folder: bool = False) -> Reader:
    """Reads a change of a path; where its folder's descriptor is among the arguments, and where the path.

    One of a folder, its name or who may enter it, changes what is below as well.
    """

    def read(arguments: tuple[object, ...], places: Places) -> Iterable[Reach]:
        name = arguments[path]
        if isinstance(name, int):
            return ()  # a descriptor: what is behind it was opened before
        below = None if folder is None or folder >= len(arguments) else arguments[folder]
        whole = _absolute(name, _folder_of(below))
        for kept in places.kept if of_a_folder else ():
            if kept.startswith(_folder(whole)):
                return ((Operation.WRITE, kept[:-1]),)  # it holds the immune system's own folder
        return _file(whole, places, Operation.WRITE)

    return read


def _moved(first: int | None, second: int) -> Reader:
    """Reads a change of two paths; where their folders' descriptors are among the arguments."""
    source, aim = _changed(first, of_a_folder=True), _changed(second, 1, of_a_folder=True)
    return lambda arguments, places: (*source(arguments, places), *aim(arguments, places))


def _listed(arguments: tuple[object, ...], places: Places) -> Iterable[Reach]:
    path = arguments[0]
    if isinstance(path, int):
        return ()
    return _file(_absolute("." if path is None else path), places, Operation.READ, itself=True)


def _signalled(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    number = arguments[1]
    if not isinstance(number, int) or number == 0:
        return ()  # a question whether the process is there
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    itself = arguments[0] in (0, os.getpid(), os.getpgrp())
    return ((Operation.SIGNAL, f"{'itself' if itself else 'another process'} {name}"),)


def _signalled_thread(arguments: tuple[object, ...], places: Places) -> Iterable[Reach]:
    return _signalled((0, arguments[1]), places)


def _database(arguments: tuple[object, ...], places: Places) -> Iterable[Reach]:
    name = _name(arguments[0])
    if name in ("", ":memory:"):
        return ()
    name = name.removeprefix("file:").partition("?")[0] if name.startswith("file:") else name
    return _file(_absolute(name), places, Operation.WRITE)


def _file(path: str, places: Places, operation: Operation, *, itself: bool = False) -> Iterable[Reach]:
    if path == "/dev/null":
        return ()
    for kept in places.kept:
        if operation is Operation.WRITE and _folder(path).startswith(kept):
            return ((Operation.WRITE, kept[:-1]),)
    folder = path if itself else path.rpartition("/")[0] or "/"
    if operation is Operation.READ and (
        path in _OWN_READ or folder == "/proc/self" or f"{path}/".startswith(places.own)
    ):
        return ()
    for merged in places.merged:
        if path.startswith(merged):
            folder = merged[:-1]
    return ((operation, folder),)


def _connected(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    # sendmsg on a connected socket has no address of its own.
    return () if arguments[1] is None else ((Operation.CONNECT, _host(arguments[1])),)


def _bound(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    return ((Operation.LISTEN, _host(arguments[1])),)


def _resolved(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    # Without a host it is this machine's own addresses that are asked for.
    return () if arguments[0] is None else ((Operation.RESOLVE, _name(arguments[0])),)


def _popened(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    executable, words, folder = arguments[:3]
    return ((Operation.RUN, program(executable, words, folder)),)


def _executed(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    return ((Operation.RUN, program(arguments[0], arguments[1])),)


def _spawned(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    return ((Operation.RUN, program(arguments[1], arguments[2])),)


def _in_a_shell(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    return ((Operation.RUN, shell_line(arguments[0])),)


def _on_a_terminal(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    return ((Operation.RUN, program(None, arguments[0])),)


def _loaded(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    name = arguments[0]
    # Without a name it is the running program itself, with its C library.
    return ((Operation.LOAD, "itself" if name is None else _name(name)),)


def _imported(arguments: tuple[object, ...], places: Places) -> Iterable[Reach]:
    # A search for a module names no file; bringing native code into the process does, by whatever loader.
    if arguments[1] is None:
        return ()
    file = _absolute(arguments[1])
    imported = (_folder(_absolute(one)) for one in sys.path if isinstance(one, str))
    return () if file.startswith((*places.own, *imported)) else ((Operation.LOAD, file),)


def _extended(arguments: tuple[object, ...], _: Places) -> Iterable[Reach]:
    return ((Operation.LOAD, _name(arguments[1])),)


READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "open": _opened,
        "os.truncate": _changed(),
        "os.remove": _changed(1),
        "os.mkdir": _changed(2),
        "os.rmdir": _changed(1),
        "os.chmod": _changed(2, of_a_folder=True),
        "os.chown": _changed(3, of_a_folder=True),
        "os.utime": _changed(3),
        "os.setxattr": _changed(),
        "os.removexattr": _changed(),
        "os.chflags": _changed(),
        "os.rename": _moved(2, 3),
        "os.link": _moved(2, 3),
        "os.symlink": _moved(None, 2),
        "os.listdir": _listed,
        "os.scandir": _listed,
        "os.kill": _signalled,
        "os.killpg": _signalled,
        "signal.pthread_kill": _signalled_thread,
        "sqlite3.connect": _database,
        "socket.connect": _connected,
        "socket.sendto": _connected,
        "socket.sendmsg": _connected,
        "socket.bind": _bound,
        "socket.getaddrinfo": _resolved,
        "socket.gethostbyname": _resolved,
        "subprocess.Popen": _popened,
        "os.exec": _executed,
        "os.posix_spawn": _executed,
        "os.spawn": _spawned,
        "os.system": _in_a_shell,
        "pty.spawn": _on_a_terminal,
        "ctypes.dlopen": _loaded,
        "import": _imported,
        "sqlite3.load_extension": _extended,
    }
)
"""What reads each audit event that is looked at; any other costs one failed look-up."""


def _host(address: object) -> str:
    if isinstance(address, str | bytes):
        path = os.fsdecode(address)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{_absolute(path)}"
    if isinstance(address, tuple) and address and isinstance(address[0], str | bytes):
        return _name(address[0]).lower().rstrip(".")
    return "another family"


def _name(value: object) -> str:
    if isinstance(value, str | bytes | os.PathLike):
        return os.fsdecode(value)
    raise TypeError("a name is a text")


def _absolute(path: object, folder: str = "") -> str:
    text = _name(path)
    if text.startswith("/") and "//" not in text and "/." not in text:
        return text
    return os.path.abspath(os.path.join(folder, text))  # noqa: PTH100, PTH118 - texts; links aren't followed


def _folder_of(descriptor: object) -> str:
    """The folder behind a descriptor; empty where none is named, or it isn't known."""
    if not isinstance(descriptor, int) or descriptor < 0:
        return ""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return ""


def _folder(path: str) -> str:
    return path.rstrip("/") + "/"
