"""Named float tensors as bytes: one canonical form, one hash.

The hash of an update and of a model's weights is SHA-256 over an 8-byte big-endian length, the RFC 8785
form of ``{"schema": "urn:cloister:tensors:v1", "tensors": [{"dtype", "name", "shape"}...], "scalars":
{name: value}}`` with tensors sorted by name, then each tensor's elements, little-endian, row-major, in
that order. It names content only: memory order, strides and the order of insertion don't enter.
"""

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cloister.core.canonical import JSON, canonicalize

TENSOR_SCHEMA = "urn:cloister:tensors:v1"
FLOAT_DTYPES: Mapping[str, np.dtype[np.float32] | np.dtype[np.float64]] = {
    "float32": np.dtype("<f4"),
    "float64": np.dtype("<f8"),
}

FloatArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def tensors_sha256(tensors: Mapping[str, FloatArray]) -> str:
    """Hash of named tensors; equals ``update_sha256(tensors, {})``.

    Args:
        tensors: float32 or float64 arrays by name.

    Returns:
        64 lower-case hex digits.
    """
    return update_sha256(tensors, {})


def update_sha256(tensors: Mapping[str, FloatArray], scalars: Mapping[str, float]) -> str:
    """Hash of an update: its tensors and its scalars.

    Args:
        tensors: float32 or float64 arrays by name.
        scalars: finite numbers by name.

    Returns:
        64 lower-case hex digits.
    """
    names = sorted(tensors)
    listed: list[JSON] = [
        {"name": name, "dtype": tensors[name].dtype.name, "shape": list(tensors[name].shape)}
        for name in names
    ]
    header = canonicalize(
        {
            "schema": TENSOR_SCHEMA,
            "tensors": listed,
            "scalars": {name: float(value) for name, value in scalars.items()},
        }
    )
    digest = hashlib.sha256(len(header).to_bytes(8, "big"))
    digest.update(header)
    for name in names:
        tensor = tensors[name]
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes(order="C"))
    return digest.hexdigest()
