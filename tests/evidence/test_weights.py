"""A model file is tied to the training by its weights, read strictly and without NumPy."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.model_file import encode_model
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.context import model_artifact
from cloister.evidence.errors import EvidenceError
from cloister.evidence.weights import model_file_weights
from tests.evidence.synthetic import model_file

shapes = st.lists(st.integers(min_value=0, max_value=4), max_size=3).map(tuple)


@given(st.dictionaries(st.text(min_size=1, max_size=5), shapes, min_size=1, max_size=4), st.booleans())
def test_the_weights_in_a_released_file_have_the_hash_that_training_stated(
    shapes_by_name: dict[str, tuple[int, ...]], wide: bool
) -> None:
    kind = np.float64 if wide else np.float32
    tensors = {name: np.full(shape, 0.25, dtype=kind) for name, shape in shapes_by_name.items()}
    assert model_file_weights(encode_model(tensors)).sha256 == tensors_sha256(tensors)


def test_another_value_is_another_hash() -> None:
    assert model_file_weights(model_file(1.0, 2.0)).sha256 != model_file_weights(model_file(1.0, 2.5)).sha256


GOOD = model_file(1.0, 2.0)


def with_header(header: str, body: bytes = bytes(8)) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        GOOD[:-1],
        GOOD + b"\0",
        (2**63).to_bytes(8, "little") + b"{}",
        with_header("{}"),
        with_header("[]"),
        with_header("not json"),
        with_header('{"w":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}'),
        with_header('{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}'),
        with_header('{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}'),
        with_header('{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'),
        with_header('{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"code":"x"}}'),
        with_header('{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        with_header(
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
            '"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        ),
        with_header(
            '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        ),
    ],
)
def test_what_is_not_a_strict_model_file_has_no_weights(data: bytes) -> None:
    with pytest.raises(EvidenceError) as refused:
        model_file_weights(data)
    assert refused.value.code == "evidence.model_malformed"
    assert model_artifact(data).weights_sha256 is None


@pytest.mark.parametrize("mark", ["SIMULATED", "INSECURE"])
def test_the_mark_of_a_run_is_the_one_thing_beside_the_weights(mark: str) -> None:
    tensor = '"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    plain = with_header("{" + tensor + "}")
    marked = with_header('{"__metadata__":{"cloister":"' + mark + '"},' + tensor + "}")
    assert model_file_weights(marked) == model_file_weights(plain)
    with pytest.raises(EvidenceError):
        model_file_weights(with_header('{"__metadata__":{"cloister":"' + mark + '."},' + tensor + "}"))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_hash_or_in_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(EvidenceError):
        model_file_weights(data)
