"""The model file: safetensors with one encoding per content.

The format is Hugging Face's safetensors: an 8-byte little-endian header length, a JSON header, the
elements. Files written here carry no metadata but the mark of a run that wasn't protected, list tensors as
the library orders them, and read back only if they re-encode to the same bytes, so that a file's hash names
its content. Nothing in the format can run code.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Final, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cloister.enclave.errors import EnclaveError
from cloister.enclave.tensors import FLOAT_DTYPES, FloatArray
from cloister.evidence.terms import MODEL_MARK, MODEL_MARKS

DEFAULT_MAX_BYTES = 1024 * 1024 * 1024
_HEADER_LENGTH: Final = struct.Struct("<Q")


def encode_model(tensors: Mapping[str, FloatArray], mark: str = "") -> bytes:
    """Write named tensors as a model file.

    Args:
        tensors: finite float32 or float64 arrays by name.
        mark: how the run that made it was protected, where that is less than by hardware that proved itself:
            `Protection.mark`. It stands in the header's metadata, which every reader of the format shows and
            none minds.

    Returns:
        The file's bytes, equal for equal content.

    Raises:
        EnclaveError: enclave.model_file for other dtypes, no tensor, NaN or infinity.
    """
    for tensor in tensors.values():
        if str(tensor.dtype) not in FLOAT_DTYPES or not np.isfinite(tensor).all():
            raise _refused("holds something other than finite float tensors")
    if not tensors:
        raise _refused("holds no tensor")
    metadata = {MODEL_MARK: mark} if mark else None
    return cast(bytes, save({name: np.array(tensors[name], order="C") for name in sorted(tensors)}, metadata))


def decode_model(data: bytes, *, max_bytes: int = DEFAULT_MAX_BYTES) -> dict[str, FloatArray]:
    """Read a model file.

    Args:
        data: the file's bytes.
        max_bytes: refuse more than this.

    Returns:
        Arrays by name, sorted.

    Raises:
        EnclaveError: enclave.model_file unless the bytes are exactly what ``encode_model`` writes.
    """
    if len(data) > max_bytes:
        raise _refused(f"has more than {max_bytes} bytes")
    try:
        loaded = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        raise _refused("isn't in safetensors format") from None
    tensors = {name: loaded[name] for name in sorted(loaded)}
    if encode_model(tensors, _mark_of(data)) != data:
        raise _refused("isn't in its canonical encoding")
    return tensors


def model_mark(data: bytes) -> str:
    """The mark of a model file; empty where a protected run made it.

    Args:
        data: the file's bytes.

    Raises:
        EnclaveError: enclave.model_file unless the bytes are exactly what ``encode_model`` writes.
    """
    decode_model(data)
    return _mark_of(data)


def count_numbers(data: bytes) -> int:
    """How many numbers a model file's header lists.

    Args:
        data: the file's bytes.

    Raises:
        EnclaveError: enclave.model_file for something that has no such header.
    """
    try:
        (length,) = _HEADER_LENGTH.unpack_from(data)
        listed = json.loads(data[_HEADER_LENGTH.size : _HEADER_LENGTH.size + length])
        return sum(math.prod(one["shape"]) for name, one in listed.items() if name != "__metadata__")
    except (struct.error, ValueError, TypeError, KeyError, AttributeError):
        raise _refused("has no header of its format") from None


def _mark_of(data: bytes) -> str:
    """The mark in the header of a file that the library has read."""
    (length,) = _HEADER_LENGTH.unpack_from(data)
    metadata = json.loads(data[_HEADER_LENGTH.size : _HEADER_LENGTH.size + length]).get("__metadata__") or {}
    mark = metadata.get(MODEL_MARK, "")
    if mark not in ("", *MODEL_MARKS):
        raise _refused("carries a mark that no run leaves")
    return cast(str, mark)


def _refused(why: str) -> EnclaveError:
    return EnclaveError("enclave.model_file", f"The model file {why}.", "Use the file as it was released.")
