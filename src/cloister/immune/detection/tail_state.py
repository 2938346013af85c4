"""What a tail detector has learned: its tables, levels and counts, and their form as JSON.

How calls are judged by it and teach it is in `cloister.immune.detection.tail_detector`. Rules kept here:

* What is read is as strict as `cloister.immune.detection.state`: nothing damaged becomes a baseline.
* A detector that was written and read judges and learns as the one that wrote itself would have.
"""

from __future__ import annotations

from math import isnan, log, nan
from typing import TYPE_CHECKING, Final, Self

from cloister.immune.detection import state
from cloister.immune.detection.detector import DetectorSettings
from cloister.immune.detection.features import FEATURES, LONGEST, Traffic
from cloister.immune.detection.learning_weight import MOST, LearningWeight
from cloister.immune.detection.level import Level
from cloister.immune.detection.novelty import Novelty
from cloister.immune.detection.score import Calibration, Combination
from cloister.immune.detection.tail_table import MOST_EVENTS, MOST_SURPRISE, TailTable
from cloister.immune.observation import Entered, Observed

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

KIND: Final = "tail"
LEVEL_SPEED: Final = 1.0 / 64.0
LEAST_RUN: Final = 1e-3
MOST_BETWEEN_REFITS: Final = 40
PARTS: Final = 7
"""The tables and the callers, which are brought up to date in turns."""
_MEMBERS: Final = (
    "allowance", "calibration", "callers", "calls", "combination", "combined", "duration", "egress", "errors",
    "errors_table", "first", "kind", "learned", "left", "level", "mean", "present", "present_size", "rate",
    "rate_level", "run", "run_table", "size", "size_middle", "squares", "started", "traffic", "turn",
    "weight",
)  # fmt: skip


class TailState:
    """What was learned of one function.

    Args:
        settings: alpha, half-life and how much is learned before anything is judged.

    Attributes:
        settings: as given.
        calibration: observed against promised shares of rare calls.
    """

    __slots__ = (
        "_callers", "_callers_due", "_calls", "_caution", "_combination", "_combined", "_duration",
        "_egress", "_errors", "_fade", "_failed", "_first", "_judged", "_keep", "_learned", "_left",
        "_level", "_log_duration", "_mean", "_next_run", "_of_caller", "_of_rate", "_of_size",
        "_present", "_present_size", "_rate", "_rate_level", "_read_of", "_run", "_run_table",
        "_size", "_size_middle", "_squares", "_started", "_traffic", "_turn", "_unit", "_weight",
        "calibration", "settings",
    )  # fmt: skip

    def __init__(self, settings: DetectorSettings | None = None) -> None:
        self.settings: DetectorSettings = settings or DetectorSettings()
        self.calibration: Calibration = Calibration(self.settings.alpha, int(4 * self.settings.half_life))
        self._duration: TailTable = TailTable()
        self._run_table: TailTable = TailTable()
        self._size: TailTable = TailTable()
        self._rate: TailTable = TailTable()
        self._errors: TailTable = TailTable()
        self._callers: Novelty = Novelty()
        self._egress: Novelty = Novelty()
        self._combination: Combination = Combination(len(FEATURES), TailTable())
        self._traffic: Traffic = Traffic()
        self._caution: LearningWeight = LearningWeight()
        self._level: Level | None = None
        self._rate_level: Level | None = None
        self._present: float = nan
        self._present_size: float = nan
        self._size_middle: float = 0.0
        self._run: float = 1.0

        self._unit: float = 1.0
        self._fade: float = log(2.0) / self.settings.half_life
        self._keep: float = 1.0 - self._fade
        self._left: int = 1
        self._turn: int = 0
        self._callers_due: int = -1

        self._first: list[tuple[float, float, float]] = []
        self._started: float = nan
        self._learned: int = 0
        self._calls: int = 0
        self._failed: int = 0
        self._weight: float = 0.0
        self._mean: float = 0.0
        self._squares: float = 0.0

        self._read_of: Entered | None = None
        self._judged: Observed | None = None
        self._log_duration: float = nan
        self._next_run: float = 1.0
        self._combined: float = 0.0
        self._of_size: float = 0.0
        self._of_rate: float = 0.0
        self._of_caller: float = 0.0

    def _tables(self) -> tuple[TailTable, TailTable, TailTable, TailTable, TailTable, TailTable]:
        return (
            self._duration,
            self._run_table,
            self._size,
            self._rate,
            self._errors,
            self._combination.table,
        )

    def _rescale(self) -> None:
        """Let an event of now weigh one."""
        scale = 1.0 / self._unit
        for table in self._tables():
            table.rescale(scale)
        self._callers.rescale(scale)
        self._egress.rescale(scale)
        self._unit = 1.0

    def as_json(self) -> dict[str, JSON]:
        """All that was learned. Brings all tables up to date first."""
        self._rescale()
        for table in self._tables():
            table.refit(1.0)
        self._callers.refit(1.0)
        self._egress.refit(1.0)
        self._callers_due = -1
        first: list[JSON] = []
        for duration, size, rate in self._first:
            known: JSON = None if isnan(rate) else rate
            first.append([duration, size, known])
        started: JSON = None if isnan(self._started) else self._started
        judging = self._level is not None
        return {
            "allowance": [self._caution.allowance, self._caution.since],
            "calibration": self.calibration.as_json(),
            "callers": self._callers.as_json(),
            "calls": min(self._calls, state.MOST_WHOLE),
            "combination": self._combination.table.as_json(),
            "combined": self._combination.seen,
            "duration": self._duration.as_json(),
            "egress": self._egress.as_json(),
            "errors": min(self._failed, self._calls, state.MOST_WHOLE),
            "errors_table": self._errors.as_json(),
            "first": first,
            "kind": KIND,
            "learned": self._learned,
            "left": self._left,
            "level": self._level.as_json() if self._level else None,
            "mean": self._mean,
            "present": self._present if judging else None,
            "present_size": self._present_size if judging else None,
            "rate": self._rate.as_json(),
            "rate_level": self._rate_level.as_json() if self._rate_level else None,
            "run": self._run,
            "run_table": self._run_table.as_json(),
            "size": self._size.as_json(),
            "size_middle": self._size_middle,
            "squares": self._squares,
            "started": started,
            "traffic": self._traffic.as_json(),
            "turn": self._turn,
            "weight": self._weight,
        }

    @classmethod
    def from_json(cls, value: object, settings: DetectorSettings | None = None) -> Self:
        """The detector that `as_json` wrote: it judges and learns as that one would have.

        Args:
            value: the document.
            settings: as of now; where alpha isn't the document's, the observed shares start anew.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(value, "detector", _MEMBERS)
        if part["kind"] != KIND:
            state.refuse("it is of another kind of detector")
        found = cls(settings)
        found._duration = TailTable.from_json(part["duration"])
        found._run_table = TailTable.from_json(part["run_table"])
        found._size = TailTable.from_json(part["size"])
        found._rate = TailTable.from_json(part["rate"])
        found._errors = TailTable.from_json(part["errors_table"])
        found._callers = Novelty.from_json(part["callers"])
        found._egress = Novelty.from_json(part["egress"])
        found._traffic = Traffic.from_json(part["traffic"])
        found._level = _level(part["level"], LEVEL_SPEED)
        found._rate_level = _level(part["rate_level"], LEVEL_SPEED)
        if found._level is not None:
            found._present = state.number(part["present"], "present", -1e3, 1e3)
            found._present_size = state.number(part["present_size"], "present_size", 0.0, 1e3)
        elif part["present"] is not None or part["present_size"] is not None:
            state.refuse("it has a level and has none")
        found._read_numbers(part)
        found._read_first(part)
        if found._level is not None and found._first:
            state.refuse("it judges and doesn't")
        return found

    def _read_numbers(self, part: state.Members) -> None:
        self._learned = state.whole(part["learned"], "learned", 0, int(MOST_EVENTS))
        self._calls = state.whole(part["calls"], "calls", 0, state.MOST_WHOLE)
        self._failed = state.whole(part["errors"], "errors", 0, self._calls)
        self._run = state.number(part["run"], "run", LEAST_RUN, MOST_SURPRISE)
        self._size_middle = state.number(part["size_middle"], "size_middle", 0.0, 1e3)
        self._weight = state.number(part["weight"], "weight", 0.0, MOST_EVENTS)
        self._mean = state.number(part["mean"], "mean", 0.0, LONGEST)
        self._squares = state.number(part["squares"], "squares", 0.0, LONGEST * LONGEST * MOST_EVENTS)
        self._left = state.whole(part["left"], "left", 0, MOST_BETWEEN_REFITS)
        self._turn = state.whole(part["turn"], "turn", 0, PARTS - 1)
        allowance = part["allowance"]
        if not isinstance(allowance, list) or len(allowance) != 2:
            state.refuse("allowance isn't two numbers")
        self._caution = LearningWeight(
            state.number(allowance[0], "allowance", 0.0, MOST),
            state.whole(allowance[1], "since", 0, self._learned),
        )
        self._combination = Combination(
            len(FEATURES),
            TailTable.from_json(part["combination"]),
            state.whole(part["combined"], "combined", 0, self._learned),
        )
        self.calibration = Calibration.from_json(
            part["calibration"], self.settings.alpha, int(4 * self.settings.half_life)
        )

    def _read_first(self, part: state.Members) -> None:
        if part["started"] is not None:
            self._started = state.number(part["started"], "started", -1e15, 1e15)
        first = part["first"]
        if not isinstance(first, list) or len(first) > self.settings.min_samples:
            state.refuse("first isn't a list of at most the samples that are learned at first")
        for item in first:
            if not isinstance(item, list) or len(item) != 3:
                state.refuse("one of the first calls isn't three numbers")
            duration, size, rate = item
            self._first.append(
                (
                    state.number(duration, "duration", -1e3, 1e3),
                    state.number(size, "size", 0.0, 1e3),
                    nan if rate is None else state.number(rate, "rate", -1e3, 1e3),
                )
            )


def _level(value: object, speed: float) -> Level | None:
    return None if value is None else Level.from_json(value, speed)
