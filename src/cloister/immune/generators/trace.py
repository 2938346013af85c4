"""Traces with attacks in them, and how they are cut into the sessions that detection is counted by.

Between attacks a function has its ordinary traffic. A session is 50 ordinary calls in a row, or one whole
episode: a run of calls with the same label. A detector finds an episode by flagging any call of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.generators.attacks import SPIKE_PATTERNS, deviations
from cloister.immune.generators.calls import BENIGN, Pattern, TracedCall
from cloister.immune.generators.draws import Draws
from cloister.immune.generators.ordinary import Shape, Traffic, make_traffic

SESSION_CALLS: Final = 50
SAMPLE_SEED: Final = 2026
_LEAST_SLOT: Final = 20


@dataclass(frozen=True, slots=True)
class Session:
    """Calls that are judged together.

    Attributes:
        pattern: benign, or the attack.
        first: index of its first call in the trace.
        end: index after its last.
        aftermath: whether its calls are ordinary and come right after an attack. What is flagged among them
            may still be evidence of the attack, so they count neither way.
    """

    pattern: Pattern
    first: int
    end: int
    aftermath: bool = False


def attacked_trace(
    seed: int,
    count: int = 6000,
    *,
    patterns: Sequence[Pattern] = SPIKE_PATTERNS,
    times: int = 2,
    warm_up: int = 1500,
    strength: float = 1.0,
    shape: Shape | None = None,
) -> tuple[TracedCall, ...]:
    """Ordinary traffic of one function with episodes of attacks in it.

    Args:
        seed: decides everything.
        count: ordinary calls; those of the attacks come on top.
        patterns: the attacks.
        times: episodes of each.
        warm_up: ordinary calls before the first episode.
        strength: of the attacks, as `deviations` takes it.
        shape: of the durations; any without it.

    Returns:
        The calls, in order of time.

    Raises:
        ImmuneError: ``immune.generator_invalid``; so many episodes don't fit, or a number is out of range.
    """
    episodes = len(patterns) * times
    if warm_up < 0 or times < 1 or count - warm_up < _LEAST_SLOT * max(episodes, 1):
        raise ImmuneError(
            "immune.generator_invalid",
            f"After its beginning a trace needs {_LEAST_SLOT} ordinary calls for each episode.",
        )
    plan = Draws(f"{seed}/plan")
    order = sorted((plan.uniform(), pattern) for pattern in patterns for _ in range(times))
    slot = (count - warm_up) / max(episodes, 1)
    starts = [warm_up + int(slot * (k + plan.uniform(0.1, 0.6))) for k in range(episodes)]
    traffic = make_traffic(seed, count, shape=shape)
    calls: list[TracedCall] = []
    done = 0
    for number, (start, (_, pattern)) in enumerate(zip(starts, order, strict=True)):
        calls += [traffic.call() for _ in range(start - done)]
        calls += _attack(traffic, pattern, Draws(f"{seed}/episode/{number}"), strength)
        done = start
    calls += [traffic.call() for _ in range(count - done)]
    return tuple(calls)


def episode(seed: int, pattern: Pattern, *, strength: float = 1.0) -> tuple[TracedCall, ...]:
    """One episode of an attack alone, against the function of this seed.

    Args:
        seed: decides everything; `ordinary_calls` of the same seed is the same function.
        pattern: the attack.
        strength: as `deviations` takes it.

    Returns:
        Its calls, all labelled with the pattern.

    Raises:
        ImmuneError: ``immune.generator_invalid``; no attack, or a strength out of range.
    """
    return tuple(_attack(make_traffic(seed, 1000), pattern, Draws(f"{seed}/episode/0"), strength))


def _attack(traffic: Traffic, pattern: Pattern, draws: Draws, strength: float) -> list[TracedCall]:
    return [traffic.call(pattern, one) for one in deviations(pattern, draws, strength)]


def sessions(calls: Sequence[TracedCall], warm_up: int = 0) -> tuple[Session, ...]:
    """Cut a trace into sessions.

    Args:
        calls: of a trace.
        warm_up: calls at its beginning that no session takes in.

    Returns:
        Every 50 ordinary calls in a row, counted from the end of the attack before, and every episode. Fewer
        than 50 ordinary calls before an attack or the trace's end are in no session.
    """
    found: list[Session] = []
    first = 0
    for pattern, run in groupby(calls, key=lambda call: call.label):
        end = first + sum(1 for _ in run)
        if pattern is not BENIGN:
            if first >= warm_up:
                found.append(Session(pattern, first, end))
        else:
            begin = max(first, warm_up)
            found += [
                Session(BENIGN, at, at + SESSION_CALLS, aftermath=at == first > 0)
                for at in range(begin, end - SESSION_CALLS + 1, SESSION_CALLS)
            ]
        first = end
    return tuple(found)


def sample_trace() -> tuple[TracedCall, ...]:
    """The trace that ships as ``sample.jsonl``: 500 ordinary calls, and an episode of each of five."""
    return attacked_trace(SAMPLE_SEED, 500, times=1, warm_up=300)
