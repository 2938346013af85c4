"""The airlock: what a policy lists leaves, rebuilt; all else stays, and is named without being repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloister.enclave import (
    AirlockPolicy,
    AirlockViolation,
    Charge,
    EnclaveError,
    TensorSpec,
    screen,
    tensors_sha256,
    update_sha256,
)
from cloister.enclave.rounding import rounded
from cloister.evidence.airlock_policy import ScalarSpec, cap_of_a_round, information_bits
from cloister.evidence.change_limit import ChangeLimit
from cloister.evidence.transcript import Gaussian, Pure
from cloister.evidence.weights import TensorForm

POLICY = AirlockPolicy(
    tensors=(TensorSpec("weight", (2, 3)), TensorSpec("bias", (2,))),
    scalars={"loss": ScalarSpec(0.0, 10.0, 40, "bucket"), "accuracy": ScalarSpec(0.0, 1.0, 1000, "noise")},
    max_bytes=1000,
)
PAID = {
    "loss": Charge(0.25, "bucket", Pure(1.0, 1)),
    "accuracy": Charge(0.75, "noise", Gaussian(8.0, 1)),
}


def sound() -> dict[str, dict[str, object]]:
    return {
        "params": {
            "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            "bias": np.asarray([0.5, -0.5], dtype=np.float32),
        },
        "metrics": {"loss": 0.25},
    }


def refused(update: object, policy: AirlockPolicy = POLICY) -> AirlockViolation:
    with pytest.raises(AirlockViolation) as caught:
        screen(update, policy, charges=PAID)  # type: ignore[arg-type]
    assert caught.value.code == "airlock.refused"
    assert caught.value.exit_code == 3
    assert caught.value.details
    return caught.value


def test_a_listed_update_leaves_as_fresh_read_only_arrays() -> None:
    update = sound()
    screened = screen(update, POLICY, charges=PAID)
    assert list(screened.tensors) == ["bias", "weight"]
    assert screened.scalars == {"loss": 0.25}
    assert screened.bytes == 4 * 8 + 8
    for name, tensor in screened.tensors.items():
        sent = update["params"][name]
        assert isinstance(sent, np.ndarray)
        assert np.array_equal(tensor, sent)
        assert not np.shares_memory(tensor, sent)
        assert tensor.flags.owndata
        assert tensor.flags.c_contiguous
        assert not tensor.flags.writeable
        assert tensor.base is None


def test_rounding_does_not_carry_a_weight_past_the_bound_on_its_change() -> None:
    """What leaves is held to the bound, not what was there before it was rounded."""
    limit = ChangeLimit(l2=0.3, largest=0.3, rounding=0.0)
    policy = AirlockPolicy((TensorSpec("weight", (1,)),), mantissa_bits=1, change=limit)
    received = {"weight": np.ones(1, dtype=np.float32)}
    trained = np.asarray([1.26], dtype=np.float32)
    with pytest.raises(AirlockViolation) as caught:
        screen({"params": {"weight": trained}}, policy, received=received)
    assert "moved further" in caught.value.details[0]
    kept = screen({"params": {"weight": np.asarray([1.2], dtype=np.float32)}}, policy, received=received)
    assert kept.tensors["weight"][0] == 1.0


def test_an_update_with_room_for_more_information_than_the_policy_allows_is_refused() -> None:
    """Eight weights of 9 and 12 bits, and two numbers of 41 and of 1,001 values."""
    bits = 8 * (9 + 12) + 6 + 10
    for cap, fits in ((bits, True), (bits - 1, False), (0, False), (None, True)):
        policy = replace(POLICY, mantissa_bits=12, max_bits=cap)
        assert policy.bits == bits
        assert ("capped-information" in policy.constraints) == (cap is not None)
        if fits:
            assert screen(sound(), policy, charges=PAID)
        else:
            assert "184 bits of information" in refused(sound(), policy).details[0]
    assert replace(POLICY, max_bits=bits).sha256 != POLICY.sha256
    with pytest.raises(EnclaveError):
        replace(POLICY, max_bits=-1)


@given(st.integers(1, 23), st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_no_weight_leaves_with_more_bits_than_are_counted(bits: int, values: list[float]) -> None:
    """What is beneath the counted bits is zero in every word that leaves."""
    weights = np.asarray(values, dtype=np.float32)
    if not np.isfinite(rounded(weights, bits)).all():
        return
    left = screen(
        {"params": {"weight": weights}},
        AirlockPolicy((TensorSpec("weight", weights.shape),), mantissa_bits=bits),
    ).tensors["weight"]
    counted = information_bits([TensorForm("weight", "float32", (1,))], mantissa_bits=bits)
    assert not (left.view(np.uint32) & ((1 << (32 - counted)) - 1)).any()


def test_the_bits_of_whole_weights_are_all_that_they_have() -> None:
    forms = [TensorForm("a", "float32", (3,)), TensorForm("b", "float64", (2, 2))]
    assert information_bits(forms) == 3 * 32 + 4 * 64
    assert information_bits(forms, mantissa_bits=23) == 3 * 32 + 4 * 35
    assert cap_of_a_round(None, None, 5) is None
    assert cap_of_a_round(100, None, 5) == 100
    assert cap_of_a_round(100, 499, 5) == 99
    assert cap_of_a_round(50, 499, 5) == 50
    assert cap_of_a_round(None, 4, 5) == 0


@given(
    st.integers(1, 23),
    st.lists(st.tuples(st.floats(-8, 8, width=32), st.floats(-0.5, 0.5, width=32)), min_size=1, max_size=40),
)
def test_an_honest_update_within_its_limit_leaves_rounded_within_the_limit_for_that(
    bits: int, weights: list[tuple[float, float]]
) -> None:
    before = np.asarray([one for one, _ in weights], dtype=np.float32)
    after = before + np.asarray([change for _, change in weights], dtype=np.float32)
    moved = after.astype(np.float64) - before
    limit = ChangeLimit(
        l2=float(np.linalg.norm(moved)) + 1e-12, largest=float(np.abs(moved).max()) + 1e-12, rounding=2.0**-40
    )
    policy = AirlockPolicy(
        (TensorSpec("weight", (len(weights),)),), mantissa_bits=bits, change=limit.rounded_to(bits)
    )
    assert screen({"params": {"weight": after}}, policy, received={"weight": before})


def test_metrics_may_be_absent_and_integers_become_floats() -> None:
    assert screen({"params": sound()["params"]}, POLICY).scalars == {}
    update = sound()
    update["metrics"] = {"loss": 3}
    scalars = screen(update, POLICY, charges={"loss": Charge(3.0, "bucket", Pure(1.0, 1))}).scalars
    assert scalars == {"loss": 3.0}
    assert type(scalars["loss"]) is float


def test_what_left_does_not_change_when_the_sender_writes_on() -> None:
    update = sound()
    screened = screen(update, POLICY, charges=PAID)
    before = screened.sha256
    update["params"]["bias"][0] = 99.0  # type: ignore[index]
    assert screened.tensors["bias"][0] == 0.5
    assert update_sha256(screened.tensors, screened.scalars) == before


def tensor_cases() -> dict[str, object]:
    class Sneaky(np.ndarray):
        """A subclass could run its own code, or carry attributes."""

    class Pretender:
        """Answers as an array when asked."""

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise AssertionError("the airlock ran the sender's code")

        def __getattribute__(self, name: str) -> object:
            if name == "__class__":
                return np.ndarray
            raise AssertionError("the airlock ran the sender's code")

    good = np.zeros(2, dtype=np.float32)
    return {
        "another dtype": good.astype(np.float64),
        "half precision": good.astype(np.float16),
        "integers": good.astype(np.int32),
        "booleans": good.astype(bool),
        "complex": good.astype(np.complex64),
        "big-endian": good.astype(">f4"),
        "objects": np.asarray([{"patient": 1}, None], dtype=object),
        "text": np.asarray(["patient", "record"]),
        "bytes": np.asarray([b"abcd", b"efgh"]),
        "dates": np.asarray(["2026-01-01", "2026-01-02"], dtype="datetime64[D]"),
        "records": np.zeros(2, dtype=[("a", "<f4")]),
        "dtype with metadata": np.zeros(2, dtype=np.dtype("<f4", metadata={"patient": "42"})),
        "another shape": np.zeros(3, dtype=np.float32),
        "more dimensions": np.zeros((2, 1), dtype=np.float32),
        "no dimension": np.float32(1.0),
        "zero-dimensional": np.zeros((), dtype=np.float32),
        "NaN": np.asarray([0.0, np.nan], dtype=np.float32),
        "NaN with a payload": np.frombuffer(b"\x00\x00\x00\x00\x2a\x00\xc0\x7f", dtype=np.float32),
        "infinity": np.asarray([0.0, np.inf], dtype=np.float32),
        "minus infinity": np.asarray([-np.inf, 0.0], dtype=np.float32),
        "a subclass": good.view(Sneaky),
        "a masked array": np.ma.masked_array(good, mask=[True, False]),
        "a matrix": good.view(np.matrix),
        "a record array": good.view(np.recarray),
        "a list": [0.0, 0.0],
        "bytes of the right length": b"\0" * 8,
        "memory": memoryview(good),
        "a hostile object": Pretender(),
        "nothing": None,
    }


@pytest.mark.parametrize("name", tensor_cases())
def test_anything_but_the_listed_plain_float_array_is_refused(name: str) -> None:
    update = sound()
    update["params"]["bias"] = tensor_cases()[name]
    assert any(detail.startswith("tensor bias: ") for detail in refused(update).details)


def test_a_file_backed_array_is_refused(tmp_path: object) -> None:
    update = sound()
    update["params"]["bias"] = np.memmap(f"{tmp_path}/m", dtype=np.float32, mode="w+", shape=(2,))
    refused(update)


def test_views_strides_and_shared_memory_are_rebuilt_contiguous() -> None:
    base = np.arange(12, dtype=np.float32)
    for view in (base[::2].reshape(2, 3), base[:6].reshape(3, 2).T, np.broadcast_to(base[:3], (2, 3))):
        update = sound()
        update["params"]["weight"] = view
        tensor = screen(update, POLICY, charges=PAID).tensors["weight"]
        assert np.array_equal(tensor, view)
        assert tensor.flags.c_contiguous
        assert not np.shares_memory(tensor, base)
        assert tensor.nbytes == 24


def scalar_cases() -> dict[str, object]:
    class Float(float):
        """A subclass could carry attributes."""

    class Int(int):
        """A subclass could answer comparisons as it likes."""

        def __ge__(self, other: object) -> bool:
            raise AssertionError("the airlock ran the sender's code")

        __le__ = __ge__

    return {
        "NaN": float("nan"),
        "infinity": float("inf"),
        "too big": 10.000001,
        "huge": 1e308,
        "a huge integer": 10**5000,
        "below": -1e-9,
        "a boolean": True,
        "text": "0.25",
        "bytes": b"0",
        "numpy's": np.float64(0.25),
        "an array": np.asarray(0.25),
        "a subclass of float": Float(0.25),
        "a subclass of int": Int(1),
        "complex": 0.25 + 0j,
        "nothing": None,
        "a list": [0.25],
        "a dictionary": {"loss": 0.25},
    }


@pytest.mark.parametrize("name", scalar_cases())
def test_anything_but_a_plain_number_in_its_range_is_refused(name: str) -> None:
    update = sound()
    update["metrics"]["loss"] = scalar_cases()[name]
    assert any(detail.startswith("scalar loss: ") for detail in refused(update).details)


@pytest.mark.parametrize(
    "section",
    ["meta", "scaffold_updates", "private_key", "secret", "patient_id", "raw_data", "pii", "Params"],
)
def test_a_section_that_is_not_listed_is_refused(section: str) -> None:
    refused({**sound(), section: {}})


def test_an_unlisted_tensor_or_scalar_is_refused_and_its_name_withheld() -> None:
    update = sound()
    message = "John Doe, HIV positive"
    update["params"][message] = np.zeros(2, dtype=np.float32)
    update["metrics"][message + "!"] = 0.5
    error = refused(update)
    assert len(error.details) == 2
    assert "John" not in str(error.as_json())
    assert all("1 unlisted name(s), withheld (sha256 " in detail for detail in error.details)


def test_a_missing_tensor_is_refused() -> None:
    update = sound()
    del update["params"]["bias"]
    assert refused(update).details == ("tensor bias: missing",)


@pytest.mark.parametrize(
    "update",
    [
        {},
        {"metrics": {}},
        {"params": []},
        {"params": None},
        {"params": {1: np.zeros(2)}},
        [],
        None,
        "params",
        {"params": {"weight": {"nested": np.zeros(2)}, "bias": {}}},
    ],
)
def test_another_structure_is_refused(update: object) -> None:
    refused(update)


def test_a_mapping_that_is_no_plain_dictionary_is_not_read() -> None:
    class Shifty(dict[str, object]):
        """Shows another face each time."""

        def __iter__(self) -> object:  # type: ignore[override]
            raise AssertionError("the airlock ran the sender's code")

        __getitem__ = items = keys = __contains__ = __iter__  # type: ignore[assignment]

    refused(Shifty(sound()))
    update: dict[str, object] = dict(sound())
    update["params"] = Shifty(sound()["params"])
    refused(update)


def test_a_name_that_is_a_subclass_of_text_is_refused() -> None:
    class Name(str):
        """Carries what it likes."""

        __slots__ = ("patient",)

    update = sound()
    bias = update["params"].pop("bias")
    update["params"][Name("bias")] = bias
    refused(update)


def test_an_update_over_the_size_cap_is_refused_before_anything_is_copied() -> None:
    small = AirlockPolicy(tensors=POLICY.tensors, scalars=POLICY.scalars, max_bytes=39)
    assert refused(sound(), small).details == ("update: 40 bytes, at most 39 may leave",)
    exact = AirlockPolicy(tensors=POLICY.tensors, scalars=POLICY.scalars, max_bytes=40)
    assert screen(sound(), exact, charges=PAID).bytes == 40


def test_every_problem_is_listed() -> None:
    update = {
        "params": {"weight": np.full((2, 3), np.nan, dtype=np.float32), "x": 1},
        "metrics": {"loss": -1.0, "accuracy": "high", "y": 2},
        "z": {},
    }
    assert len(refused(update).details) == 7


@pytest.mark.parametrize(
    "fields",
    [
        {"tensors": ()},
        {"tensors": (TensorSpec("a", (1,)), TensorSpec("a", (2,)))},
        {"tensors": (TensorSpec("a", (-1,)),)},
        {"tensors": (TensorSpec("a", (1,), "int32"),)},  # type: ignore[arg-type]
        {"tensors": (TensorSpec("a", (1,)),), "scalars": {"b": ScalarSpec(1.0, 0.0, 9, "noise")}},
        {"tensors": (TensorSpec("a", (1,)),), "scalars": {"b": ScalarSpec(0.0, float("inf"), 9, "noise")}},
        {"tensors": (TensorSpec("a", (1,)),), "scalars": {"b": ScalarSpec(0.0, 1.0, 2**17, "noise")}},
        {"tensors": (TensorSpec("a", (1,)),), "scalars": {"b": ScalarSpec(0.0, 1.0, 2, "goodwill")}},
        {"tensors": (TensorSpec("a.raw_data", (1,)),)},
        {"tensors": (TensorSpec("a", (1,)),), "scalars": {"patient_id": ScalarSpec(0.0, 1.0, 2, "noise")}},
        {"tensors": (TensorSpec("a", (1,)),), "mantissa_bits": 0},
        {"tensors": (TensorSpec("a", (1,)),), "mantissa_bits": 53},
        {"tensors": (TensorSpec("a", (1,)),), "max_bytes": 0},
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(EnclaveError) as caught:
        AirlockPolicy(**fields)  # type: ignore[arg-type]
    assert caught.value.code == "enclave.airlock_policy"


def test_a_policy_is_made_from_the_model_that_was_sent_out() -> None:
    tensors = {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)}
    policy = AirlockPolicy.for_tensors(tensors, scalars=dict(POLICY.scalars), max_bytes=1000)
    assert policy.sha256 == POLICY.sha256
    assert AirlockPolicy.for_tensors(tensors).sha256 != POLICY.sha256
    with pytest.raises(EnclaveError):
        AirlockPolicy.for_tensors({"weight": np.zeros(2, np.int64)})  # type: ignore[dict-item]


shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12),
        hnp.arrays(np.float32, shapes, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_a_hash_names_content_only(tensors: dict[str, np.ndarray], random: object) -> None:
    screened = screen({"params": dict(tensors)}, AirlockPolicy.for_tensors(tensors))
    shuffled = list(tensors.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = {name: np.array(tensor, order="F") for name, tensor in shuffled}
    assert screened.sha256 == tensors_sha256(tensors) == tensors_sha256(other)


@given(
    hnp.arrays(st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(), hnp.byte_string_dtypes()), shapes)
)
def test_no_array_passes_that_is_not_exactly_as_listed(array: np.ndarray) -> None:
    update = {"params": {"bias": array}}
    policy = AirlockPolicy(tensors=(TensorSpec("bias", (2,)),))
    if array.dtype == np.dtype("<f4") and array.shape == (2,) and np.isfinite(array).all():
        assert np.array_equal(screen(update, policy).tensors["bias"], array)
    else:
        refused(update, policy)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["params", "metrics", "weight", "bias", "loss", "x"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_is_sent_without_the_listed_arrays_is_refused(update: object) -> None:
    refused(update)


@given(st.integers(0, 5), st.floats(-1e6, 1e6, width=32))
def test_one_changed_number_changes_the_hash(position: int, value: float) -> None:
    first, second = sound(), sound()
    weight = second["params"]["weight"]
    assert isinstance(weight, np.ndarray)
    if weight.flat[position] == np.float32(value):
        return
    weight.flat[position] = value
    assert screen(first, POLICY, charges=PAID).sha256 != screen(second, POLICY, charges=PAID).sha256


def test_scalars_names_shapes_and_dtypes_are_part_of_the_hash() -> None:
    zeros = np.zeros(4, np.float32)
    hashes = {
        tensors_sha256({"a": zeros}),
        tensors_sha256({"b": zeros}),
        tensors_sha256({"a": zeros.reshape(2, 2)}),
        tensors_sha256({"a": np.zeros(2, np.float64)}),
        tensors_sha256({"a": zeros[:2], "b": zeros[2:]}),
        update_sha256({"a": zeros}, {"loss": 0.0}),
        update_sha256({"a": zeros}, {"loss": 1.0}),
    }
    assert len(hashes) == 7
