"""What can go wrong in the immune room, and what a protected function raises in place of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from cloister.core.errors import CloisterError

CALL_BLOCKED: Final = "immune.call_blocked"
"""The code by which a call that was stopped is told on, where `CallBlocked` itself doesn't arrive."""


class ImmuneError(CloisterError):
    """A configuration, a state or a command that the immune system can't use."""

    exit_code: ClassVar[int] = 2
    CODES: ClassVar[Mapping[str, str]] = {
        "immune.setting_invalid": "A setting is unknown or out of range.",
        "immune.target_unknown": "What is to be watched can't be found or can't be wrapped.",
        CALL_BLOCKED: "A call was stopped before its body ran.",
        "immune.function_unknown": "No function of this name is watched.",
        "immune.detector_unknown": "There is no detector of this number.",
        "immune.not_eligible": "A detector that didn't pass its validation, or is too young, isn't promoted.",
        "immune.not_failed": "Only a candidate whose trial failed is tried again.",
        "immune.baseline_damaged": "What was learned of a function is damaged, or of another kind.",
        "immune.state_damaged": "A state database is damaged; it was put aside.",
        "immune.state_unusable": "A state database is of another version, or can't be opened.",
        "immune.anchor_invalid": "A signed baseline doesn't verify, or is of another function.",
        "immune.telemetry_invalid": "A batch of telemetry doesn't have the form that it must have.",
        "immune.request_unknown": "The brain service has no such path, or not by this method.",
        "immune.telemetry_unproven": "A request carries no proof that it may be made, or an old one.",
        "immune.telemetry_replayed": "A batch of telemetry came before.",
        "immune.telemetry_flood": "More events came than the service takes.",
        "immune.service_unsafe": "The brain service would listen beyond this machine to anybody.",
        "immune.library_missing": "A library that an optional part needs isn't installed.",
        "immune.unreachable": "The brain service doesn't answer.",
        "immune.decision_invalid": "A decision doesn't have the form of one.",
        "immune.audit_invalid": "An entry of the audit doesn't have the form of one.",
        "immune.manifest_invalid": "A manifest of code doesn't verify, or can't be read.",
        "immune.generator_invalid": "A generator of traces was asked for too much, or a trace is damaged.",
        "immune.demo_failed": "The demo couldn't be played to its end.",
        "immune.measure_undefined": "A rate or a percentile was asked for over nothing.",
    }


class CallBlocked(RuntimeError):  # noqa: N818 - what it is, not that something failed
    """A call was stopped before its body ran.

    It says which function and why, and holds no argument. It is picklable, so that it crosses processes.

    Args:
        function: qualified name of the function, ``module:qualname``.
        reason: one sentence of this package's own words and numbers.
        event_id: the decision's id in the audit log.
    """

    def __init__(self, function: str, reason: str, event_id: str) -> None:
        super().__init__(function, reason, event_id)
        self.function, self.reason, self.event_id = function, reason, event_id

    def __str__(self) -> str:
        return f"{self.function} was blocked: {self.reason} (event {self.event_id})"


class EgressBlocked(CallBlocked):
    """An operation inside a watched function (connect, open, exec, dlopen) was stopped before it happened."""
