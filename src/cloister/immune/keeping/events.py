"""What keeping has to say: things that happened, for the audit log, and alarms, for a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Happened(StrEnum):
    """What can happen to what is kept."""

    BASELINE_MADE = "baseline-made"
    ANCHOR_APPROVED = "anchor-approved"
    ANCHOR_SIGNED = "anchor-signed"
    ANCHOR_INVALID = "anchor-invalid"
    DEPLOYED = "deployed"
    EGRESS_APPROVED = "egress-approved"
    DRIFT_BEGAN = "drift-began"
    DRIFT_ENDED = "drift-ended"
    CANDIDATE_MADE = "candidate-made"
    DETECTOR_VALIDATED = "detector-validated"
    RETRY_ASKED = "retry-asked"
    DETECTOR_PROMOTED = "detector-promoted"
    DETECTOR_REJECTED = "detector-rejected"
    DETECTOR_EXPIRED = "detector-expired"
    ROLLED_BACK = "rolled-back"
    STATE_DAMAGED = "state-damaged"
    STAGE_RESUMED = "stage-resumed"
    STAGE_RELEASED = "stage-released"
    STAGE_INVALID = "stage-invalid"
    UPKEEP_FAILED = "upkeep-failed"


@dataclass(frozen=True, slots=True)
class StateEvent:
    """Something that happened, once: an entry of the audit log.

    Attributes:
        kind: what.
        function: ``module:qualname``; empty where it concerns all.
        at: seconds since 1970.
        reason: words and numbers of this package.
        detector: a detector's number; 0 where it is about none.
        by: who decided it; empty where nobody did.
    """

    kind: Happened
    function: str
    at: float
    reason: str
    detector: int = 0
    by: str = ""


DAMAGED: Final = ".damaged-"
"""Stands in the name of a file that was put aside, before the time."""
_KEPT: Final = MappingProxyType(
    {
        "immune.db": "the state database",
        "egress.json": "the list of what functions reach for",
        "pattern.key": "the key of patterns",
    }
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """The state can't be trusted: nothing should block until a person has looked.

    Attributes:
        kind: ``state_damaged``, ``state_unusable``, ``folder_unusable``, ``stage_forged`` or
            ``learned_unreadable``.
        put_aside: the name that a damaged file was given; empty where it couldn't be renamed.
        at: seconds since 1970.
        detail: a code or a name of this package's own, where it says more.
    """

    kind: str
    put_aside: str
    at: float
    detail: str = ""

    @property
    def reason(self) -> str:
        """It in words."""
        if self.kind == "state_damaged":
            what = _KEPT.get(self.put_aside.partition(DAMAGED)[0], "a kept file")
            return (
                f"{what} was damaged and is now {self.put_aside}; nothing is blocked until `pic acknowledge`"
            )
        if self.kind == "folder_unusable":
            why = f" ({self.detail})" if self.detail else ""
            return f"the folder of the state or its keys can't be used{why}; nothing is kept or blocked"
        if self.kind == "stage_forged":
            return "a kept containment didn't verify and was removed; nothing is blocked until the next start"
        if self.kind == "learned_unreadable":
            return (
                f"what was learned of a function can't be read ({self.detail}) and is learned anew;"
                " nothing is blocked until the next start"
            )
        return "the state database can't be used; what is learned stays in memory"
