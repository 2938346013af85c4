"""A function's containment over a restart: what is kept of it, and where it stands when the process is back.

Time goes on while the process is away. A containment that would have ended meanwhile has ended: the function
is then half-open, released or simply observed, as if no call had come. One can only be shorter for a restart,
and its length is never more than the operator's rules give.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cloister.core.errors import CloisterError
from cloister.immune.acting.containment import LONGEST, Containment, Stage
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.stages import CONTAIN, HALF_OPEN, KeptStage, StageKeeper

if TYPE_CHECKING:
    from cloister.immune.acting.effector import Effector, StageChange
    from cloister.immune.cell import Cell
    from cloister.immune.keeping.baseline import BaselineKeeper

_KEPT: Final = frozenset({Stage.CONTAIN, Stage.HALF_OPEN, Stage.RELEASE})


def resumed(kept: KeptStage, since_1970: float, now: float, contain_seconds: float) -> Containment | None:
    """Where a function stands when its process is back.

    Args:
        kept: what was kept.
        since_1970: the present, by the clock of `KeptStage`.
        now: the present, by the clock that calls are dated by.
        contain_seconds: the first containment's length.

    Returns:
        None where everything has ended.
    """
    longest = LONGEST * contain_seconds
    seconds = min(kept.seconds, longest)
    # A clock that went back only begins the present stage anew.
    age = max(0.0, since_1970 - kept.began)
    if kept.stage == CONTAIN:
        if age < seconds:
            return Containment(Stage.CONTAIN, now - age, seconds)
        age -= seconds
    if kept.stage in (CONTAIN, HALF_OPEN):
        if age < seconds:
            return Containment(Stage.HALF_OPEN, now - age, seconds)
        left = 2 * seconds - age
    else:
        left = min(kept.calm_at - since_1970, longest)
    return Containment(Stage.RELEASE, now, seconds, now + left) if left > 0 else None


class StageMemory:
    """Keeps the stages of a brain's functions as they change, and takes them over at its start.

    Args:
        keeper: where they are kept.
        baselines: where what was learned is kept: without it, a contained function would be learned anew.
        effector: whose stages they are.
        contain_seconds: the first containment's length.
        clock: seconds since 1970.
        monotonic: seconds of the clock that calls are dated by.
    """

    def __init__(
        self,
        keeper: StageKeeper,
        baselines: BaselineKeeper,
        effector: Callable[[], Effector],
        contain_seconds: float,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._keeper, self._baselines, self._effector = keeper, baselines, effector
        self._contain_seconds = contain_seconds
        self._clock, self._monotonic = clock, monotonic
        self._due: dict[str, bool] = {}

    def changed(self, change: StageChange, cell: Cell) -> None:
        """Keep a stage that a function came to, durable for a process that is killed the next moment.

        A store that can't be written now is tried again by `keep_what_is_due`.
        """
        if not {change.before, change.after} & _KEPT:
            return
        if change.after is Stage.CONTAIN:
            with suppress(CloisterError):
                self._baselines.save_learned(change.function, cell.learned_state())
        self._due[change.function] = change.by_operator
        self._keep(cell)

    def keep_what_is_due(self, cell: Cell) -> None:
        """Keep the stage of a function whose last change couldn't be kept."""
        if cell.name in self._due:
            self._keep(cell)

    def take_release(self, cell: Cell) -> None:
        """Release a function that an operator released after it was contained here.

        Raises:
            ImmuneError: the store can't be used now.
        """
        state = self._effector().state(cell.name)
        if state.stage not in (Stage.SUSPECT, Stage.CONTAIN, Stage.HALF_OPEN):
            return
        released = self._keeper.released_at(cell.name)
        now = self._monotonic()
        if released is not None and released > state.since + self._clock() - now:
            cell.recognised_by = 0
            self._effector().release(cell.name, now)

    def resume(self, cell: Cell) -> tuple[StateEvent, ...]:
        """Put a function where it stood when its process ended.

        Returns:
            What to write down.

        Raises:
            ImmuneError: the store can't be used now.
        """
        kept, invalid = self._keeper.find(cell.name)
        if kept is None:
            return () if invalid is None else (invalid,)
        state = resumed(kept, self._clock(), self._monotonic(), self._contain_seconds)
        if state is None:
            return ()
        self._effector().resume(cell.name, state)
        cell.resume(kept.detector)
        reason = f"it was {kept.stage} when the process before ended, and is {state.stage.value}"
        return (StateEvent(Happened.STAGE_RESUMED, cell.name, self._clock(), reason, kept.detector),)

    def _keep(self, cell: Cell) -> None:
        state = self._effector().state(cell.name)
        kept: KeptStage | None = None
        if state.stage in _KEPT and state.seconds > 0:
            ahead = self._clock() - self._monotonic()
            calm_at = state.calm_at + ahead if state.stage is Stage.RELEASE else 0.0
            kept = KeptStage(
                cell.name,
                state.stage.value,
                state.since + ahead,
                state.seconds,
                calm_at,
                cell.recognised_by,
                self._keeper.keeper,
            )
        with suppress(CloisterError):
            self._keeper.keep(cell.name, kept, by_operator=self._due.get(cell.name, False))
            self._due.pop(cell.name, None)
