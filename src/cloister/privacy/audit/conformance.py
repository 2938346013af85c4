"""The conformance suite: does a trainer do what its privacy plan says? Statistics decide, with stated errors.

It is the real gate against false claims. An attack or a canary audit only finds gross faults; the noise's
scale, the clipping, the batches and the freshness of noise are tested here directly.

Rules kept here:

1. Any trainer can be tested: it is seen only through ``fit``.
2. An honest trainer fails with probability at most :attr:`~.check.Conformance.false_alarm`, by the union
   bound over all checks.
3. Passing shows these properties on made-up records at the plans tried, not the absence of every fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloister.privacy.audit.check import Check, Conformance
from cloister.privacy.audit.clipping_checks import clipping
from cloister.privacy.audit.model_checks import AuditedModel, own_model
from cloister.privacy.audit.noise_checks import empty_batch, freshness, noise_error_found, noise_scale
from cloister.privacy.audit.observation import TrainerFactory
from cloister.privacy.audit.sampling_checks import sampling
from cloister.privacy.errors import PrivacyError


@dataclass(frozen=True, slots=True)
class Power:
    """How much a suite looks at.

    Args:
        noise_draws: Noise values for the scale, at least 100,000: fewer don't resolve two percent.
        inclusions: Coins of the sampler, at least 10,000.

    Raises:
        PrivacyError: ``privacy.audit_impossible`` below these figures.
    """

    noise_draws: int
    inclusions: int

    def __post_init__(self) -> None:
        if self.noise_draws < 100_000 or self.inclusions < 10_000:
            raise PrivacyError(
                "privacy.audit_impossible",
                "A conformance suite needs 100,000 noise values and 10,000 inclusions to mean anything.",
            )


QUICK: Final = Power(noise_draws=180_000, inclusions=120_000)
FULL: Final = Power(noise_draws=4_000_000, inclusions=2_000_000)


def run_conformance(
    factory: TrainerFactory,
    *,
    model: AuditedModel | None = None,
    power: Power = QUICK,
    false_alarm: float = 1e-6,
) -> Conformance:
    """Test a trainer against what its plans say.

    Args:
        factory: Makes trainers; called once for each fit, except where rounds of one trainer are compared.
        model: A model to test the trainer on as well, such as a job's own.
        power: How much to look at.
        false_alarm: Probability that an honest trainer fails, in (0, 0.1].

    Returns:
        Every check, with its figure and the chance of it.

    Raises:
        PrivacyError: ``privacy.audit_impossible``.
    """
    if not 0 < false_alarm <= 0.1:
        raise PrivacyError("privacy.audit_impossible", "The chance of a false alarm must lie in (0, 0.1].")
    share = false_alarm / 6
    checks: list[Check] = [
        *noise_scale(factory, power.noise_draws, share),
        *empty_batch(factory, share),
        *clipping(factory, share),
        *sampling(factory, power.inclusions, share),
        *freshness(factory, share),
        *(own_model(factory, model, share) if model is not None else ()),
    ]
    whole = checks[0]
    return Conformance(tuple(checks), noise_error_found(whole.draws, whole.alarm))
