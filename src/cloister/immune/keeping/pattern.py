"""What a detector recognises, and the keyed hash that is all that is stored of it.

A pattern is a function, the feature that was unusual and by how many times, in steps of two. There are few of
them, so a plain hash could be undone by trying all; the hash is HMAC-SHA256 (RFC 2104) under a key that isn't
in the database.
"""

from __future__ import annotations

import hmac
import math
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.errors import CloisterError
from cloister.core.files import read_or_make
from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Score

if TYPE_CHECKING:
    from cloister.immune.keeping.store import StateStore

KEY_NAME: Final = "pattern.key"
KEY_BYTES: Final = 32
_STEPS: Final = 40


def pattern_of(function: str, score: Score) -> bytes:
    """The pattern of an unusual call.

    Args:
        function: ``module:qualname``.
        score: the call's.
    """
    return _pattern(function, score.feature, _step(score.times))


def patterns_within(function: str, score: Score) -> tuple[bytes, ...]:
    """The patterns that a call fits: its own, and every weaker one of the same feature, its own first."""
    return tuple(_pattern(function, score.feature, step) for step in range(_step(score.times), -1, -1))


def patterns_of_feature(pattern: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The weaker and the stronger patterns of the same function and feature.

    Args:
        pattern: of `pattern_of`; one of another form stands alone.
    """
    head, _, tail = pattern.rpartition(b"\n")
    if not head or not tail.isdigit() or int(tail[:3]) > _STEPS:
        return (), ()
    steps = [b"%s\n%d" % (head, step) for step in range(_STEPS + 1)]
    place = int(tail)
    return tuple(steps[:place]), tuple(steps[place + 1 :])


def hash_pattern(key: bytes, pattern: bytes) -> str:
    """What is stored of a pattern: HMAC-SHA256, 64 hexadecimal digits.

    Args:
        key: of `pattern_key`.
        pattern: any bytes.
    """
    return hmac.digest(key, pattern, "sha256").hex()


def pattern_key(directory: Path | None) -> bytes:
    """The key of this installation's patterns: made once, in a file beside the database (mode 0600).

    Args:
        directory: of the state; None makes a key that lives as long as the process.

    Raises:
        InputError, StorageError: the file can't be read or made.
        ImmuneError: ``immune.state_damaged`` where it isn't a key; remove it, and candidates are found anew.
    """
    if directory is None:
        return secrets.token_bytes(KEY_BYTES)
    key = read_or_make(directory / KEY_NAME, KEY_BYTES, lambda: secrets.token_bytes(KEY_BYTES))
    if len(key) != KEY_BYTES:
        raise ImmuneError("immune.state_damaged", "The key of patterns isn't one.", "Remove pattern.key.")
    return key


def open_pattern_key(directory: Path | None, store: StateStore) -> bytes:
    """`pattern_key` for who runs inside of somebody's service: nothing is raised.

    Args:
        directory: of the state.
        store: has an alarm where the file was put aside, or none can be made.
    """
    if directory is None or store.path is None:
        return pattern_key(None)
    try:
        return pattern_key(directory)
    except CloisterError:
        store.put_aside(directory / KEY_NAME)
    try:
        return pattern_key(directory)
    except CloisterError:
        return pattern_key(None)


def _step(times: float) -> int:
    if not times > 1:
        return 0
    return min(int(math.log2(times)), _STEPS) if math.isfinite(times) else _STEPS


def _pattern(function: str, feature: str, step: int) -> bytes:
    return f"{function}\n{feature}\n{step}".encode("utf-8", "backslashreplace")
