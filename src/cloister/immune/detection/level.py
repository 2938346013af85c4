"""Where a quantity lies at present: a running centre of its logarithm that no single event can move far.

Rules this module keeps:

* An event moves the centre by at most its speed times the spread, however far away it lies (Huber's
  psi function: P. J. Huber, Robust estimation of a location parameter, Annals of Statistics 35, 1964).
* The spread, the mean distance from the centre, takes at most three spreads from one event.
* Constant memory, no history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.immune.detection import state

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

FAR: Final = 1.0
SPREAD_SPEED: Final = 0.125
"""The spread follows eight times slower than the centre, so that neither swings with the other."""
LEAST_SPREAD: Final = 0.02
"""Two percent: also a quantity that never varied can come to lie elsewhere."""
FARTHEST: Final = 1e3


class Level:
    """A robust running centre.

    Args:
        centre: where it lies at first, as a logarithm.
        spread: mean distance from it.
        speed: share of a step that is taken, 0 to 1.
    """

    __slots__ = ("centre", "speed", "spread")

    def __init__(self, centre: float = 0.0, spread: float = LEAST_SPREAD, speed: float = 1.0) -> None:
        self.centre: float = centre
        self.spread: float = max(spread, LEAST_SPREAD)
        self.speed: float = speed

    def learn(self, value: float, weight: float) -> None:
        """Step towards a value.

        Args:
            value: the quantity's logarithm.
            weight: 1 for an ordinary event, less for one that is to change little.
        """
        spread = self.spread
        rate = self.speed * weight
        far = FAR * spread
        step = value - self.centre
        away = step if step > 0.0 else -step
        if away <= far:
            self.centre += rate * step
        else:
            self.centre += rate * far if step > 0.0 else -rate * far
            away = min(away, 3.0 * spread)
        spread += SPREAD_SPEED * rate * (away - spread)
        self.spread = spread if spread > LEAST_SPREAD else LEAST_SPREAD

    def as_json(self) -> dict[str, JSON]:
        """Its centre and spread."""
        return {"centre": self.centre, "spread": self.spread}

    @classmethod
    def from_json(cls, value: object, speed: float) -> Level:
        """The level that `as_json` wrote.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(value, "level", ("centre", "spread"))
        return cls(
            state.number(part["centre"], "centre", -FARTHEST, FARTHEST),
            state.number(part["spread"], "spread", LEAST_SPREAD, FARTHEST),
            speed,
        )


def centre_of(values: list[float], speed: float) -> Level:
    """The level of some first values: their median, and the median of their distances from it.

    Args:
        values: at least one, as logarithms.
        speed: as of `Level`.
    """
    centre = median(values)
    return Level(centre, median([abs(value - centre) for value in values]), speed)


def median(values: list[float]) -> float:
    """The middle value; of an even number, the mean of the two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])
