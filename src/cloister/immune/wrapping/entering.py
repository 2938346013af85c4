"""What is known of a call before it runs: how large its arguments are, and whose code calls.

Nothing here calls foreign code: sizes are taken of exact builtin types only, names from code objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Final

# By identity: two functions that differ in nothing but their file have equal code, and a code's hash is slow.
# The code is kept with its name, so that no other takes its identity.
_NAMES: Final[dict[int, tuple[CodeType, str]]] = {}
_MOST_NAMES: Final = 10_000

MEASURED: Final = frozenset({str, bytes, bytearray, list, tuple, dict, set, frozenset})
"""Types whose length is their size; a subclass may have a length of its own making, and counts 1."""


def size_of(arguments: Iterable[object]) -> int:
    """The total size of arguments: characters of text, bytes of binary, items of containers, 1 for any other.

    Args:
        arguments: positional ones and the values of named ones.
    """
    total = 0
    for one in arguments:
        total += len(one) if type(one) in MEASURED else 1  # type: ignore[arg-type]
    return total


def caller_of(frame: FrameType) -> str:
    """The code that a frame runs, as ``module:qualname``.

    Args:
        frame: of the calling code.
    """
    code = frame.f_code
    try:
        return _NAMES[id(code)][1]
    except KeyError:
        return _name_of(frame, code)


def _name_of(frame: FrameType, code: CodeType) -> str:
    # A mapping of the application's own making isn't asked.
    space = frame.f_globals
    module = space.get("__name__") if type(space) is dict else None
    name = f"{module if type(module) is str else ''}:{code.co_qualname}"
    if len(_NAMES) >= _MOST_NAMES:
        _NAMES.clear()
    _NAMES[id(code)] = (code, name)
    return name
