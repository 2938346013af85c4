"""Ten kinds of attack, as what each call of an episode does differently from an ordinary one.

The first five are those that every description of runtime protection starts from, the second five what an
intruder does to a function: read out in a loop, overlong arguments, hammering, probing for errors, calling
from where nobody called before. In ``burst`` nine calls of ten, and in ``oscillating`` every second, are
ordinary: no detector finds those calls one by one, and so detection is counted per episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.generators.calls import Pattern
from cloister.immune.generators.draws import Draws


@dataclass(frozen=True, slots=True)
class Deviation:
    """How a call differs from an ordinary one.

    Attributes:
        duration: times as long.
        size: times as large arguments.
        rate: times as soon after the call before.
        error_rate: probability that it raises; none keeps the ordinary one.
        caller: who calls; none keeps the ordinary ones.
    """

    duration: float = 1.0
    size: float = 1.0
    rate: float = 1.0
    error_rate: float | None = None
    caller: str | None = None


ORDINARY: Final = Deviation()
UNKNOWN_CALLERS: Final = ("console:eval", "plugins.loader:run_hook", "pickle:load_build", "shell:main")


def _slowloris(draws: Draws, strength: float) -> list[Deviation]:
    # Connections held open: each call takes ten times as long and more, and little is sent.
    factor = draws.between(10, 30)
    return [
        Deviation(duration=_less(factor * draws.between(0.8, 1.25), strength), size=0.5)
        for _ in range(draws.whole(20, 40))
    ]


def _spike(draws: Draws, strength: float) -> list[Deviation]:
    return [Deviation(duration=_less(draws.between(20, 100), strength)) for _ in range(draws.whole(1, 3))]


def _gradual(draws: Draws, strength: float) -> list[Deviation]:
    count, last = draws.whole(50, 100), draws.between(5, 10)
    return [Deviation(duration=_less(last ** (i / (count - 1)), strength)) for i in range(count)]


def _burst(draws: Draws, strength: float) -> list[Deviation]:
    factor = draws.between(8, 20)
    return [
        Deviation(duration=_less(factor, strength)) if i % 10 == 9 else ORDINARY
        for i in range(10 * draws.whole(5, 10))
    ]


def _oscillating(draws: Draws, strength: float) -> list[Deviation]:
    factor = draws.between(4, 10)
    return [
        Deviation(duration=_less(factor, strength)) if i % 2 else ORDINARY
        for i in range(2 * draws.whole(15, 30))
    ]


def _exfil_loop(draws: Draws, strength: float) -> list[Deviation]:
    # Each call reads more than it should, so it takes longer; one factor for the whole loop.
    factor = draws.between(2.5, 8)
    return [Deviation(duration=_less(factor, strength))] * draws.whole(15, 40)


def _argument_jump(draws: Draws, strength: float) -> list[Deviation]:
    return [Deviation(size=_less(draws.between(8, 60), strength)) for _ in range(draws.whole(1, 4))]


def _rate_burst(draws: Draws, strength: float) -> list[Deviation]:
    return [Deviation(rate=_less(draws.between(6, 25), strength))] * draws.whole(30, 120)


def _error_burst(draws: Draws, strength: float) -> list[Deviation]:
    return [Deviation(error_rate=draws.uniform(0.35, 0.8) * strength)] * draws.whole(15, 40)


def _new_caller(draws: Draws, strength: float) -> list[Deviation]:
    # Nobody is half unknown: a weaker one calls less often.
    caller = draws.pick(UNKNOWN_CALLERS)
    return [Deviation(caller=caller)] * max(1, round(draws.whole(1, 5) * strength))


def _less(factor: float, strength: float) -> float:
    return 1.0 + (factor - 1.0) * strength


_MAKERS: Final = MappingProxyType[Pattern, Callable[[Draws, float], list[Deviation]]](
    {
        Pattern.SLOWLORIS: _slowloris,
        Pattern.SPIKE: _spike,
        Pattern.GRADUAL: _gradual,
        Pattern.BURST: _burst,
        Pattern.OSCILLATING: _oscillating,
        Pattern.EXFIL_LOOP: _exfil_loop,
        Pattern.ARGUMENT_JUMP: _argument_jump,
        Pattern.RATE_BURST: _rate_burst,
        Pattern.ERROR_BURST: _error_burst,
        Pattern.NEW_CALLER: _new_caller,
    }
)
SEED_PATTERNS: Final = (
    Pattern.SLOWLORIS,
    Pattern.SPIKE,
    Pattern.GRADUAL,
    Pattern.BURST,
    Pattern.OSCILLATING,
)
SPIKE_PATTERNS: Final = (
    Pattern.EXFIL_LOOP,
    Pattern.ARGUMENT_JUMP,
    Pattern.RATE_BURST,
    Pattern.ERROR_BURST,
    Pattern.NEW_CALLER,
)


def deviations(pattern: Pattern, draws: Draws, strength: float = 1.0) -> tuple[Deviation, ...]:
    """What the calls of one episode do differently.

    Args:
        pattern: one of the ten attacks.
        draws: decides length and factors.
        strength: 1 is the whole of it; at 0.5 every excess over ordinary is half as large.

    Returns:
        One for each call.

    Raises:
        ImmuneError: ``immune.generator_invalid``; no attack, or a strength that isn't above 0 and up to 1.
    """
    maker = _MAKERS.get(pattern)
    if maker is None or not 0 < strength <= 1:
        raise ImmuneError(
            "immune.generator_invalid", "An episode needs an attack, and a strength above 0 and up to 1."
        )
    return tuple(maker(draws, strength))
