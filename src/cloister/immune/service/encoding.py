"""A batch as bytes, and what its parts are called on the wire.

What an application may name as it likes, a type, can hold half a character (a lone surrogate), which JSON in
UTF-8 can't carry; it is replaced, so that one odd name doesn't lose ninety-nine other events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol


class Tellable(Protocol):
    """An event that can be told as JSON."""

    def as_json(self) -> Mapping[str, object]:
        """Its fields."""
        ...


def encode_batch(events: Sequence[Tellable]) -> bytes:
    """A batch of events as it is sent.

    Args:
        events: in the order in which they happened.

    Returns:
        JSON in UTF-8.

    Raises:
        ValueError: a number isn't finite.
    """
    batch = {"events": [dict(one.as_json()) for one in events]}
    text = json.dumps(batch, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
