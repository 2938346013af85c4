"""Names of a package that are imported when they are first asked for (PEP 562).

A room offers its whole face in one place, and who uses a part doesn't wait for the libraries of the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's ``__getattr__``.

    Args:
        package: the package's ``__name__``.
        homes: for each name, the module below the package that has it.

    Returns:
        A function that imports the module of a name, keeps the value in the package and returns it; it raises
        :class:`AttributeError` for every other name.
    """

    def attribute(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{package}.{home}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute
