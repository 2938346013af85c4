"""The compiled core: which modules it is of, whether it was built, and whether it is used.

The modules named here are plain Python and work as that. Where the package was built with a C compiler,
mypyc compiled the same text, and a watched function has a shortcut in C (``_shortcut.c``). Rules kept here:

* All of it is used or none of it: what judges a call is of one kind.
* It is used only where it was built from the very sources that lie beside it, by their hash.
* Which one it is can be asked (`core`), and why. Nothing falls back unsaid.
* ``CLOISTER_IMMUNE_PURE=1`` has the pure package built, and has it used where both are there.

This module is of the standard library only: the package's build runs it before the package is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

PURE: Final = "CLOISTER_IMMUNE_PURE"
"""The variable that has the pure package built or used."""
MODULES: Final = (
    "observation",
    "detection.features",
    "detection.learning_weight",
    "detection.level",
    "detection.novelty",
    "detection.score",
    "detection.tail_detector",
    "detection.tail_state",
    "detection.tail_table",
    "detection.tail_usual",
    "wrapping.calls",
    "wrapping.costs",
    "wrapping.entering",
    "wrapping.gate",
    "wrapping.locked",
    "wrapping.observing",
    "wrapping.sampling",
)
"""What is compiled, below ``cloister.immune``."""
LIBRARY: Final = "compiled_core"
"""Its shared library is named by this and mypyc's ending."""
SHORTCUT: Final = "_shortcut"
HEADER: Final = "_entry.h"
"""What the shortcut's source includes of the package's own."""
_HERE: Final = Path(__file__).parent
_PACKAGE: Final = "cloister.immune"


class Core(NamedTuple):
    """Which core is used.

    Attributes:
        kind: ``compiled`` or ``pure``.
        why: why it is pure; empty of a compiled one.
    """

    kind: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})" if self.why else self.kind


def is_pure_wanted() -> bool:
    """Whether the environment asks for the pure package."""
    return os.environ.get(PURE, "").strip().lower() in {"1", "true", "yes", "on"}


def source_of(module: str, folder: Path = _HERE) -> Path:
    """Where a module's source is.

    Args:
        module: one of `MODULES`.
        folder: of ``cloister.immune``.
    """
    return folder.joinpath(*module.split(".")).with_suffix(".py")


def digest_of_sources(folder: Path = _HERE) -> str:
    """SHA-256 of the names and contents of all that is compiled, 64 hexadecimal digits.

    Args:
        folder: of ``cloister.immune``.
    """
    import hashlib

    files = [source_of(module, folder) for module in MODULES] + [folder / f"{SHORTCUT}.c", folder / HEADER]
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def core() -> Core:
    """Which core this process uses, and why.

    Returns:
        ``compiled``, or ``pure`` with the reason.
    """
    return _Chosen.core


def shortcut() -> ModuleType | None:
    """The module of the shortcut; None where the core is pure."""
    return _Chosen.shortcut


class _Chosen:
    core = Core("pure", "it wasn't looked for")
    shortcut: ModuleType | None = None


class _Sources:
    """Finds the sources of what is compiled, past the compiled modules beside them."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The place of a module's source; None for every other module."""
        module = name.removeprefix(f"{_PACKAGE}.")
        if module == name or module not in MODULES:
            return None
        return importlib.util.spec_from_file_location(name, source_of(module))


def choose() -> None:
    """Choose the core of this process, before any of its modules is imported."""
    why = "it was not built"
    built = _built(SHORTCUT)
    try:
        if is_pure_wanted():
            why = f"{PURE} is set"
        elif built:
            why = _load()
    except (ImportError, OSError) as error:
        why = f"it can't be loaded here: {error}"
    _Chosen.core = Core("pure" if why else "compiled", why)
    if why:
        _Chosen.shortcut = None
        if any(_built(module) for module in MODULES):
            sys.meta_path.insert(0, _Sources)


def _load() -> str:
    """Load the compiled core; why it can't be used, or nothing."""
    if not all(_built(module) for module in MODULES):
        return "a part of it was not built"
    found = importlib.import_module(f"{_PACKAGE}.{SHORTCUT}")
    if digest_of_sources() != found.SOURCES:
        return "it was built from other sources than those beside it"
    importlib.import_module(f"{_PACKAGE}.{LIBRARY}__mypyc")
    _Chosen.shortcut = found
    return ""


def _built(module: str) -> bool:
    place = _HERE.joinpath(*module.split("."))
    return any(place.with_name(place.name + ending).exists() for ending in EXTENSION_SUFFIXES)
