"""Attempts to carry something past the airlock: each is refused, or arrives as nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloister.enclave import AirlockPolicy, AirlockViolation, Charge, TensorSpec, charges_of, screen
from cloister.enclave.airlock_policy import NEVER_LEAVES
from cloister.evidence.airlock_policy import ScalarSpec
from cloister.evidence.change_limit import ChangeLimit
from cloister.evidence.transcript import Gaussian, Pure
from cloister.privacy.buckets import BucketRelease
from cloister.privacy.errors import PrivacyError
from cloister.privacy.release import NoisyValue, Release

OS = "aes-256-ctr/os-entropy"
LIMIT = ChangeLimit(l2=1.0, largest=0.5, rounding=2.0**-20)
POLICY = AirlockPolicy(
    tensors=(TensorSpec("weight", (2, 3)), TensorSpec("bias", (2,))),
    scalars={"loss": ScalarSpec(0.0, 8.0, 16, "bucket"), "accuracy": ScalarSpec(0.0, 1.0, 100, "noise")},
    mantissa_bits=10,
    change=LIMIT,
)
RECEIVED = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32)}
CANARY = "canary-4711"


def honest() -> dict[str, object]:
    return {"params": {name: value + np.float32(0.1) for name, value in RECEIVED.items()}}


def refusal(
    update: object, charges: dict[str, Charge] | None = None, policy: AirlockPolicy = POLICY
) -> AirlockViolation:
    with pytest.raises(AirlockViolation) as caught:
        screen(update, policy, received=RECEIVED, charges=charges or {})  # type: ignore[arg-type]
    return caught.value


# weights


@given(
    hnp.arrays(np.float32, (2, 3), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    hnp.arrays(np.float32, 2, elements=st.floats(-(2.0**60), 2.0**60, width=32)),
)
def test_weights_that_no_training_yields_stay_and_the_others_leave_short_of_bits(
    weight: np.ndarray, bias: np.ndarray
) -> None:
    update = {"params": {"weight": weight, "bias": bias}}
    change = np.concatenate([(weight.astype(float) - 1).ravel(), bias.astype(float)])
    norm, largest = np.linalg.norm(change), np.abs(change).max()
    if norm <= LIMIT.l2 and largest <= LIMIT.largest:
        screened = screen(update, POLICY, received=RECEIVED)
        for name, tensor in screened.tensors.items():
            assert not (tensor.view(np.uint32) & np.uint32(2**13 - 1)).any()
            assert not (np.signbit(tensor) & (tensor == 0)).any()
            assert np.allclose(tensor, update["params"][name], rtol=2.0**-11, atol=2.0**-126)
    elif norm > LIMIT.l2 * 1.001 or largest > LIMIT.largest * 1.001:
        assert "moved further than" in refusal(update).details[0]


@given(st.binary(min_size=8, max_size=8), st.integers(1, 23))
def test_records_written_into_bits_that_are_cut_off_do_not_arrive(record: bytes, bits: int) -> None:
    """Every message in the low bits gives the same update, so it carries none of it."""
    policy = AirlockPolicy(tensors=(TensorSpec("w", (8,)),), mantissa_bits=bits)
    room = 23 - bits
    carrier = np.full(8, 1.5, dtype=np.float32).view(np.uint32)
    half = (1 << room) // 2
    message = np.frombuffer(record, np.uint8).astype(np.uint32) % np.uint32(max(half, 1))
    sent = (carrier | message).view(np.float32)
    screened = screen({"params": {"w": sent}}, policy)
    assert np.array_equal(screened.tensors["w"], np.full(8, 1.5, dtype=np.float32))


@given(hnp.arrays(np.uint32, 16, elements=st.integers(0, 2**23 - 1)), st.lists(st.booleans(), min_size=16))
def test_tiny_numbers_and_signs_of_zero_carry_nothing(fractions: np.ndarray, signs: list[bool]) -> None:
    policy = AirlockPolicy(tensors=(TensorSpec("w", (16,)),), mantissa_bits=23)
    words = fractions | (np.array(signs[:16], dtype=np.uint32) << np.uint32(31))
    screened = screen({"params": {"w": words.astype(np.uint32).view(np.float32)}}, policy)
    assert screened.tensors["w"].tobytes() == bytes(64)


@given(st.integers(1, 2**22 - 1), st.booleans(), st.integers(0, 1))
def test_payloads_of_nan_are_refused(payload: int, negative: bool, quiet: int) -> None:
    word = np.array([0x7F800000 | payload | (quiet << 22) | (negative << 31), 0], dtype=np.uint32)
    update = honest()
    update["params"]["bias"] = word.view(np.float32)  # type: ignore[index]
    assert "holds NaN or infinity" in refusal(update).details[0]


def test_the_change_is_measured_over_all_tensors_together() -> None:
    """Each by itself keeps to the bound; both together don't."""
    update = {"params": {name: value + np.float32(0.4) for name, value in RECEIVED.items()}}
    assert 0.4 * math.sqrt(6) < LIMIT.l2 < 0.4 * math.sqrt(8)
    assert refusal(update).details == ("update: its weights moved further than an L2 norm of 1",)


def test_a_single_weight_has_a_bound_of_its_own() -> None:
    update = honest()
    update["params"]["bias"][1] = 0.6  # type: ignore[index]
    assert refusal(update).details == ("update: one of its weights moved further than 0.5",)


def test_rounding_of_large_weights_is_allowed_for() -> None:
    policy = AirlockPolicy(
        tensors=(TensorSpec("w", (1,)),), change=ChangeLimit(l2=1e-6, largest=1e-6, rounding=2.0**-23)
    )
    received = {"w": np.array([1000.0], np.float32)}
    moved = {"w": np.nextafter(received["w"], np.float32(np.inf))}
    assert screen({"params": moved}, policy, received=received).bytes == 4
    with pytest.raises(AirlockViolation):
        screen({"params": {"w": received["w"] + np.float32(0.001)}}, policy, received=received)


@pytest.mark.parametrize(
    "received",
    [
        {},
        {"weight": RECEIVED["weight"]},
        {**RECEIVED, "bias": np.zeros(3, np.float32)},
        {**RECEIVED, "bias": np.zeros(2, np.float64)},
    ],
)
def test_without_the_weights_it_began_with_no_update_leaves(received: dict[str, np.ndarray]) -> None:
    with pytest.raises(AirlockViolation):
        screen(honest(), POLICY, received=received)


def test_a_change_that_is_not_a_number_is_refused() -> None:
    received = {**RECEIVED, "bias": np.array([np.nan, 0], np.float32)}
    with pytest.raises(AirlockViolation):
        screen(honest(), POLICY, received=received)


def test_a_weight_that_rounds_to_infinity_stays() -> None:
    policy = AirlockPolicy(tensors=(TensorSpec("w", (1,)),), mantissa_bits=2)
    with pytest.raises(AirlockViolation):
        screen({"params": {"w": np.array([np.finfo(np.float32).max], np.float32)}}, policy)


def test_double_precision_is_bounded_and_rounded_too() -> None:
    policy = AirlockPolicy(
        tensors=(TensorSpec("w", (2,), "float64"),),
        mantissa_bits=20,
        change=ChangeLimit(l2=1.0, largest=1.0, rounding=0.0),
    )
    received = {"w": np.zeros(2)}
    screened = screen({"params": {"w": np.array([1 / 3, -0.0])}}, policy, received=received)
    assert screened.tensors["w"][0] == pytest.approx(1 / 3, rel=2.0**-21)
    assert screened.tensors["w"][0] != 1 / 3
    with pytest.raises(AirlockViolation):
        screen({"params": {"w": np.array([1e200, 1e200])}}, policy, received=received)


# numbers beside weights


@given(st.floats(0, 8), st.floats(0, 8))
def test_a_raw_number_never_leaves_whatever_else_was_paid_for(loss: float, paid: float) -> None:
    update = honest() | {"metrics": {"loss": loss}}
    assert refusal(update).details == ("scalar loss: not what was released with bucket and paid for",)
    charges = {"loss": Charge(paid, "bucket", Pure(1.0, 1))}
    if paid == loss:
        screened = screen(update, POLICY, received=RECEIVED, charges=charges)
        assert screened.scalars["loss"] * 2 == round(screened.scalars["loss"] * 2)
    else:
        refusal(update, charges)


def test_a_number_that_was_paid_for_in_another_way_stays() -> None:
    update = honest() | {"metrics": {"loss": 0.5}}
    refusal(update, {"loss": Charge(0.5, "noise", Gaussian(2.0, 1))})
    refusal(update, {"accuracy": Charge(0.5, "bucket", Pure(1.0, 1))})


def test_what_leaves_of_a_number_is_a_point_of_its_public_grid() -> None:
    release = Release(
        "accuracy", {"accuracy": NoisyValue(0.87654321, 0.8, 0.9)}, "population", Gaussian(9.0, 1), OS
    )
    charges = charges_of(release, "accuracy")
    update = honest() | {"metrics": {"accuracy": 0.87654321}}
    screened = screen(update, POLICY, received=RECEIVED, charges=charges)
    assert screened.scalars == {"accuracy": 0.88}


def test_charges_are_made_of_private_releases_alone() -> None:
    several = Release(
        "histogram",
        {"ill": NoisyValue(4.0, 1, 7), "well": NoisyValue(9.0, 6, 12)},
        "records",
        Gaussian(3.0, 1),
        OS,
    )
    assert {name: one.value for name, one in charges_of(several, "outcome").items()} == {
        "outcome.ill": 4.0,
        "outcome.well": 9.0,
    }
    bucket = BucketRelease(2.5, 0.7, Pure(1.0, 1), OS)
    assert charges_of(bucket, "loss") == {"loss": Charge(2.5, "bucket", Pure(1.0, 1))}
    for raw in (0.25, {"loss": 0.25}, np.float64(0.25), None):
        with pytest.raises(PrivacyError):
            charges_of(raw, "loss")  # type: ignore[arg-type]
    with pytest.raises(PrivacyError):
        charges_of(BucketRelease(2.5, 0.7, Pure(1.0, 1), "seeded-test"), "loss")


# names and nesting


@pytest.mark.parametrize("name", sorted(NEVER_LEAVES))
@pytest.mark.parametrize("depth", range(4))
def test_names_that_never_leave_are_said_wherever_they_hide(name: str, depth: int) -> None:
    hidden: object = {name: CANARY}
    for level in range(depth):
        hidden = [hidden] if level % 2 else {"meta": hidden}
    error = refusal({**honest(), "meta": hidden})
    assert f"update: holds {name}, which never leaves" in error.details
    assert CANARY not in str(error.as_json())


def test_what_nests_too_deep_or_endlessly_is_refused_without_an_end() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert any("nests deeper" in one for one in refusal({**honest(), "meta": endless}).details)
    wide: list[object] = [0]
    for _ in range(6):
        wide = [wide] * 100
    assert any("more names than" in one for one in refusal({**honest(), "meta": wide}).details)


@given(
    st.text(max_size=40),
    st.one_of(st.floats(), st.binary(max_size=40), st.text(max_size=40), st.lists(st.integers())),
    st.sampled_from(["update", "params", "metrics"]),
)
def test_no_name_or_value_of_anybodys_choice_is_repeated(name: str, value: object, place: str) -> None:
    update: dict[str, object] = honest() | {"metrics": {}}
    inside = update if place == "update" else update[place]
    assert isinstance(inside, dict)
    marked = f"{CANARY}{name}"
    inside[marked] = [CANARY, value]
    error = refusal(update)
    assert CANARY not in repr(error.as_json())


@given(
    st.dictionaries(
        st.sampled_from(["weight", "bias", "loss", "accuracy", "extra", "pii"]),
        st.one_of(
            st.floats(allow_nan=True),
            st.integers(),
            st.text(max_size=5),
            hnp.arrays(
                st.sampled_from(["<f4", "<f8", ">f4", "<f2", "<i4", "<c8", "?", "S4", "U2", "M8[s]"]),
                hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
            ),
        ),
        max_size=6,
    ),
    st.dictionaries(st.sampled_from(["loss", "accuracy", "x"]), st.floats() | st.text(max_size=3)),
)
def test_whatever_leaves_has_exactly_the_listed_form(
    params: dict[str, object], metrics: dict[str, object]
) -> None:
    try:
        screened = screen({"params": params, "metrics": metrics}, POLICY, received=RECEIVED)
    except AirlockViolation:
        return
    assert {name: (one.shape, one.dtype.str) for name, one in screened.tensors.items()} == {
        "weight": ((2, 3), "<f4"),
        "bias": ((2,), "<f4"),
    }
    assert screened.scalars == {}


def test_every_decision_is_a_function_of_what_it_was_given() -> None:
    update = honest()
    first = screen(update, POLICY, received=RECEIVED)
    before = {name: value.copy() for name, value in RECEIVED.items()}
    second = screen(update, POLICY, received=RECEIVED)
    assert first.sha256 == second.sha256
    assert all(np.array_equal(RECEIVED[name], before[name]) for name in before)
    assert POLICY.constraints == (
        "listed-tensors",
        "no-unpaid-scalars",
        "finite-values",
        "byte-cap",
        "capped-precision",
        "bounded-change",
    )
