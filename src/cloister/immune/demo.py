"""``pic demo``: a service learns what is ordinary, is attacked, and stops the second attack before it
happens.

All of it is real but the people: HTTP from another process, the operator's acts, the audit, and the usual
defaults but for two things. The containment is shorter (2 seconds), so that its end is seen. And observing
may cost half of the time in place of a fiftieth: the function takes some 20 us, of which less pays for so
few looks, on a machine that has much else to do, that an attack of 300 requests may be over before one.

Nothing here waits for a number of requests that was good on some machine: it waits for what blocking needs.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.immune.acting.containment import Stage
from cloister.immune.demo_client import Answer, Client
from cloister.immune.demo_service import FUNCTION, RECORDS, Records, running
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import Standing
from cloister.immune.keeping.validation import is_eligible
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from cloister.immune.settings import EffectorSettings, ImmuneSettings, StorageSettings

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

_LEARNED: Final = 300
"""Calls: more than blocking needs, so that they are of some seconds."""
_PATIENCE: Final = 12.0
_MOST_SECONDS: Final = 120.0
_CONTAIN_SECONDS: Final = 2.0
_BATCH: Final = 25
_ATTACK: Final = 300
_TAKEN_AT_ONCE: Final = 400
_PAUSE: Final = 0.02
_FREE: Final = frozenset({Stage.OBSERVE, Stage.RELEASE})


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One step of the demo.

    Attributes:
        name: what it is.
        text: what was seen, in a few sentences.
        facts: the same as numbers.
    """

    name: str
    text: tuple[str, ...]
    facts: dict[str, JSON]


STEPS: Final = ("learn", "first attack", "promote", "recover", "second attack", "recover", "explain", "audit")
"""The names of the steps, in their order."""


def demonstrate(folder: Path, seed: int) -> Iterator[DemoStep]:
    """Run the demo.

    Args:
        folder: an empty one; state and audit are kept there.
        seed: of the people, the ordinary requests and the attack.

    Yields:
        Each step of `STEPS` when it is over.

    Raises:
        ImmuneError: ``immune.demo_failed``: a step took too long on this machine.
    """
    settings = ImmuneSettings(
        effector=EffectorSettings(enforcing=(FUNCTION,), contain_seconds=_CONTAIN_SECONDS),
        storage=StorageSettings(directory=str(folder)),
    )
    chance = random.Random(seed)  # noqa: S311 - which made-up person is asked for
    with (
        Protection(settings).start() as protection,
        Operator(folder, "demo") as operator,
        running(Records(seed)) as port,
        Client(port) as client,
    ):
        play = _Play(protection, operator, client, chance)
        yield play.learn()
        yield play.attack("first attack")
        yield play.promote()
        yield play.recover()
        yield play.attack("second attack")
        yield play.recover()
        stopped = play.stopped
    with Operator(folder, "demo") as operator:
        verdict = operator.export(folder / "decisions.jsonl")
    yield _explained(folder / "decisions.jsonl", stopped)
    word = "verifies" if verdict.accepted else "does NOT verify"
    yield DemoStep(
        "audit",
        (f"{verdict.entries:,} entries, signed and chained: the audit {word}.",),
        {"entries": verdict.entries, "accepted": verdict.accepted},
    )


class _Play:
    def __init__(
        self, protection: Protection, operator: Operator, client: Client, chance: random.Random
    ) -> None:
        self._protection, self._operator, self._client, self._chance = protection, operator, client, chance
        self._cell = protection.brain.cell(FUNCTION)
        self._known = 0
        self.stopped: Answer | None = None

    def learn(self) -> DemoStep:
        """Ordinary requests, until the function is known well enough to be blocked and suspected of nothing.

        A machine that gets slower can make it suspected of being slow. Its calls aren't ordinary meanwhile;
        those before and after may be flagged; and a candidate is tried on a hundred ordinary ones.
        """
        began, approvals = time.perf_counter(), 0
        brain, detector = self._protection.brain, self._cell.detector
        anchors = brain.anchors

        def ready() -> bool:
            nonlocal approvals
            standing = anchors.standing(FUNCTION)
            if standing in (Standing.UNAPPROVED, Standing.DRIFTED):
                self._operator.approve(FUNCTION)
                anchors.refresh(FUNCTION)
                approvals += 1
            return (
                standing is Standing.APPROVED
                and detector.learned >= _LEARNED
                and brain.effector.state(FUNCTION).stage in _FREE
                and is_eligible(*self._cell.flagged())
            )

        requests = len(self._until(ready, self._ordinary))
        summary = detector.summary()
        seconds, median = time.perf_counter() - began, 0.0 if summary is None else 1000 * summary.p50
        self._known = len(self._operator.detectors())
        again = (
            f" What it takes drifted meanwhile, and was approved again: {approvals} approvals."
            if approvals > 1
            else ""
        )
        return DemoStep(
            "learn",
            (
                f"{requests:,} ordinary requests over HTTP for 1 to 5 records each; {detector.learned} of the"
                f" calls were looked at. {FUNCTION} takes {median:.3f} ms in the median.",
                f"The operator approves that as normal, and the baseline is signed.{again}",
            ),
            {
                "requests": requests,
                "learned": detector.learned,
                "median_ms": median,
                "approvals": approvals,
                "seconds": seconds,
            },
        )

    def attack(self, name: str) -> DemoStep:
        """Somebody copies the table, hundreds of records at a time."""
        answers: list[Answer] = []
        while len(answers) < _ATTACK:
            starts = [self._chance.randrange(RECORDS - _TAKEN_AT_ONCE) for _ in range(_BATCH)]
            answers += self._client.ask([range(start, start + _TAKEN_AT_ONCE) for start in starts])
        stopped = [one for one in answers if one.reason]
        read = sum(one.records for one in answers)
        if stopped:
            self.stopped = stopped[0]
            text: tuple[str, ...] = (
                "The same again. What is blocked is decided on before the call runs: nothing is read.",
            )
        elif name == "second attack":
            text = (
                "The same again, and nothing was blocked: it was over before enough calls were looked at.",
            )
        else:
            text = (
                f"Somebody copies the table, {_TAKEN_AT_ONCE} records at a time. It is seen and marked;"
                " nothing is blocked before a person has said so.",
            )
        return DemoStep(
            name,
            text,
            {
                "requests": len(answers),
                "blocked": len(stopped),
                "records_read": read,
                "reason": stopped[0].reason if stopped else "",
            },
        )

    def promote(self) -> DemoStep:
        """The operator promotes what names the attack, where it passed on the calls before it."""
        made = sorted(self._operator.detectors(), key=lambda one: one.id)[self._known :]
        passed = [
            one
            for one in made
            if one.verdict is not None and one.verdict.passed and one.provenance.startswith("size")
        ]
        for one in passed:
            self._operator.promote(one.id)
        candidates: list[JSON] = [
            {
                "id": one.id,
                "made_by": one.provenance,
                "verdict": "not validated" if one.verdict is None else one.verdict.reason,
                "promoted": one in passed,
            }
            for one in made
        ]
        return DemoStep(
            "promote",
            (
                "The attack made these candidates. The operator promotes what names it, the size of what was"
                " asked for; it passed on the last 100 ordinary calls.",
            ),
            {"candidates": candidates, "promoted": [one.id for one in passed]},
        )

    def recover(self) -> DemoStep:
        """Ordinary requests go on; the containment ends by itself, probes first."""
        began = time.perf_counter()
        effector = self._protection.brain.effector
        newest: deque[int] = deque(maxlen=_BATCH)

        def free() -> bool:
            # On a machine whose load changes, a function can be suspected of being slow, and answer all.
            answering = newest.count(HTTPStatus.OK) == _BATCH and time.perf_counter() - began > _PATIENCE
            return answering or effector.state(FUNCTION).stage in _FREE

        def a_few() -> list[Answer]:
            time.sleep(_PAUSE)
            answers = self._ordinary(5)
            newest.extend(one.status for one in answers)
            return answers

        answers = self._until(free, a_few)
        seconds = time.perf_counter() - began
        refused = sum(one.status != HTTPStatus.OK for one in answers)
        text = (
            f"While the function is contained, ordinary requests are refused as well: {refused} of"
            f" {len(answers)}. After {seconds:.1f} s the probes that are let in have freed it."
            if refused
            else f"Ordinary requests go on, and none is refused: after {seconds:.1f} s nothing is suspected."
        )
        return DemoStep(
            "recover",
            (text,),
            {"requests": len(answers), "refused": refused, "seconds": seconds},
        )

    def _ordinary(self, count: int = _BATCH) -> list[Answer]:
        chance = self._chance
        return self._client.ask(
            [[chance.randrange(RECORDS) for _ in range(chance.randint(1, 5))] for _ in range(count)]
        )

    def _until(self, holds: Callable[[], bool], act: Callable[[], Sequence[Answer]]) -> list[Answer]:
        answers: list[Answer] = []
        until = time.monotonic() + _MOST_SECONDS
        while not holds():
            if time.monotonic() > until:
                state = self._protection.brain.effector.state(FUNCTION).stage.value
                standing = self._protection.brain.anchors.standing(FUNCTION).value
                raise ImmuneError(
                    "immune.demo_failed",
                    f"After {_MOST_SECONDS:.0f} s {FUNCTION} is still {standing}, in {state}, with"
                    f" {self._cell.detector.learned} calls learned: this machine is busy.",
                    "Try again when less runs on it.",
                )
            answers += act()
        return answers


def _explained(exported: Path, stopped: Answer | None) -> DemoStep:
    """The audit's entry of the first call that was blocked."""
    if stopped is None:
        return DemoStep("explain", ("No call was blocked, so there is none to explain.",), {})
    lines = exported.read_text().splitlines()
    (entry,) = [one for one in map(json.loads, lines) if one["event_id"] == stopped.event]
    return DemoStep(
        "explain",
        ("The answer of each blocked request names its entry in the audit, which says why.",),
        {"entry": entry},
    )
