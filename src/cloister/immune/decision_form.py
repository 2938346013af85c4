"""A decision as JSON, and read back strictly: where one comes from outside, it is checked here (PIC-4.1.e).

Decisions that this package makes are right by their types, and cost no check on a call's way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from cloister.immune.errors import ImmuneError
from cloister.immune.observation import Action, Decision, Ground

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

_MEMBERS: Final = frozenset({"action", "reason", "anomaly_score", "event_id", "ground"})


def write_decision(decision: Decision) -> dict[str, JSON]:
    """A decision as plain JSON."""
    return {
        "action": decision.action.value,
        "reason": decision.reason,
        "anomaly_score": decision.anomaly_score,
        "event_id": decision.event_id,
        "ground": decision.ground.value,
    }


def read_decision(value: Mapping[str, JSON]) -> Decision:
    """Read what `write_decision` writes.

    Raises:
        ImmuneError: ``immune.decision_invalid``: another action than the three, a score that isn't from 0 to
            100, other members.
    """
    if value.keys() != _MEMBERS:
        raise _no_decision()
    score, reason, event_id = value["anomaly_score"], value["reason"], value["event_id"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 100:
        raise _no_decision()
    if not isinstance(reason, str) or not isinstance(event_id, str):
        raise _no_decision()
    try:
        action, ground = Action(str(value["action"])), Ground(str(value["ground"]))
    except ValueError:
        raise _no_decision() from None
    return Decision(action, reason, float(score), event_id, ground)


def _no_decision() -> ImmuneError:
    return ImmuneError("immune.decision_invalid", "This isn't a decision about a call.")
