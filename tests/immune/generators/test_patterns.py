"""Each attack has the property that it is named for, and ordinary traffic has the weather it claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.immune.errors import ImmuneError
from cloister.immune.generators import (
    BENIGN,
    SEED_PATTERNS,
    SPIKE_PATTERNS,
    Behaviour,
    Conditions,
    Deviation,
    Pattern,
    Shape,
    TracedCall,
    deviations,
    episode,
    ordinary_calls,
)
from cloister.immune.generators.attacks import UNKNOWN_CALLERS
from cloister.immune.generators.draws import Draws
from cloister.immune.generators.ordinary import CALM, Sizes

SEEDS = range(20)
ATTACKS = SEED_PATTERNS + SPIKE_PATTERNS
STEADY = Behaviour(
    shape=Shape.LOGNORMAL,
    median=0.002,
    spread=0.2,
    rate=5.0,
    sizes=Sizes.LOGNORMAL,
    size=100,
    callers=("app.web:handle", "app.api:fetch"),
    error_rate=0.01,
)


def made(pattern: Pattern, seed: int, strength: float = 1.0) -> tuple[Deviation, ...]:
    return deviations(pattern, Draws(f"{seed}"), strength)


def test_every_label_but_benign_is_one_of_ten_attacks() -> None:
    assert sorted(ATTACKS) == sorted(set(Pattern) - {BENIGN})
    assert len(SEED_PATTERNS) == len(SPIKE_PATTERNS) == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_slowloris_holds_every_call_several_times_as_long_and_sends_little(seed: int) -> None:
    calls = made(Pattern.SLOWLORIS, seed)
    assert 20 <= len(calls) <= 40
    assert all(call.duration >= 8 and call.size < 1 for call in calls)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_spike_is_up_to_three_calls_twenty_times_as_long_or_longer(seed: int) -> None:
    calls = made(Pattern.SPIKE, seed)
    assert 1 <= len(calls) <= 3
    assert all(20 <= call.duration <= 100 for call in calls)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradual_rises_from_ordinary_without_a_step_to_five_times_and_more(seed: int) -> None:
    factors = [call.duration for call in made(Pattern.GRADUAL, seed)]
    assert factors[0] == 1.0
    assert factors[-1] >= 5
    assert all(1 <= after / before < 1.1 for before, after in pairwise(factors))


@pytest.mark.parametrize("seed", SEEDS)
def test_nine_calls_of_ten_of_a_burst_are_ordinary(seed: int) -> None:
    calls = made(Pattern.BURST, seed)
    assert sum(call == Deviation() for call in calls) == 0.9 * len(calls)
    assert max(call.duration for call in calls) >= 8


@pytest.mark.parametrize("seed", SEEDS)
def test_oscillating_takes_turns_between_ordinary_and_four_times_as_long(seed: int) -> None:
    calls = made(Pattern.OSCILLATING, seed)
    assert all(call == Deviation() for call in calls[::2])
    assert all(call.duration >= 4 for call in calls[1::2])
    assert len(calls) % 2 == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_an_exfil_loop_is_15_to_40_calls_of_one_factor_between_two_and_a_half_and_eight(seed: int) -> None:
    calls = made(Pattern.EXFIL_LOOP, seed)
    assert 15 <= len(calls) <= 40
    assert len(set(calls)) == 1
    assert 2.5 <= calls[0].duration <= 8


@pytest.mark.parametrize("seed", SEEDS)
def test_an_argument_jump_is_up_to_four_calls_with_arguments_8_to_60_times_as_large(seed: int) -> None:
    calls = made(Pattern.ARGUMENT_JUMP, seed)
    assert 1 <= len(calls) <= 4
    assert all(8 <= call.size <= 60 and call.duration == 1 for call in calls)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rate_burst_comes_6_to_25_times_as_often(seed: int) -> None:
    calls = made(Pattern.RATE_BURST, seed)
    assert 30 <= len(calls) <= 120
    assert all(6 <= call.rate <= 25 for call in calls)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_error_burst_fails_with_a_probability_of_35_to_80_percent(seed: int) -> None:
    calls = made(Pattern.ERROR_BURST, seed)
    assert 15 <= len(calls) <= 40
    assert all(call.error_rate is not None and 0.35 <= call.error_rate <= 0.8 for call in calls)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_caller_is_one_to_five_calls_from_where_no_ordinary_call_comes(seed: int) -> None:
    calls = episode(seed, Pattern.NEW_CALLER)
    assert 1 <= len(calls) <= 5
    assert {call.caller for call in calls} <= set(UNKNOWN_CALLERS)
    assert not {call.caller for call in ordinary_calls(seed, 1000)} & set(UNKNOWN_CALLERS)


@pytest.mark.parametrize("pattern", ATTACKS)
def test_an_episode_bears_its_label_on_every_call_and_goes_on_in_time(pattern: Pattern) -> None:
    calls = episode(3, pattern)
    assert {call.label for call in calls} == {pattern}
    assert all(before.at <= after.at for before, after in pairwise(calls))


def _mean_of_episodes(pattern: Pattern, feature: Callable[[TracedCall], float]) -> float:
    return fmean(fmean(feature(call) for call in episode(seed, pattern)) for seed in SEEDS)


def test_what_an_attack_changes_is_seen_in_its_calls_and_not_only_in_its_plan() -> None:
    ordinary = [ordinary_calls(seed, 200) for seed in SEEDS]

    def mean(feature: Callable[[TracedCall], float]) -> float:
        return fmean(fmean(feature(call) for call in calls) for calls in ordinary)

    assert _mean_of_episodes(Pattern.SLOWLORIS, lambda call: call.duration) > 5 * mean(
        lambda call: call.duration
    )
    assert _mean_of_episodes(Pattern.ARGUMENT_JUMP, lambda call: call.size) > 5 * mean(lambda call: call.size)
    assert _mean_of_episodes(Pattern.ERROR_BURST, lambda call: call.failed) > 0.35
    assert mean(lambda call: call.failed) < 0.05
    for seed, calls in zip(SEEDS, ordinary, strict=True):
        burst = episode(seed, Pattern.RATE_BURST)
        assert (burst[-1].at - burst[0].at) / len(burst) < 0.5 * (calls[-1].at - calls[0].at) / len(calls)


@settings(max_examples=100)
@given(st.sampled_from(ATTACKS), st.integers(0, 10**6), st.floats(0.05, 1.0))
def test_a_weaker_attack_is_no_longer_and_no_more_excessive(
    pattern: Pattern, seed: int, strength: float
) -> None:
    full, weak = made(pattern, seed), made(pattern, seed, strength)
    assert 1 <= len(weak) <= len(full)
    for one, other in zip(full, weak, strict=False):
        for name in ("duration", "rate"):
            assert 1 <= getattr(other, name) <= getattr(one, name) * (1 + 1e-12)
        assert (other.error_rate or 0) <= (one.error_rate or 0)


@pytest.mark.parametrize(("pattern", "strength"), [(BENIGN, 1.0), (Pattern.SPIKE, 0.0), (Pattern.SPIKE, 1.1)])
def test_no_attack_is_made_of_ordinary_traffic_or_of_a_strength_out_of_range(
    pattern: Pattern, strength: float
) -> None:
    with pytest.raises(ImmuneError) as refused:
        episode(1, pattern, strength=strength)
    assert refused.value.code == "immune.generator_invalid"


def _durations(shape: Shape, conditions: Conditions, count: int = 4000) -> list[float]:
    calls = ordinary_calls(5, count, behaviour=STEADY, shape=shape, conditions=conditions)
    return [call.duration for call in calls]


def test_lognormal_durations_lie_even_around_their_median() -> None:
    durations = _durations(Shape.LOGNORMAL, CALM)
    assert median(durations) == pytest.approx(0.002, rel=0.03)
    assert sum(0.001 < one < 0.004 for one in durations) > 0.99 * len(durations)


def test_bimodal_durations_have_a_quarter_seven_times_as_long_and_little_between() -> None:
    durations = _durations(Shape.BIMODAL, CALM)
    assert sum(one > 0.006 for one in durations) / len(durations) == pytest.approx(0.25, abs=0.04)
    assert sum(0.004 < one < 0.007 for one in durations) < 0.01 * len(durations)


def test_heavy_tailed_durations_reach_many_times_their_median() -> None:
    calls = ordinary_calls(5, 4000, shape=Shape.HEAVY_TAIL, conditions=CALM)
    durations = [call.duration for call in calls]
    assert max(durations) > 10 * median(durations)
    assert min(durations) > 0.5 * median(durations)


def test_load_swings_between_0_4_and_1_6_times_its_mean_in_a_season() -> None:
    calls = ordinary_calls(5, 10_000, behaviour=STEADY, conditions=Conditions(season=0.6, period=10_000))

    def rate(first: int, last: int) -> float:
        return (last - first) / (calls[last].at - calls[first].at)

    assert rate(2200, 2800) == pytest.approx(1.6 * STEADY.rate, rel=0.15)
    assert rate(7200, 7800) == pytest.approx(0.4 * STEADY.rate, rel=0.15)


def test_drift_makes_calls_up_to_twice_as_long_without_a_step() -> None:
    durations = _durations(Shape.LOGNORMAL, Conditions(drift=2.0))
    tenths = [median(durations[at : at + 400]) for at in range(0, 4000, 400)]
    assert tenths[-1] / tenths[0] == pytest.approx(2.0**0.9, rel=0.05)
    assert all(after / before < 1.15 for before, after in pairwise(tenths))


@pytest.mark.parametrize("factor", [0.7, 1.8])
def test_a_deploy_changes_durations_at_once(factor: float) -> None:
    durations = _durations(Shape.LOGNORMAL, Conditions(deploys=((0.5, factor),)))
    assert median(durations[2000:]) / median(durations[:2000]) == pytest.approx(factor, rel=0.05)


def test_a_deploy_may_bring_a_caller_that_was_not_there_before() -> None:
    calls = ordinary_calls(5, 2000, behaviour=STEADY, conditions=Conditions(newcomer=0.5))
    before, after = ({call.caller for call in half} for half in (calls[:1000], calls[1000:]))
    assert len(after - before) == 1
    assert before == set(STEADY.callers)


def test_noisy_neighbours_make_stretches_of_calls_longer_and_no_single_ones() -> None:
    calm = _durations(Shape.LOGNORMAL, CALM)
    noisy = _durations(Shape.LOGNORMAL, Conditions(neighbour_every=400))
    stretches = [fmean(noisy[at : at + 20]) / 0.002 for at in range(0, 4000, 20)]
    assert sum(one > 1.25 for one in stretches) >= 5
    assert max(fmean(calm[at : at + 20]) / 0.002 for at in range(0, 4000, 20)) < 1.25
    assert max(stretches) < 2.3


@pytest.mark.parametrize("sizes", Sizes)
def test_sizes_of_arguments_are_constant_a_choice_or_spread(sizes: Sizes) -> None:
    calls = ordinary_calls(5, 1000, behaviour=replace(STEADY, sizes=sizes), conditions=CALM)
    kinds = len({call.size for call in calls})
    assert {Sizes.CONSTANT: kinds == 1, Sizes.CHOICE: kinds == 4, Sizes.LOGNORMAL: kinds > 50}[sizes]
    assert min(call.size for call in calls) >= 1
