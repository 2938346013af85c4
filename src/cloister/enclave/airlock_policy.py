"""What may leave a site in one update: the policy that the airlock applies.

A policy is public, is made before anything is trained, and is named in every release by its hash, which a
verifier computes from what the release states (`cloister.evidence.airlock_policy`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast

from cloister.enclave.errors import EnclaveError
from cloister.enclave.tensors import FLOAT_DTYPES, FloatArray
from cloister.evidence.airlock_policy import (
    MANTISSA_BITS,
    MAX_UPDATE_BYTES,
    ScalarSpec,
    constraints_of,
    information_bits,
    policy_sha256,
)
from cloister.evidence.change_limit import ChangeLimit
from cloister.evidence.weights import TensorForm

DtypeName: TypeAlias = Literal["float32", "float64"]

NEVER_LEAVES: Final = frozenset({"private_key", "secret", "patient_id", "raw_data", "pii"})
"""Names that no policy may list and no update may hold, at any depth. A list of names keeps out mistakes, not
who picks another name: what isn't listed doesn't leave either way."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that may leave: its exact name, shape and dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: DtypeName = "float32"

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * FLOAT_DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class AirlockPolicy:
    """All that may leave in one update.

    Attributes:
        tensors: every tensor that must be there, and no other may.
        scalars: numbers that may be there, by name; each only as what was paid for.
        max_bytes: largest sum of element bytes, 8 per scalar.
        mantissa_bits: bits of fraction to which weights are rounded as they leave, subnormal ones and
            negative zero to zero; None leaves them as they are.
        change: how far the weights may be from those received; None for any.
        max_bits: how much information an update may hold at most, counted from its form; None for no cap.

    Raises:
        EnclaveError: enclave.airlock_policy for doubled or blocked names, negative sizes, unknown dtypes,
        empty ranges, or bits that no dtype has.
    """

    tensors: tuple[TensorSpec, ...]
    scalars: Mapping[str, ScalarSpec] = field(default_factory=dict)
    max_bytes: int = MAX_UPDATE_BYTES
    mantissa_bits: int | None = None
    change: ChangeLimit | None = None
    max_bits: int | None = None

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.tensors]
        sound = (
            bool(names)
            and len(set(names)) == len(names)
            and not any(NEVER_LEAVES.intersection(name.split(".")) for name in (*names, *self.scalars))
            and all(spec.dtype in FLOAT_DTYPES and min(spec.shape, default=0) >= 0 for spec in self.tensors)
            and all(spec.sound for spec in self.scalars.values())
            and self.max_bytes > 0
            and (self.max_bits is None or self.max_bits >= 0)
            and (self.mantissa_bits is None or 1 <= self.mantissa_bits <= max(MANTISSA_BITS.values()))
        )
        if not sound:
            raise EnclaveError("enclave.airlock_policy", "The airlock policy contradicts itself.")
        object.__setattr__(self, "scalars", MappingProxyType(dict(self.scalars)))

    @classmethod
    def for_tensors(
        cls,
        tensors: Mapping[str, FloatArray],
        *,
        scalars: Mapping[str, ScalarSpec] | None = None,
        max_bytes: int = MAX_UPDATE_BYTES,
        mantissa_bits: int | None = None,
        change: ChangeLimit | None = None,
        max_bits: int | None = None,
    ) -> "AirlockPolicy":
        """The policy that lets exactly the names, shapes and dtypes of a known model pass.

        Args:
            tensors: the global model's weights by name.
            scalars: numbers that may leave too, by name.
            max_bytes: cap on the whole update.
            mantissa_bits: bits of fraction to which weights are rounded.
            change: how far weights may be from those received.
            max_bits: cap on the information in the whole update.

        Raises:
            EnclaveError: a tensor isn't float32 or float64.
        """
        return cls(
            tensors=tuple(
                TensorSpec(name, tensors[name].shape, cast(DtypeName, str(tensors[name].dtype)))
                for name in sorted(tensors)
            ),
            scalars=dict(scalars or {}),
            max_bytes=max_bytes,
            mantissa_bits=mantissa_bits,
            change=change,
            max_bits=max_bits,
        )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the policy's RFC 8785 form."""
        return policy_sha256(
            self.forms,
            self.scalars,
            self.max_bytes,
            mantissa_bits=self.mantissa_bits,
            change=self.change,
            max_bits=self.max_bits,
        )

    @cached_property
    def bits(self) -> int:
        """How much information an update can hold at most."""
        return information_bits(self.forms, self.scalars, mantissa_bits=self.mantissa_bits)

    @cached_property
    def forms(self) -> tuple[TensorForm, ...]:
        """Name, dtype and shape of each tensor."""
        return tuple(TensorForm(spec.name, spec.dtype, spec.shape) for spec in self.tensors)

    @property
    def constraints(self) -> tuple[str, ...]:
        """Names of everything that an update which left was held against, and kept to."""
        return constraints_of(mantissa_bits=self.mantissa_bits, change=self.change, max_bits=self.max_bits)
