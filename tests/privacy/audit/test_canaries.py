"""The one-run audit: its bound is a bound, it is silent on honest training, and it refutes gross faults."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.privacy.accountant import calibrate_noise
from cloister.privacy.audit.canaries import audit_with_canaries, epsilon_lower_bound, p_value
from cloister.privacy.errors import PrivacyError
from cloister.privacy.trainer import TrainingData, TrainingPlan
from tests.nightly import needs
from tests.privacy.audit.trainers import SPIKE, Fault, _tensors_without_noise, honest

DELTA, RATE, STEPS, CANARIES = 1e-5, 0.05, 400, 2000


def plan(epsilon: float) -> TrainingPlan:
    noise = calibrate_noise(epsilon, DELTA, RATE, STEPS)
    return TrainingPlan(RATE, noise, 1.0, STEPS, 1e-3 * RATE * CANARIES / 2)


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_the_honest_engine_is_not_refuted(epsilon: float) -> None:
    found = audit_with_canaries(honest, plan(epsilon), epsilon, DELTA)
    assert not found.refutes
    assert found.as_json()["refutes_the_claim"] is False
    # It does see something where little noise is claimed, so the game is played at all.
    assert found.bound > epsilon / 8 or epsilon == 1


GROSS = {
    "noise 4x too small": SPIKE["noise 4x too small"][0],
    "no clipping": SPIKE["no clipping"][0],
    "weights without noise": _tensors_without_noise(0),
    "noise reused in each step": SPIKE["noise reused in each step"][0],
}


@pytest.mark.parametrize("fault", GROSS.values(), ids=GROSS)
def test_gross_faults_are_refuted_by_one_run(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert audit_with_canaries(honest, plan(1.0), 1.0, DELTA).refutes


def test_a_small_fault_stays_unseen_which_is_why_the_bound_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SPIKE["noise x0.98"][0](monkeypatch)
    assert not audit_with_canaries(honest, plan(1.0), 1.0, DELTA).refutes


def test_known_records_are_taken_off(tumours: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    SPIKE["no clipping"][0](monkeypatch)
    some = TrainingData(tumours.features[:200], tumours.labels[:200])
    assert audit_with_canaries(honest, plan(1.0), 1.0, DELTA, canaries=400, records=some).refutes


@given(
    canaries=st.integers(20, 60),
    epsilon=st.floats(0, 5),
    delta=st.sampled_from([0.0, 1e-5, 1e-3]),
    data=st.data(),
)
def test_the_p_value_is_the_theorems_in_exact_fractions(
    canaries: int, epsilon: float, delta: float, data: st.DataObject
) -> None:
    guesses = data.draw(st.integers(1, canaries))
    right = data.draw(st.integers(0, guesses))
    p = Fraction(1 / (1 + exp(-epsilon)))
    mass = [comb(guesses, k) * p**k * (1 - p) ** (guesses - k) for k in range(guesses + 1)]
    beta = sum(mass[right:], Fraction(0))
    alpha = max((sum(mass[right - i : right], Fraction(0)) / i for i in range(1, right + 1)), default=0)
    exact = min(1.0, float(beta + alpha * Fraction(delta) * 2 * canaries))
    assert p_value(canaries, guesses, right, epsilon, delta) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_the_bound_holds_and_is_close_for_randomized_response(epsilon: float) -> None:
    """The mechanism that tells each coin as truly as epsilon allows."""
    honest_share = exp(epsilon) / (1 + exp(epsilon))
    rights = np.random.default_rng(0).binomial(2000, honest_share, 400)
    bounds = np.array([epsilon_lower_bound(2000, 2000, int(right), 0.0, 0.05) for right in rights])
    assert (bounds > epsilon).mean() < 0.09
    assert bounds.mean() > epsilon - 0.3


def test_no_guess_is_better_than_all_of_them_right() -> None:
    bound = epsilon_lower_bound(100, 100, 100, 0.0, 0.05)
    assert bound == pytest.approx(-log(0.05 ** (-1 / 100) - 1), abs=1e-3)
    assert epsilon_lower_bound(100, 100, 50, 0.0, 0.05) == 0
    assert epsilon_lower_bound(100, 100, 100, 0.5, 0.05) == 0


@pytest.mark.parametrize(
    "arguments", [{"canaries": 99}, {"confidence": 0.5}, {"confidence": 1.0}, {"delta": 1.0}, {"delta": -1.0}]
)
def test_an_audit_that_can_give_no_bound_is_refused(arguments: dict[str, float]) -> None:
    chosen = {"delta": DELTA, **arguments}
    with pytest.raises(PrivacyError) as refusal:
        audit_with_canaries(honest, plan(1.0), 1.0, **chosen)  # type: ignore[arg-type]
    assert refusal.value.code == "privacy.audit_impossible"


def test_subjects_are_not_audited_as_records(tumours: TrainingData) -> None:
    grouped = TrainingData(tumours.features, tumours.labels, np.arange(569) // 2)
    with pytest.raises(PrivacyError):
        audit_with_canaries(honest, plan(1.0), 1.0, DELTA, records=grouped)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_the_honest_engine_is_refuted_no_more_often_than_stated() -> None:
    """Twenty audits at 95 %: more than six refutations have probability 3e-5."""
    needs(60)
    runs = [audit_with_canaries(honest, plan(1.0), 1.0, DELTA, seed=seed).refutes for seed in range(20)]
    assert sum(runs) <= 6
