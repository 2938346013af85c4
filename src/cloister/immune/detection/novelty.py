"""How unusual a name is among the names seen: which code calls a function, what it reaches for.

Rules this module keeps:

* A name that was never seen has the probability that the next name is new: (new names so far + 0.1) over
  (events + 1), counted after the first 100 events, in which every name is new. A tenth of a name is assumed
  beforehand, since code gains callers when it is changed, not at random.
* A name that was seen has the probability of all names that are as rare or rarer; half of its own share
  counts (mid-p).
* At most 64 names are kept; where another comes, the rarest gives way.
* Older events count less, as in the tail tables.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Final

from cloister.immune.detection import state

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

MOST_NAMES: Final = 64
FIRST_EVENTS: Final = 100
ASSUMED_NEW: Final = 0.1
MOST_EVENTS: Final = 1e15


class Novelty:
    """Decayed counts of names, and the surprise of each; weights and refits as of `TailTable`."""

    __slots__ = ("_counts", "_new", "_new_surprise", "_seen", "_surprises")

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}
        self._surprises: dict[str, float] = {}
        self._new: float = 0.0
        self._new_surprise: float = 0.0
        self._seen: int = 0

    @property
    def seen(self) -> int:
        """Events learned so far."""
        return self._seen

    def knows(self, name: str) -> bool:
        """Whether this name was learned and is still remembered."""
        return name[: state.LONGEST_NAME] in self._counts

    def surprise(self, name: str) -> float:
        """-ln of the probability of a name as unusual as this one; 0 before the first `refit`."""
        if len(name) > state.LONGEST_NAME:
            name = name[: state.LONGEST_NAME]
        return self._surprises.get(name, self._new_surprise)

    def learn(self, name: str, added: float) -> bool:
        """Count an event.

        Args:
            name: cut to 200 characters.
            added: its weight: the unit for an ordinary event, less for one that is to change little.

        Returns:
            Whether the name is new, so that a refit is due soon.
        """
        self._seen += 1
        known = self._counts.get(name)
        if known is not None:
            self._counts[name] = known + added
            return False
        name = name[: state.LONGEST_NAME]
        known = self._counts.get(name, 0.0)
        if not known:
            if self._seen > FIRST_EVENTS:
                self._new += added
            if len(self._counts) >= MOST_NAMES:
                del self._counts[min(self._counts, key=self._counts.__getitem__)]
        self._counts[name] = known + added
        return not known

    def meet(self, name: str, added: float, most: float) -> bool:
        """Count a name that somebody looked for: it says nothing of how often new ones come.

        Args:
            name: cut to 200 characters.
            added: weight of the event.
            most: what a name may weigh that chance didn't come to. None gives way to it.

        Returns:
            Whether it was counted, so that a refit is due.
        """
        name = name[: state.LONGEST_NAME]
        known = self._counts.get(name, 0.0)
        if known >= most or (not known and len(self._counts) >= MOST_NAMES):
            return False
        self._counts[name] = known + added
        return True

    def refit(self, unit: float) -> None:
        """Make the surprises of all names anew from the counts.

        Args:
            unit: weight of an ordinary event of now.
        """
        if not self._counts:
            return
        total = sum(self._counts.values())
        scale, half = 1.0 / (total + unit), 0.5 * unit
        highest = -log(min((self._new + ASSUMED_NEW * unit) * scale, 1.0))
        self._new_surprise = highest
        found: dict[str, float] = {}
        rarer = 0.0
        for name, count in sorted(self._counts.items(), key=_by_count):
            highest = min(highest, -log((rarer + 0.5 * count + half) * scale))
            found[name] = highest
            rarer += count
        self._surprises = found

    def rescale(self, scale: float) -> None:
        """Multiply all weights."""
        self._counts = {name: count * scale for name, count in self._counts.items()}
        self._new *= scale

    def as_json(self) -> dict[str, JSON]:
        """The counts."""
        names: dict[str, JSON] = {}
        names.update(self._counts)
        return {"names": names, "new": self._new, "seen": self._seen}

    @classmethod
    def from_json(cls, value: object) -> Novelty:
        """The counts that `as_json` wrote; the surprises are those of a unit of one.

        Raises:
            ImmuneError: ``immune.baseline_damaged`` where the value isn't one of its documents.
        """
        part = state.members(value, "names", ("names", "new", "seen"))
        names = part["names"]
        if not isinstance(names, dict) or len(names) > MOST_NAMES:
            state.refuse(f"names isn't an object of at most {MOST_NAMES}")
        found = cls()
        for key, count in names.items():
            found._counts[state.name(key, "name")] = state.number(count, "count", 0.0, MOST_EVENTS)
        found._new = state.number(part["new"], "new", 0.0, MOST_EVENTS)
        found._seen = state.whole(part["seen"], "seen", 0, int(MOST_EVENTS))
        found.refit(1.0)
        return found


def _by_count(item: tuple[str, float]) -> tuple[float, str]:
    return item[1], item[0]
