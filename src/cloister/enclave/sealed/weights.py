"""Named float32 arrays across the border, in the one encoding that both sides know beforehand.

The format is safetensors. Both sides know the model, hence every name, shape and type, hence the whole header
and the size to the byte: what arrives has exactly these or is refused before it is looked into. There is no
room for a further tensor, a name, metadata or a gap. Values are not judged here, NaN included; that is the
airlock's office.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from cloister.enclave.sealed.frames import protocol_error

Weights32 = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class WeightsForm:
    """The names and shapes of a model's weights.

    Attributes:
        head: the bytes before the first element, equal for equal names and shapes.
        places: name, shape and place of the first byte of each array, in the order of the bytes.
        size: bytes in all.
    """

    head: bytes
    places: tuple[tuple[str, tuple[int, ...], int], ...]
    size: int

    @classmethod
    def of(cls, arrays: Weights32) -> WeightsForm:
        """The form of a model's arrays."""
        empty = {name: np.zeros(arrays[name].shape, np.float32) for name in sorted(arrays)}
        written = cast(bytes, save(empty))
        head_size = 8 + int.from_bytes(written[:8], "little")
        places, at = [], head_size
        for name, array in empty.items():
            places.append((name, array.shape, at))
            at += array.nbytes
        return cls(written[:head_size], tuple(places), len(written))

    def write(self, arrays: Weights32) -> bytearray:
        """The bytes of arrays of this form.

        Raises:
            SealedError: ``sealed.protocol`` for other names, shapes or types.
        """
        if len(arrays) != len(self.places):
            raise protocol_error("weights are not those of the agreed model")
        written = bytearray(self.size)
        written[: len(self.head)] = self.head
        for name, shape, at in self.places:
            array = arrays.get(name)
            if array is None or array.shape != shape or array.dtype != np.float32:
                raise protocol_error("weights are not those of the agreed model")
            self._place(written, shape, at)[...] = array
        return written

    def read(self, data: bytes | bytearray | memoryview) -> dict[str, npt.NDArray[np.float32]]:
        """Arrays that look into bytes of this form.

        Raises:
            SealedError: ``sealed.protocol`` for anything else.
        """
        if len(data) != self.size or bytes(data[: len(self.head)]) != self.head:
            raise protocol_error("weights are not those of the agreed model")
        return {name: self._place(data, shape, at) for name, shape, at in self.places}

    @staticmethod
    def _place(
        data: bytes | bytearray | memoryview, shape: tuple[int, ...], at: int
    ) -> npt.NDArray[np.float32]:
        return np.frombuffer(data, "<f4", math.prod(shape), at).reshape(shape)
