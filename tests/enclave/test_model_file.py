"""The model file: one encoding per content, and nothing but finite float tensors in it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from cloister.enclave import EnclaveError, decode_model, encode_model
from cloister.enclave.model_file import model_mark
from cloister.enclave.protection import Protection

WEIGHTS = {
    "layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layer.bias": np.asarray([1.0, -1.0], dtype=np.float32),
    "scale": np.asarray(2.5, dtype=np.float64),
}


def refused(data: bytes) -> None:
    with pytest.raises(EnclaveError) as caught:
        decode_model(data)
    assert caught.value.code == "enclave.model_file"


def test_what_is_written_is_read_back() -> None:
    read = decode_model(encode_model(WEIGHTS))
    assert list(read) == sorted(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        assert read[name].dtype == tensor.dtype
        assert np.array_equal(read[name], tensor)


def test_equal_content_is_equal_bytes_whatever_the_order_or_strides() -> None:
    again = {name: np.array(WEIGHTS[name], order="F") for name in reversed(WEIGHTS)}
    assert encode_model(again) == encode_model(WEIGHTS)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"a": np.zeros(2, np.int64)},
        {"a": np.zeros(2, np.float16)},
        {"a": np.asarray([np.nan], np.float32)},
        {"a": np.asarray([np.inf], np.float32)},
        {"a": np.asarray([{}], object)},
    ],
)
def test_other_content_is_not_written(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(EnclaveError) as caught:
        encode_model(tensors)
    assert caught.value.code == "enclave.model_file"


def test_a_file_in_another_encoding_is_refused() -> None:
    good = encode_model(WEIGHTS)
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    spaced = json.dumps(header, indent=1).encode()
    for data in (
        good + b"\0",
        good[:-1],
        b"",
        b"\0" * 8,
        b"\xff" * 8 + good[8:],
        len(spaced).to_bytes(8, "little") + spaced + good[8 + length :],
        save(WEIGHTS, metadata={"note": "a message"}),
        save(WEIGHTS, metadata={"cloister": "a message"}),
        save(WEIGHTS, metadata={"cloister": "SIMULATED", "note": "a message"}),
        pickle.dumps(WEIGHTS),
    ):
        refused(data)


@pytest.mark.parametrize("protection", list(Protection))
def test_a_file_says_how_the_run_that_made_it_was_protected(protection: Protection) -> None:
    data = encode_model(WEIGHTS, protection.mark)
    assert model_mark(data) == protection.mark
    assert list(decode_model(data)) == sorted(WEIGHTS)
    assert protection.mark.encode() in data


def test_a_file_over_its_cap_is_refused() -> None:
    data = encode_model(WEIGHTS)
    with pytest.raises(EnclaveError):
        decode_model(data, max_bytes=len(data) - 1)


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    refused(data)


@given(st.integers(min_value=0), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_is_other_content(position: int, bit: int) -> None:
    good = encode_model(WEIGHTS)
    data = bytearray(good)
    data[position % len(data)] ^= 1 << bit
    try:
        read = decode_model(bytes(data))
    except EnclaveError:
        return
    assert encode_model(read, model_mark(bytes(data))) == bytes(data) != good
