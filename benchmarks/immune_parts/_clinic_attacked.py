"""What a protection flags of ordinary requests to the clinic's service, and of attacks on it."""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from cloister.immune.observation import Observed, Score
from cloister.immune.protection import Protection
from immune_parts._clinic import FUNCTIONS, application
from immune_parts._clinic_traffic import ATTACKS, Asked, ask, attack, ordinary
from immune_parts._clinic_watched import Clock, clinic_folder, ours, settings_of

LEARNED, BETWEEN, SESSION = 8000, 250, 50
"""Requests before anything counts, between two attacks, and of a session."""
PACE = 0.004
"""Mean seconds between two ordinary requests, at the mean hour of the day."""
DAY = 20.0
"""Seconds of the clinic's day: requests come 40 % more and less often over it."""


def attacks(sampling: str, share: float, clock: Clock, seed: int) -> dict[str, Any]:
    """One service that learns, and is attacked once in each way; its sessions.

    Args:
        sampling: of ours.
        share: of the full size.
        clock: that calls are dated by and requests wait for.
        seed: of all requests.

    Returns:
        Of ordinary sessions, of those after attacks and of each attack: how rare its rarest call was (-ln p),
        and whether any was flagged; and what there is to explain them.
    """
    with (
        clinic_folder() as folder,
        tempfile.TemporaryDirectory() as elsewhere,
        Protection(settings_of(sampling, folder), monotonic=clock).start() as protection,
    ):
        app = application(folder, ours)
        listener = _Listener(protection, protection.settings.anomaly.alpha)
        arrivals = _Arrivals(clock, random.Random(f"{seed}/arrivals"))
        found = asyncio.run(_attacked(app, Path(elsewhere), listener, arrivals, share, seed))
        functions: Any = protection.status()["functions"]
    found["functions"] = {
        name.partition(":")[2]: {
            "calls": one["calls"],
            "median_us": 1000 * (one["median_ms"] or 0.0),
            "judged": listener.judged[name.partition(":")[2]],
        }
        for name, one in functions.items()
    }
    return found


async def _attacked(
    app: Any, elsewhere: Path, listener: _Listener, arrivals: _Arrivals, share: float, seed: int
) -> dict[str, Any]:
    chance = random.Random(seed)
    ordinary_sessions: list[tuple[float, bool]] = []
    after: list[tuple[float, bool]] = []
    requests = marked = 0
    hostile: dict[str, tuple[float, bool]] = {}
    false_by: Counter[str] = Counter()
    true_by: dict[str, dict[str, int]] = {}

    async def session() -> tuple[tuple[float, bool], int]:
        told = []
        for _ in range(SESSION):
            await arrivals.answer(app, ordinary(chance))
            told.append(listener.ask())
        flags = [flag for _, flag in told]
        return (max(rarest for rarest, _ in told), any(flags)), sum(flags)

    for _ in range(max(100, round(LEARNED * share))):
        await arrivals.answer(app, ordinary(chance))
    listener.ask()
    for name in chance.sample(ATTACKS, len(ATTACKS)):
        after.append((await session())[0])
        listener.by_feature.clear()
        for _ in range(BETWEEN // SESSION - 1):
            told, flags = await session()
            ordinary_sessions.append(told)
            requests, marked = requests + SESSION, marked + flags
        false_by += listener.by_feature
        listener.by_feature.clear()
        for asked in attack(name, chance, elsewhere):
            await arrivals.answer(app, asked)
        hostile[name] = listener.ask()
        true_by[name] = dict(listener.by_feature)
    return {
        "ordinary": ordinary_sessions,
        # What came before the first attack isn't after one.
        "after": after[1:],
        "attacks": hostile,
        "requests": requests,
        "flagged requests": marked,
        "false flags": dict(false_by),
        "true flags": true_by,
    }


class _Listener:
    """Hears every score that a protection gives, and notes the rarest until it is asked."""

    def __init__(self, protection: Protection, alpha: float) -> None:
        self.rarest, self.flagged = 0.0, False
        self.by_feature: Counter[str] = Counter()
        self.judged: Counter[str] = Counter()
        self._alpha = alpha
        for name in FUNCTIONS:
            cell = protection.brain.cell(f"clinic:{name}")
            cell.detector = _Heard(cell.detector, name, self)  # type: ignore[assignment]
            self._reached(cell, name)

    def _reached(self, cell: Any, name: str) -> None:
        reached = cell.reached

        def heard(operation: str, score: Score) -> None:
            self.hear(name, score)
            reached(operation, score)

        cell.reached = heard

    def hear(self, function: str, score: Score) -> None:
        """A call was judged."""
        self.judged[function] += 1
        self.rarest = max(self.rarest, -math.log(max(score.p, 1e-300)))
        if score.p < self._alpha:
            self.flagged = True
            self.by_feature[score.feature] += 1

    def ask(self) -> tuple[float, bool]:
        """The rarest since this was last asked, and whether anything was flagged."""
        told = self.rarest, self.flagged
        self.rarest, self.flagged = 0.0, False
        return told


class _Heard:
    """A detector that tells what it says."""

    def __init__(self, detector: Any, function: str, listener: _Listener) -> None:
        self._detector, self._function, self._listener = detector, function, listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def score(self, observed: Observed) -> Score:
        score: Score = self._detector.score(observed)
        if self._detector.judging:
            self._listener.hear(self._function, score)
        return score


class _Arrivals:
    """When requests come: at random, more often by day than by night."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock, self._chance = clock, chance

    async def answer(self, app: Any, asked: Asked) -> None:
        """Let a request come when it does, or at once where it is a hasty one."""
        hour = math.sin(2 * math.pi * self._clock() / DAY)
        pause = 0.0 if asked.hasty else self._chance.expovariate(1.0) * PACE / (1.0 + 0.4 * hour)
        await self._clock.wait(pause)
        await ask(app, asked)
        self._clock.stand()
