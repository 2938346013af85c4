"""How far private training can move a model: the bound that an airlock holds each update against.

It follows from figures that everybody knows, so whoever verifies a receipt computes it too. Training is plain
gradient descent (no momentum) from the received weights ``w``: in each of ``k`` steps every unit that was
drawn adds a gradient of L2 norm ``C`` at most, the sum gets Gaussian noise, is divided by ``q * n``, the
expected number of units, and multiplied by the learning rate. Hence, of the change that leaves:

* What units contribute has an L2 norm of at most ``(B + k) * S``, where ``B`` is how many were drawn in all
  steps together and ``S`` the clip norm with the engine's slack for rounding
  (:data:`SENSITIVITY_SLACK`); the ``k`` stands for rounding the sums and the noise to the grid. ``B`` is
  binomial: ``k * n`` at most, and above ``m + t`` with a chance below ``exp(-x)``, where ``m = k * q * n``
  and ``t = x / 3 + sqrt(x**2 / 9 + 2 * m * x)`` (Bernstein).
* The noise adds up to ``d`` independent normal values of standard deviation ``s = sqrt(k) * z * S``. Their
  L2 norm is above ``s * (sqrt(d) + sqrt(2 * x))`` and the largest above ``s * sqrt(2 * (x + log(2 * d)))``,
  each with a chance below ``exp(-x)`` (Laurent and Massart 2000, lemma 1; union bound).

With ``exp(-x) = 2**-40`` an honest update is refused with a chance below ``2**-38``. Weights are float32:
each step rounds them by a share of their own size, which ``rounding`` allows for.

What the bound is not: a limit on information. Weights within it carry what they carry; only the noise of
private training limits that. It keeps out weights that no such training yields, such as records written into
them at full scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cloister.core.errors import InputError

SENSITIVITY_SLACK: Final = 2.0**-7
"""Above the share of the clip norm that rounding adds to any grid's sensitivity: at most 2**-8 for sums in
float64, 2**-16 for norms, 2**-14 for the grid (`cloister.privacy.noise`)."""

TAIL_BITS: Final = 40
"""Each of three tails has a chance below two to minus this."""

_TAIL: Final = TAIL_BITS * math.log(2)
_STEP_ROUNDING: Final = 2.0**-23
_SUM_ROUNDING: Final = 2.0**-20


@dataclass(frozen=True, slots=True)
class Descent:
    """One round of private training at a site, in figures that everybody knows.

    Attributes:
        clip_norm: L2 bound on one unit's gradient, above 0.
        noise_multiplier: the noise's standard deviation over the sensitivity, at least 0.
        sampling_probability: chance of a unit to be drawn in a step, in (0, 1].
        units: how many records or subjects there are, at least 1.
        steps: how many steps are taken, at least 1.
        learning_rate: the step size, above 0.
        parameters: how many weights are trained, at least 1.

    Raises:
        InputError: ``input.schema`` for a figure that can't be.
    """

    clip_norm: float
    noise_multiplier: float
    sampling_probability: float
    units: int
    steps: int
    learning_rate: float
    parameters: int

    def __post_init__(self) -> None:
        positive = (self.clip_norm, self.sampling_probability, self.learning_rate)
        sound = (
            all(math.isfinite(one) and one > 0 for one in positive)
            and self.sampling_probability <= 1
            and math.isfinite(self.noise_multiplier)
            and self.noise_multiplier >= 0
            and min(self.units, self.steps, self.parameters) >= 1
        )
        if not sound:
            raise InputError("input.schema", "A training of these figures can't be.")


@dataclass(frozen=True, slots=True)
class ChangeLimit:
    """How far weights may be from those that were received.

    Attributes:
        l2: largest L2 norm of the change over all tensors together.
        largest: largest change of one weight.
        rounding: allowed beside either, as a share of the received weights' own norm (or largest weight).

    Raises:
        InputError: ``input.schema`` for limits that are not finite and above 0, or a negative share.
    """

    l2: float
    largest: float
    rounding: float

    def __post_init__(self) -> None:
        limits = (self.l2, self.largest)
        if not (
            all(math.isfinite(one) and one > 0 for one in limits)
            and math.isfinite(self.rounding)
            and self.rounding >= 0
        ):
            raise InputError("input.schema", "A limit on a change is finite and above zero.")

    def rounded_to(self, bits: int | None) -> ChangeLimit:
        """The limit on weights that were rounded after that: what leaves is held to it, not what was trained.

        Rounding moves a weight by a share ``h = 2**-(bits + 1)`` of its own size at most. What leaves is
        therefore within ``h`` times the size of the trained weights, which is at most the size of those
        received and of the change together.

        Args:
            bits: bits of fraction that are kept; None for all, and then nothing is added.
        """
        share = 0.0 if bits is None else 2.0 ** -(bits + 1)
        return ChangeLimit(
            self.l2 * (1 + share), self.largest * (1 + share), self.rounding * (1 + share) + share
        )

    def agrees_with(self, other: ChangeLimit) -> bool:
        """Whether both are the same but for how machines round logarithms and roots."""
        mine, theirs = (self.l2, self.largest, self.rounding), (other.l2, other.largest, other.rounding)
        return all(math.isclose(one, two, rel_tol=1e-9) for one, two in zip(mine, theirs, strict=True))


def change_limit(training: Descent) -> ChangeLimit:
    """The bound on one round's change, as the module derives it.

    Args:
        training: the round.

    Raises:
        InputError: ``input.schema`` where the figures are too large for a bound.
    """
    steps = training.steps
    sensitivity = training.clip_norm * (1 + SENSITIVITY_SLACK)
    scale = training.learning_rate / (training.sampling_probability * training.units)
    expected = steps * training.sampling_probability * training.units
    tail = _TAIL / 3 + math.sqrt(_TAIL**2 / 9 + 2 * expected * _TAIL)
    drawn = min(float(steps * training.units), expected + tail)
    signal = (drawn + steps) * sensitivity
    noise = math.sqrt(steps) * training.noise_multiplier * sensitivity
    spread = math.sqrt(training.parameters) + math.sqrt(2 * _TAIL)
    peak = math.sqrt(2 * (_TAIL + math.log(2 * training.parameters)))
    widened = scale * (1 + steps * _SUM_ROUNDING)
    return ChangeLimit(
        l2=widened * (signal + noise * spread),
        largest=widened * (signal + noise * min(peak, spread)),
        rounding=steps * _STEP_ROUNDING,
    )
