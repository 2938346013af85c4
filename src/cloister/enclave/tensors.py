"""Named float arrays, and their hash as :mod:`cloister.evidence.weights` defines it.

It names content only: memory order, strides and the order of insertion don't enter.
"""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cloister.evidence.weights import RawTensor, hash_tensors

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
    return hash_tensors(
        (
            RawTensor(name, tensor.dtype.name, tensor.shape, _little_endian(tensor))
            for name, tensor in tensors.items()
        ),
        scalars,
    )


def _little_endian(tensor: FloatArray) -> memoryview:
    plain = np.ascontiguousarray(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False))
    return plain.reshape(-1).view(np.uint8).data
