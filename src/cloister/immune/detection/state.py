"""Strict reading of what a detector wrote down, so that a damaged document never becomes a baseline.

Every number is finite and in its range, every list bounded, every object has exactly its members.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Final, Never, TypeAlias

from cloister.immune.errors import ImmuneError

Members: TypeAlias = Mapping[str, object]

LONGEST_NAME: Final = 200
MOST_WHOLE: Final = 2**53 - 1
_HINT: Final = "Remove it; the function is learned anew."


def refuse(what: str) -> Never:
    """Refuse the document, naming what is wrong with it, never what it holds.

    Raises:
        ImmuneError: ``immune.baseline_damaged``.
    """
    raise ImmuneError("immune.baseline_damaged", f"what was learned can't be read: {what}", _HINT)


def members(value: object, what: str, names: tuple[str, ...]) -> Members:
    """An object with exactly these members.

    Raises:
        ImmuneError: ``immune.baseline_damaged``.
    """
    if not isinstance(value, dict) or len(value) != len(names) or any(name not in value for name in names):
        refuse(f"{what} doesn't have the members it must have")
    return value


def number(value: object, what: str, least: float, most: float) -> float:
    """A finite number within bounds.

    Raises:
        ImmuneError: ``immune.baseline_damaged``.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{what} isn't a number")
    if isinstance(value, float) and not isfinite(value):
        refuse(f"{what} isn't finite")
    if not least <= value <= most:
        refuse(f"{what} is out of its range")
    return float(value)


def whole(value: object, what: str, least: int, most: int) -> int:
    """A whole number within bounds.

    Raises:
        ImmuneError: ``immune.baseline_damaged``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        refuse(f"{what} isn't a whole number in its range")
    return value


def numbers(value: object, what: str, least: float, most: float, longest: int) -> list[float]:
    """A list of finite numbers within bounds.

    Raises:
        ImmuneError: ``immune.baseline_damaged``.
    """
    if not isinstance(value, list) or len(value) > longest:
        refuse(f"{what} isn't a list of at most {longest}")
    return [number(item, what, least, most) for item in value]


def name(value: object, what: str) -> str:
    """A name of code.

    Raises:
        ImmuneError: ``immune.baseline_damaged``.
    """
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        refuse(f"{what} isn't a name")
    return value
