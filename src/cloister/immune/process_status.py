"""How a watched process stands: what is on, and each of its functions; asked for, or in its folder's file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import JSON, canonicalize
from cloister.core.errors import CloisterError
from cloister.core.files import write_atomic
from cloister.immune.acting.containment import Stage
from cloister.immune.brain import observed_rates
from cloister.immune.compiled_core import core
from cloister.immune.observation import Action
from cloister.immune.wrapping.faults import FAULTS

if TYPE_CHECKING:
    from cloister.immune.acting.egress import EgressGuard
    from cloister.immune.acting.switch import KillSwitch
    from cloister.immune.brain import Brain
    from cloister.immune.cell import Cell
    from cloister.immune.notes import Notes
    from cloister.immune.telemetry import Telemetry
    from cloister.immune.wrapping.gate import Gate

PROCESSES: Final = "processes"
"""Where in the folder each process has a file, named by its number."""
_SHOWN_TARGETS: Final = 20


class ProcessStatus:
    """The status of this process.

    Args:
        folder: ``storage.directory``; None has no file.
        brain: the functions.
        guard: what they reach for.
        switch: whether all is off.
        notes: the audit.
        telemetry: what was sent.
        gates: those of a function.
        monotonic: seconds, as calls are dated.
    """

    def __init__(
        self,
        folder: Path | None,
        brain: Brain,
        guard: EgressGuard,
        switch: KillSwitch,
        notes: Notes,
        telemetry: Telemetry,
        *,
        gates: Callable[[str], Sequence[Gate]],
        monotonic: Callable[[], float],
    ) -> None:
        self._folder, self._brain, self._guard, self._switch = folder, brain, guard, switch
        self._notes, self._telemetry = notes, telemetry
        self._gates, self._monotonic = gates, monotonic

    def now(self) -> dict[str, JSON]:
        """What is on, and how each function stands."""
        brain, trail = self._brain, self._notes.trail
        audit = None if trail is None else trail.status()
        sent = self._telemetry.counts
        return {
            "process": os.getpid(),
            "core": str(core()),
            "switched_off": self._switch(),
            "functions": {name: self._function(name, cell) for name, cell in brain.cells().items()},
            "alarms": [one.reason for one in brain.alarms],
            "faults": FAULTS.count,
            "fault_kinds": {f"{step}: {kind}": count for (step, kind), count in FAULTS.by_kind.items()},
            "upkeep_failures": brain.upkeep.failures,
            "effector_failures": brain.effector.failures,
            "guard_failures": self._guard.failures,
            "audit": None
            if audit is None
            else {"written": audit.written, "missing": audit.dropped + audit.lost, "failing": audit.failing},
            "telemetry": None if sent is None else {"sent": sent.sent, "dropped": sent.dropped},
        }

    def write(self) -> None:
        """Write the file, where there is a folder; one that can't be written is as good as none."""
        if self._folder is None:
            return
        with suppress(CloisterError, OSError):
            path = _file(self._folder)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            # Names of hosts and folders are for the operator's eyes, in the owner's file alone.
            write_atomic(path, canonicalize({**self.now(), "new_targets": self._new_targets()}))

    def remove(self) -> None:
        """Remove the file, where that can be done: the process is watched no more."""
        if self._folder is not None:
            with suppress(OSError):
                _file(self._folder).unlink()

    def _function(self, name: str, cell: Cell) -> JSON:
        brain, now = self._brain, self._monotonic()
        summary, gates = cell.detector.summary(), self._gates(name)
        state = brain.effector.present(name, cell.standing, now)
        return {
            "stage": state.stage.value,
            "stage_seconds_left": round(max(0.0, state.since + state.seconds - now), 1)
            if state.stage in (Stage.CONTAIN, Stage.HALF_OPEN)
            else None,
            "approval": brain.anchors.standing(name).value,
            "egress": self._guard.mode(name).value,
            "enforcing": cell.rules.enforcing,
            "learned": cell.detector.learned,
            "calls": sum(one.calls for one in gates),
            "errors": sum(one.errors for one in gates),
            "median_ms": None if summary is None else round(1000 * summary.p50, 6),
            "p99_ms": None if summary is None else round(1000 * summary.p99, 6),
            "decisions": {action.value: cell.decisions[action] for action in Action},
            "observed_rates": observed_rates(cell.detector),
        }

    def _new_targets(self) -> dict[str, JSON]:
        return {
            name: [
                {
                    "id": one.target_id,
                    "operation": one.operation.value,
                    "target": one.target,
                    "times": one.times,
                }
                for one in found[:_SHOWN_TARGETS]
            ]
            for name in self._brain.cells()
            if (found := self._guard.news(name))
        }


def _file(folder: Path) -> Path:
    return folder / PROCESSES / f"{os.getpid()}.json"
