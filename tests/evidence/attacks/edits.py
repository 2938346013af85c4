"""Ways to change a receipt, as somebody without keys or a hub with its own would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloister.evidence.extract import log_origin
from cloister.evidence.predicates import (
    Role,
    RoundAggregated,
)
from cloister.evidence.verifier import Verdict
from tests.evidence.synthetic import (
    Step,
    SyntheticJob,
    edited,
    failing,
    resealed,
    verify,
)

Body = dict[str, Any]
Edit = Callable[[Body], None]

NORTH = log_origin(Role.SITE, "north")
SOUTH = log_origin(Role.SITE, "south")


def both_ways(job: SyntheticJob, receipt: bytes, edit: Edit) -> tuple[set[str], set[str]]:
    """The checks that fail when a stranger edits the receipt, and when the hub does and signs again."""
    naive = failing(verify(job, edited(receipt, edit)))
    hostile = failing(verify(job, resealed(receipt, job.keys["hub"], edit)))
    assert "receipt-signature" in naive
    assert "receipt-signature" not in hostile
    return naive, hostile


def of_log(body: Body, log: str) -> list[int]:
    """Where in a receipt's body the statements of a log are."""
    return [place for place, one in enumerate(body["statements"]) if one["log"] == log]


def step(steps: list[Step], kind: type, position: int = 0) -> dict[str, Any]:
    """The fields of one statement somebody is about to make, by kind and place among its kind."""
    return [fields for found, fields in steps if found is kind][position]  # type: ignore[return-value]


def detail(verdict: Verdict, check: str) -> str:
    """What a verdict says about one check."""
    return next(one.detail for one in verdict.checks if one.id == check)


class NeverUsed(SyntheticJob):
    """A hub that used none of the updates that north trained and released."""

    def hub_steps(self) -> list[Step]:
        steps = super().hub_steps()
        for kind, fields in steps:
            if kind is RoundAggregated:
                del fields["updates"]["north"]
                fields.update(weights={"south": 1.0}, absent={"north": "late"})
        return steps
