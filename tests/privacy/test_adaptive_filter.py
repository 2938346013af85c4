"""The promise of an adaptive ledger, held against whoever chooses the next mechanism after seeing the last.

Exact: a Gaussian first; then, by its outcome, the number and strength of randomised responses, or a mechanism
that fails altogether with a small chance. Every step is one that the ledger admits.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, norm

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import Approximate, Event, Gaussian, Pure
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.ledger_entries import Header, LedgerState, Purpose, Recorded, Reserved
from cloister.privacy.ledger_limits import limits_passed

DELTA = 1e-5
RECORDS = sha256_hex(b"records")
RESPONSES = (1, 2, 3, 5, 8, 12, 20, 40, 100, 500, 1500)

Losses = npt.NDArray[np.float64]


def after(first: Event) -> LedgerState:
    """An adaptive ledger that holds one mechanism."""
    state = LedgerState()
    state.apply(Recorded(Header(2, "wards", DELTA, "adaptive", "record"), "t"), RECORDS)
    state.apply(Recorded(Reserved("1", first, RECORDS, "job", 0, Purpose.TRAINING), "t"), RECORDS)
    return state


def strongest(state: LedgerState, limit: Limit, responses: int) -> float:
    """The largest epsilon of so many randomised responses that the ledger admits; 0 for none."""
    low, high = 0.0, 20.0
    for _ in range(45):
        middle = (low + high) / 2
        refused = limits_passed(state, [Pure(middle, responses)], "job", [limit])
        low, high = (low, middle) if refused else (middle, high)
    return low


def failure(target: Losses, epsilon: float, responses: int) -> Losses:
    """How much of delta the responses use, by what epsilon the first outcome left them."""
    count = np.arange(responses + 1)
    loss = (2 * count - responses) * epsilon
    chance = binom.pmf(count, responses, 1 / (1 + math.exp(-epsilon)))
    total: Losses = (chance * np.maximum(0, -np.expm1(np.minimum(target[:, None] - loss, 0)))).sum(1)
    return total


def outcomes(epsilon: float, shift: float) -> tuple[Losses, Losses]:
    """Of the first Gaussian: the chance of each outcome, and what epsilon is left after it."""
    z = np.linspace(-9, 9, 4001)
    return norm.pdf(z) * (z[1] - z[0]), epsilon - (shift * shift / 2 + shift * z)


@pytest.mark.parametrize(("epsilon", "shift"), [(1.0, 0.01), (2.0, 0.02), (5.0, 0.03), (5.0, 0.08)])
def test_no_choice_after_the_first_outcome_passes_the_promise(epsilon: float, shift: float) -> None:
    state, limit = after(Gaussian(1 / shift, 1)), Limit("manifest", epsilon, Scope.DATASET)
    chance, left = outcomes(epsilon, shift)
    plans = [failure(left, strongest(state, limit, number), number) for number in RESPONSES]
    assert float((np.max(plans, axis=0) * chance).sum()) <= DELTA


def test_no_choice_between_a_small_chance_to_fail_and_a_large_loss_passes_the_promise() -> None:
    epsilon, shift = 5.0, 0.03
    state, limit = after(Gaussian(1 / shift, 1)), Limit("manifest", epsilon, Scope.DATASET)
    chance, left = outcomes(epsilon, shift)
    fails = max(
        share * DELTA
        for share in np.linspace(0.001, 0.999, 999)
        if not limits_passed(state, [Approximate(1e-3, share * DELTA, 1)], "job", [limit])
    )
    plans = [failure(left, strongest(state, limit, number), number) for number in RESPONSES]
    assert float((np.maximum(np.max(plans, axis=0), fails) * chance).sum()) <= DELTA
