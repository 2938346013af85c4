"""Which watched functions are on the stack, and whose code does what is done.

This runs inside of an audit hook, for each operation that is looked at. Reading a frame's code object is an
audited operation itself, and so is `id`; each would cost another turn of the hook. So frames are told apart
by their module's name first, and only those of a module with a watched function are looked at closer.

Where the immune system's own code is met before any watched function, it acts for itself, as when it records
the decision on a call inside of another watched call: nobody is asked.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
import tokenize
from collections.abc import Callable
from contextvars import ContextVar
from types import CodeType, FrameType, FunctionType
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

DEPTH: Final = 256
"""Frames that are looked at; a watched function further out isn't found."""

_REMEMBERED: Final = 4096
_PACKAGE: Final = "cloister.immune."
_HANDED_OVER: Final = "handed_over"
# Whose code a module is; plain numbers, since reading a member of an enumeration costs more than a frame.
_ELSEWHERE, _WATCHED, _OWN = 0, 1, 2
_SOURCES: Final = (".py", ".pyc", ".pyi", ".so", ".pyd")
# Only files that can be code, read by what reads code, are no reach: `get_data` of a loader reads anything.
_ON_FILES: Final = frozenset({"open", "os.rename", "os.listdir", "os.mkdir"})
_READERS_OF_CODE: Final = tuple(
    vars(sys.modules[name])
    for name in ("_frozen_importlib", "_frozen_importlib_external", linecache.__name__, tokenize.__name__)
)


class WatchedCode:
    """The functions that are watched, by their code."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[tuple[CodeType, str], ...]] = {}
        self._modules: frozenset[object] = frozenset()
        self._kinds: dict[object, int] = {}
        self._carried: ContextVar[tuple[str, ...]] = ContextVar("cloister_egress_owners")

    def register(self, function: FunctionType, name: str) -> None:
        """Watch a function under a name; two of one code are one."""
        code = function.__code__
        others = tuple(one for one in self._codes.get(code.co_qualname, ()) if one[0] is not code)
        self._codes[code.co_qualname] = (*others, (code, name))
        self._modules |= {function.__globals__.get("__name__")}
        self._kinds.clear()

    def owners(self, frame: FrameType | None) -> tuple[str, ...]:
        """The watched functions from a frame outwards, and those that handed the work over."""
        owners: tuple[str, ...] = ()
        codes, kinds, depth = self._codes, self._kinds, DEPTH
        while frame is not None and depth:
            module = frame.f_globals.get("__name__")
            kind = kinds.get(module)
            if kind is None:
                kind = self._kind(module)
            if kind == _WATCHED:
                # Reading a frame's code is audited itself, and so is `id`: each costs a turn of the hook.
                code = frame.f_code
                for known, name in codes.get(code.co_qualname, ()):
                    if known is code and name not in owners:
                        owners = (*owners, name)
            elif kind == _OWN and not owners and frame.f_globals is _names_of(module):
                return self._carried.get(()) if frame.f_code.co_name == _HANDED_OVER else ()
            frame = frame.f_back
            depth -= 1
        carried = self._carried.get(())
        return (*owners, *carried) if carried else owners

    def _kind(self, module: object) -> int:
        if module in self._modules:
            kind = _WATCHED
        elif isinstance(module, str) and f"{module}.".startswith(_PACKAGE):
            kind = _OWN
        else:
            kind = _ELSEWHERE
        if len(self._kinds) >= _REMEMBERED:
            self._kinds.clear()
        self._kinds[module] = kind
        return kind

    def carried(self, work: Callable[P, R], owners: tuple[str, ...]) -> Callable[P, R]:
        """Work that is these functions' wherever it runs."""

        @functools.wraps(work)
        def handed_over(*args: P.args, **kwargs: P.kwargs) -> R:
            token = self._carried.set(owners)
            try:
                return work(*args, **kwargs)
            finally:
                self._carried.reset(token)

        return handed_over


def _names_of(module: object) -> dict[str, object] | None:
    # By identity, since any code can run under any name.
    found = sys.modules.get(module) if isinstance(module, str) else None
    return None if found is None else found.__dict__


def reads_code(event: str, path: object, frame: FrameType) -> bool:
    """Whether the import system, or the printing of a traceback, opens a file that can be code."""
    if event not in _ON_FILES or not isinstance(path, str | bytes):
        return False
    if not any(frame.f_globals is names for names in _READERS_OF_CODE):
        return False
    if event == "os.listdir":
        return True
    if event == "os.mkdir":
        return os.fsdecode(path).endswith("__pycache__")
    # The import system writes a compiled module beside its place first: ``name.cpython-311.pyc.140234``.
    name = os.fsdecode(path)
    return name.endswith(_SOURCES) or name.rpartition(".")[0].endswith(".pyc")
