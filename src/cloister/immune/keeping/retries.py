"""Another trial of a candidate that failed: which may be asked for, and what is said where it may not.

Only what failed is tried again. Each other one has another way, and a refusal names it.
"""

from __future__ import annotations

from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.detector import Detector, DetectorState
from cloister.immune.keeping.validation import EVENTS, Verdict

_SEE: Final = "See how it stands:  pic detectors list"


def require_failed(detector: Detector, now: float) -> Verdict:
    """Refuse a detector that isn't a candidate whose last trial failed and is the last that was asked for.

    Args:
        detector: as it is stored.
        now: seconds since 1970.

    Returns:
        What the trial found.

    Raises:
        ImmuneError: ``immune.not_failed``.
    """
    number, verdict = detector.id, detector.verdict
    if detector.is_over(now):
        raise _refusal("its time is up", "What it recognises makes a candidate anew, once it is seen again.")
    if detector.state is DetectorState.ACTIVE:
        raise _refusal("it is promoted", f"Switch it off:  pic detectors reject {number} --reason TEXT")
    if detector.state is DetectorState.REJECTED:
        raise _refusal(
            "it was rejected",
            "That lasts until its time is up, or what was before is put back:"
            f"  pic detectors rollback {detector.function_name}",
        )
    if verdict is None:
        raise _refusal(
            "it wasn't tried yet",
            f"That is done by itself, once its function has {EVENTS} ordinary calls.  {_SEE}",
        )
    if detector.retry_at is not None:
        raise _refusal(
            "another trial was asked for already",
            f"It is made once its function has {EVENTS} ordinary calls since.  {_SEE}",
        )
    if verdict.passed:
        raise _refusal("its trial was passed", f"Let it apply:  pic detectors promote {number}")
    return verdict


def _refusal(why: str, hint: str) -> ImmuneError:
    return ImmuneError("immune.not_failed", f"The detector isn't tried again: {why}.", hint)
