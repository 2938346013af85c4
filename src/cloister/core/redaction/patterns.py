"""Patterns that are compiled when they are first used: compiling all takes as long as a short command.

Afterwards nothing is lost: once compiled, a method is an attribute of the object, as in the compiled pattern.
"""

from __future__ import annotations

import re
from typing import cast

_METHODS = ("search", "match", "fullmatch", "finditer", "findall", "sub")


class _Pattern:
    def __init__(self, source: str, flags: int) -> None:
        self._source = source
        self._flags = flags

    def __getattr__(self, name: str) -> object:
        if name not in _METHODS:
            raise AttributeError(name)
        # Two threads may both compile, with the same result.
        compiled = re.compile(self._source, self._flags)
        for method in _METHODS:
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def pattern(source: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern of which search, match, fullmatch, finditer, findall and sub can be used.

    Args:
        source: as `re.compile` takes it.
        flags: as `re.compile` takes them.
    """
    return cast("re.Pattern[str]", _Pattern(source, flags))
