"""Whether a log holds one chain of statements for each job, and not two stories of one.

A receipt shows the entries that its hub chose to show. Who sees a whole log sees the others too: a second
ending of a job, put into the same log under the same signed and cosigned head, is there for anybody to find.
"""

from __future__ import annotations

from typing import Final

from pydantic_core import from_json

from cloister.core.canonical import b64decode
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.evidence.checks import Check, judged
from cloister.evidence.statement import PAYLOAD_TYPE

CHECK_ID: Final = "statement-chains"
_SHOWN: Final = 4


class Chains:
    """Follows the chains of a log's statements, entry by entry; memory grows with the number of jobs."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[int, str]] = {}
        self._statements = 0
        self._problems: list[str] = []
        self._broken: set[str] = set()

    def visit(self, index: int, entry: bytes) -> None:
        """Take the next entry.

        Args:
            index: its place in the log.
            entry: its bytes; what is no statement belongs to no chain.
        """
        payload = _payload(entry)
        if payload is None:
            return
        place = _place(payload)
        if place is None:
            self._report(index, "", "it is called a statement, and can't be read as one")
            return
        self._statements += 1
        job_id, sequence, previous = place
        length, last = self._ends.get(job_id, (0, ""))
        if sequence < length:
            self._report(index, job_id, f"statement {sequence} of job {job_id} is there a second time")
            return
        if sequence > length or (previous or "") != last:
            self._report(index, job_id, f"it doesn't follow the statement of job {job_id} before it")
        self._ends[job_id] = (sequence + 1, sha256_hex(payload))

    def check(self) -> Check:
        """The verdict on all entries taken."""
        return judged(
            CHECK_ID, self._problems, f"{self._statements} statements in {len(self._ends)} unbroken chains"
        )

    def _report(self, index: int, job_id: str, problem: str) -> None:
        # A second chain is told once, not statement by statement.
        if job_id not in self._broken and len(self._problems) < _SHOWN:
            self._problems.append(f"entry {index}: {problem}")
        self._broken.add(job_id)


def _payload(entry: bytes) -> bytes | None:
    """The payload of a statement's envelope; None for any other entry."""
    try:
        envelope = from_json(entry)
        if envelope["payloadType"] != PAYLOAD_TYPE:
            return None
        return b64decode(envelope["payload"])
    except (ValueError, TypeError, KeyError, AttributeError, CloisterError):
        return None


def _place(payload: bytes) -> tuple[str, int, str | None] | None:
    """Job, sequence and predecessor, as a statement gives them."""
    try:
        predicate = from_json(payload, cache_strings="keys")["predicate"]
        job_id, sequence, previous = predicate["job_id"], predicate["sequence"], predicate["previous"]
    except (ValueError, TypeError, KeyError):
        return None
    if not isinstance(job_id, str) or type(sequence) is not int or not isinstance(previous, str | None):
        return None
    return job_id, sequence, previous
