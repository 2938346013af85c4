"""The model file: safetensors with one encoding per content.

The format is Hugging Face's safetensors: an 8-byte little-endian header length, a JSON header, the
elements. Files written here carry no metadata, list tensors as the library orders them, and read back only
if they re-encode to the same bytes, so that a file's hash names its content. Nothing in the format can run
code.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cloister.enclave.errors import EnclaveError
from cloister.enclave.tensors import FLOAT_DTYPES, FloatArray

DEFAULT_MAX_BYTES = 1024 * 1024 * 1024


def encode_model(tensors: Mapping[str, FloatArray]) -> bytes:
    """Write named tensors as a model file.

    Args:
        tensors: finite float32 or float64 arrays by name.

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
    return cast(bytes, save({name: np.array(tensors[name], order="C") for name in sorted(tensors)}))


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
    if encode_model(tensors) != data:
        raise _refused("isn't in its canonical encoding")
    return tensors


def _refused(why: str) -> EnclaveError:
    return EnclaveError("enclave.model_file", f"The model file {why}.", "Use the file as it was released.")
