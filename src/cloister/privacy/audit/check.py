"""What one check of an audit found, and all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One property of a trainer, held against what was observed.

    Args:
        name: Stable name, such as ``noise-scale``.
        claim: What holds in an honest trainer, a sentence.
        observed: The figure that was measured.
        expected: What it is on average in an honest trainer.
        chance: Bound on the probability that an honest trainer strays as far.
        alarm: The check fails when ``chance`` is below this.
        draws: Number of values it rests on.
    """

    name: str
    claim: str
    observed: float
    expected: float
    chance: float
    alarm: float
    draws: int

    @property
    def passed(self) -> bool:
        """Whether an honest trainer may well look like this."""
        return self.chance >= self.alarm

    def as_json(self) -> Mapping[str, object]:
        """The check as plain JSON."""
        return {
            "name": self.name,
            "claim": self.claim,
            "passed": self.passed,
            "observed": self.observed,
            "expected": self.expected,
            "chance": self.chance,
            "alarm": self.alarm,
            "draws": self.draws,
        }


@dataclass(frozen=True, slots=True)
class Conformance:
    """All checks of one trainer.

    Args:
        checks: In the order in which they were made.
        noise_error_found: Smallest relative error of the noise's scale that is found with probability 0.999.
    """

    checks: Sequence[Check]
    noise_error_found: float

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if not check.passed)

    @property
    def false_alarm(self) -> float:
        """Bound on the probability that an honest trainer fails: the sum over the checks."""
        return sum(check.alarm for check in self.checks)

    def as_json(self) -> Mapping[str, object]:
        """The whole result as plain JSON."""
        return {
            "passed": self.passed,
            "failed": list(self.failed),
            "false_alarm": self.false_alarm,
            "noise_error_found": self.noise_error_found,
            "checks": [dict(check.as_json()) for check in self.checks],
        }
