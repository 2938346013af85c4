"""What calls are told apart by: what they give, why one is observed, and which need no judgement."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What calling a function gives."""

    SYNC = "sync"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ITERABLE_COROUTINE = "iterable coroutine"
    ASYNC_GENERATOR = "async generator"


class Choice(StrEnum):
    """Why a call is on the slow path."""

    CHANCE = "chance"
    GATED = "gated"
    CHECKED = "checked"


# An enum's member is slow to find, and these are compared in every observed call.
CHANCE: Final = Choice.CHANCE
GATED: Final = Choice.GATED
CHECKED: Final = Choice.CHECKED


class Bounds(NamedTuple):
    """What a call looks like that needs no judgement before it runs.

    Attributes:
        size: largest total size of the arguments.
        callers: known callers, ``module:qualname``.
    """

    size: int
    callers: frozenset[str]
