"""What weights hash to, and the weights in a model file: so that a verifier ties the file to the training.

The hash of named tensors is SHA-256 over an 8-byte big-endian length, the RFC 8785 form of ``{"schema":
"urn:cloister:tensors:v1", "tensors": [{"dtype", "name", "shape"}...], "scalars": {name: value}}`` with
tensors sorted by name, then each tensor's elements, little-endian, row-major, in that order. It names
content only.

A model file is in Hugging Face's safetensors format: an 8-byte little-endian header length, a JSON header,
the elements. It is read here without NumPy, strictly: float tensors only, no metadata but the mark of a run
that wasn't protected, and every byte of the data belongs to exactly one tensor.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256
from cloister.evidence.errors import EvidenceError
from cloister.evidence.terms import MODEL_MARK, MODEL_MARKS

TENSOR_SCHEMA: Final = "urn:cloister:tensors:v1"
MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
_DTYPES: Final = {"F32": ("float32", 4), "F64": ("float64", 8)}
_METADATA: Final = tuple({MODEL_MARK: mark} for mark in MODEL_MARKS)


@dataclass(frozen=True, slots=True)
class TensorForm:
    """What a tensor is apart from its values.

    Attributes:
        name: its name.
        dtype: ``float32`` or ``float64``.
        shape: its dimensions.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """The weights in a model file.

    Attributes:
        sha256: hash of its named tensors.
        forms: each of them, sorted by name.
    """

    sha256: Sha256
    forms: tuple[TensorForm, ...]


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One named tensor as bytes.

    Attributes:
        name: its name.
        dtype: ``float32`` or ``float64``.
        shape: its dimensions.
        data: its elements, little-endian, row-major.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: str
    shape: list[int] = Field(max_length=32)
    data_offsets: list[int] = Field(min_length=2, max_length=2)


_HEADER = TypeAdapter(dict[str, _Entry])


def hash_tensors(tensors: Iterable[RawTensor], scalars: Mapping[str, float] | None = None) -> Sha256:
    """Hash named tensors and scalars, as the module describes.

    Args:
        tensors: in any order, each name once.
        scalars: finite numbers by name.

    Returns:
        64 lower-case hex digits.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    listed: list[JSON] = [
        {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in ordered
    ]
    named: dict[str, JSON] = {name: float(value) for name, value in (scalars or {}).items()}
    header = canonicalize({"schema": TENSOR_SCHEMA, "tensors": listed, "scalars": named})
    digest = hashlib.sha256(len(header).to_bytes(8, "big"))
    digest.update(header)
    for tensor in ordered:
        digest.update(tensor.data)
    return Sha256(digest.hexdigest())


def model_file_weights(data: bytes) -> ModelWeights:
    """Read which weights are in a model file.

    Args:
        data: the file's bytes.

    Returns:
        The hash and the forms of its named tensors.

    Raises:
        EvidenceError: ``evidence.model_malformed`` unless it is a strict safetensors file of float tensors.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise _malformed()
    try:
        named = parse(data[8 : 8 + length], max_bytes=MAX_HEADER_BYTES)
        if isinstance(named, dict) and named.get("__metadata__") in _METADATA:
            del named["__metadata__"]
        header = _HEADER.validate_python(named)
    except (InputError, ValidationError):
        raise _malformed() from None
    body = memoryview(data)[8 + length :]
    tensors, end = [], 0
    for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
        dtype, width = _DTYPES.get(entry.dtype, ("", 0))
        start, stop = entry.data_offsets
        size = math.prod(entry.shape) * width
        if not width or min(entry.shape, default=1) < 0 or start != end or stop - start != size:
            raise _malformed()
        tensors.append(RawTensor(name, dtype, tuple(entry.shape), body[start:stop]))
        end = stop
    if end != len(body) or not tensors:
        raise _malformed()
    tensors.sort(key=lambda tensor: tensor.name)
    forms = tuple(TensorForm(one.name, one.dtype, one.shape) for one in tensors)
    return ModelWeights(hash_tensors(tensors), forms)


def _malformed() -> EvidenceError:
    return EvidenceError(
        "evidence.model_malformed",
        "The model file is not a strict safetensors file of float tensors.",
        "Use the file as it was released.",
    )
