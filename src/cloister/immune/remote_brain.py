"""The brain behind the service: it learns from the telemetry of other processes and says what is unusual.

It blocks nothing: a decision belongs to the process in which the call is, and comes before the telemetry
leaves it. What the service adds is one place that sees all processes, keeps candidates of them, and alarms.

Rules kept here:

1. What a process says is taken as that: its clock dates only its own calls, and a function of two processes
   is one function here.
2. At most `MOST_FUNCTIONS` are learned; the events of further ones are counted and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import JSON
from cloister.immune.acting.containment import Stage
from cloister.immune.brain import Brain, observed_rates
from cloister.immune.code_manifest import CodeTrust
from cloister.immune.code_names import name_shown
from cloister.immune.keeping.detector import DetectorState
from cloister.immune.observation import Action, Entered, Observed
from cloister.immune.service.brain_port import BrainMetrics, WatchdogState

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.immune.service.telemetry_form import TelemetryForm

MOST_FUNCTIONS: Final = 10_000
_SUSPICIOUS: Final = frozenset({Stage.SUSPECT, Stage.CONTAIN, Stage.HALF_OPEN})


class RemoteBrain:
    """A brain as the service's `BrainPort`.

    Args:
        brain: whose settings enforce nothing.
        watchdog: whether somebody looks after the service.
        code_trust: whose word it is that the service's code is the right one.
    """

    def __init__(
        self,
        brain: Brain,
        watchdog: Callable[[], WatchdogState],
        code_trust: Callable[[], CodeTrust] = lambda: CodeTrust.NOBODY,
    ) -> None:
        self._brain, self._watchdog, self._code_trust = brain, watchdog, code_trust
        self._left_out = self._taken = 0

    def take(self, events: Sequence[TelemetryForm]) -> None:
        """See `BrainPort.take`."""
        known = set(self._brain.cells())
        for event in events:
            name = name_shown(event.function_name)
            if name not in known and len(known) >= MOST_FUNCTIONS:
                self._left_out += 1
                continue
            known.add(name)
            cell = self._brain.cell(name)
            entered = Entered(
                event.timestamp,
                event.size,
                name_shown(event.caller),
                max(event.calls, 1),
                event.errors,
                event.teaches,
            )
            cell.enter(entered)
            cell.leave(Observed(entered, event.duration_ms / 1000, event.failed))
            self._taken += 1
        self._brain.save_when_due()

    def status(self) -> Mapping[str, JSON]:
        """See `BrainPort.status`."""
        functions: dict[str, JSON] = {
            name: {
                "stage": self._brain.effector.state(name).stage.value,
                "approval": self._brain.anchors.standing(name).value,
                "learned": cell.detector.learned,
                "observed_rates": observed_rates(cell.detector),
            }
            for name, cell in self._brain.cells().items()
        }
        return {
            "functions": functions,
            "events_taken": self._taken,
            "events_left_out": self._left_out,
            "alarms": [one.reason for one in self._brain.alarms],
            "watchdog": self._watchdog().value,
            "code_trust": self._code_trust().value,
        }

    def metrics(self) -> BrainMetrics:
        """See `BrainPort.metrics`."""
        cells = self._brain.cells()
        detections = {
            action.value: sum(cell.decisions[action] for cell in cells.values()) for action in Action
        }
        found = self._brain.registry.detectors()
        return BrainMetrics(
            detections,
            self._false_positives(),
            sum(one.state is DetectorState.ACTIVE for one in found),
            sum(one.waits for one in found),
            self._watchdog(),
        )

    def ready(self) -> bool:
        """See `BrainPort.ready`."""
        return not self._brain.alarms

    def _false_positives(self) -> float | None:
        """Share of calls below alpha, over the functions that are in no suspicion; weighed by their calls."""
        alpha = f"{self._brain.settings.anomaly.alpha:g}"
        weight = flagged = 0.0
        for name, cell in self._brain.cells().items():
            rate = observed_rates(cell.detector).get(alpha)
            if isinstance(rate, float) and self._brain.effector.state(name).stage not in _SUSPICIOUS:
                weight += cell.detector.learned
                flagged += rate * cell.detector.learned
        return flagged / weight if weight else None
