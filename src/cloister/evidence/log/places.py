"""Where an entry belongs in a log: a statement says so itself, in its signed payload.

Stream and position are columns that no hash covers. Whoever can edit the database can change them without a
trace in the tree: hide a party's last statement from it, and have it sign another in the same place.
"""

from __future__ import annotations

from typing import Final

from pydantic_core import from_json

from cloister.evidence.envelope import Envelope

_STATEMENT: Final = "application/vnd.in-toto+json"


def stated_place(envelope: Envelope) -> tuple[str, int] | None:
    """Where a statement says that it belongs.

    Args:
        envelope: what was logged.

    Returns:
        Its job and sequence, which are stream and position in the log; None for what is no statement.
    """
    if envelope.payload_type != _STATEMENT:
        return None
    try:
        predicate = from_json(envelope.payload, cache_strings="keys")["predicate"]
        job_id, sequence = predicate["job_id"], predicate["sequence"]
    except (ValueError, TypeError, KeyError):
        return None
    return (job_id, sequence) if isinstance(job_id, str) and type(sequence) is int else None


def lies_where_stated(envelope: Envelope, stream: str, position: int) -> bool:
    """Whether an entry is where it says.

    Args:
        envelope: what was logged.
        stream: under which stream.
        position: at which place of it.

    Returns:
        True as well for what is no statement, and says nothing about its place.
    """
    return envelope.payload_type != _STATEMENT or stated_place(envelope) == (stream, position)
