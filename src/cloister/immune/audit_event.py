"""One entry of the audit: what was decided, about which function, and why; never a value of a call.

Rules kept here:

1. An entry can be written whatever it is made of: text that no JSON can carry is replaced, long text is cut
   and a score that is no number is left out. What stops a call must not depend on how it is described.
2. Reading is strict: what doesn't have an entry's exact members and kinds is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Final

from cloister.immune.errors import ImmuneError

if TYPE_CHECKING:
    from cloister.core.canonical import JSON
    from cloister.immune.observation import Decision

MAX_NAME: Final = 300
MAX_REASON: Final = 1000
_DECIMALS: Final = 4


class AuditKind(StrEnum):
    """What an entry is about."""

    DECISION = "decision"
    BASELINE = "baseline"
    CANDIDATE = "candidate"
    VALIDATION = "validation"
    PROMOTION = "promotion"
    REJECTION = "rejection"
    EXPIRY = "expiry"
    ROLLBACK = "rollback"
    DRIFT = "drift"
    APPROVE = "approve"
    DEPLOY = "deploy"
    STATE_CHANGE = "state-change"
    EGRESS = "egress"
    FAULT = "fault"
    KILL_SWITCH = "kill-switch"
    SAFE_MODE = "safe-mode"
    RESTART = "restart"
    TAMPER = "tamper"
    RETENTION = "retention"
    FOLLOWS = "follows"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What happened.

    Attributes:
        timestamp: when, RFC 3339 in UTC with six decimals (`cloister.core.clock.format_time`).
        event_type: what it is about.
        action: what was done: ``allow``, ``quarantine``, ``block``, or the operator's or system's step.
        function: ``module:qualname``; empty where it is about the whole system.
        score: 0 to 100; None where nothing was scored.
        reason: words and numbers of this package, or an operator's note.
        event_id: the id by which a `CallBlocked` and an operator name it.
    """

    timestamp: str
    event_type: AuditKind
    action: str
    function: str
    score: float | None
    reason: str
    event_id: str

    @classmethod
    def of_decision(cls, timestamp: str, function: str, decision: Decision) -> AuditEvent:
        """The entry of a decision about a call."""
        return cls(
            timestamp,
            AuditKind.DECISION,
            decision.action.value,
            function,
            decision.anomaly_score,
            decision.reason,
            decision.event_id,
        )

    def as_json(self) -> dict[str, JSON]:
        """The entry as it is written; the score with four decimals."""
        score = self.score
        return {
            "action": _text(self.action, MAX_NAME),
            "event_id": _text(self.event_id, MAX_NAME),
            "event_type": self.event_type.value,
            "function": _text(self.function, MAX_NAME),
            "reason": _text(self.reason, MAX_REASON),
            "score": None if score is None or not isfinite(score) else round(score, _DECIMALS),
            "timestamp": _text(self.timestamp, MAX_NAME),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, JSON]) -> AuditEvent:
        """Read what `as_json` writes.

        Raises:
            ImmuneError: ``immune.audit_invalid`` for other members, kinds or an unknown event type.
        """
        score = value.get("score")
        texts = {name: text for name in _TEXTS if isinstance(text := value.get(name), str)}
        known = texts.get("event_type") in _KINDS
        numeric = score is None or (isinstance(score, (int, float)) and not isinstance(score, bool))
        if value.keys() != _MEMBERS or len(texts) != len(_TEXTS) or not known or not numeric:
            raise ImmuneError(
                "immune.audit_invalid",
                "An entry of the audit doesn't have the form of one.",
                "Verify the audit: something else than the immune system wrote into it.",
            )
        return cls(
            texts["timestamp"],
            AuditKind(texts["event_type"]),
            texts["action"],
            texts["function"],
            None if score is None else float(score),  # type: ignore[arg-type]
            texts["reason"],
            texts["event_id"],
        )


_TEXTS: Final = ("action", "event_id", "event_type", "function", "reason", "timestamp")
_MEMBERS: Final = frozenset((*_TEXTS, "score"))
_KINDS: Final = frozenset(AuditKind)


def _text(text: str, longest: int) -> str:
    """Text that any JSON can carry."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
