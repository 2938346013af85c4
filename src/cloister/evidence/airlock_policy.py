"""The airlock policy's form and hash: so that a verifier tells what a site let out, without NumPy.

A policy lists every tensor and every number that may leave in one update, how large it may be, how far its
weights may be from those received, to how many bits they are rounded, and how many bits of information all
of it together may hold. A federated job lets out exactly the model's tensors and no number beside them. From
what a site states, anyone recomputes the hash of the policy it must have applied.

How much an update could tell is counted from its form alone (`information_bits`): the logarithm of how many
different updates of this form can pass. It is a capacity, for whoever writes an update as it likes; how much
an honest one tells of a record is bounded by differential privacy, and is far less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence.change_limit import ChangeLimit
from cloister.evidence.weights import TensorForm

POLICY_SCHEMA: Final = "urn:cloister:airlock-policy:v3"
MAX_UPDATE_BYTES: Final = 64 * 1024 * 1024
MAX_SCALAR_STEPS: Final = 65_536
ELEMENT_BYTES: Final[Mapping[str, int]] = MappingProxyType({"float32": 4, "float64": 8})
"""The element types a policy may list, with the size of one element."""
MANTISSA_BITS: Final[Mapping[str, int]] = MappingProxyType({"float32": 23, "float64": 52})
"""How many bits of fraction an element of each type has."""
_SIGN_AND_EXPONENT: Final[Mapping[str, int]] = MappingProxyType({"float32": 9, "float64": 12})

LISTED_TENSORS: Final = "listed-tensors"
NOTHING_UNPAID: Final = "no-unpaid-scalars"
FINITE_VALUES: Final = "finite-values"
BYTE_CAP: Final = "byte-cap"
CAPPED_PRECISION: Final = "capped-precision"
BOUNDED_CHANGE: Final = "bounded-change"
CAPPED_INFORMATION: Final = "capped-information"

FROM_CLIPPING: Final = "from-clipping"
"""The manifest's word for: changes are bounded by what clipping makes possible (`change_limit`)."""


@dataclass(frozen=True, slots=True)
class ScalarSpec:
    """A number that may leave beside the tensors, on a public grid of its own.

    Attributes:
        low: the smallest value.
        high: the largest, above ``low``.
        steps: into how many equal steps the range is cut, at most ``MAX_SCALAR_STEPS``; the number leaves as
            the nearest end of one, so that it carries no more than that many values tell apart.
        paid_as: what hides a record in it and was charged for: ``noise`` on it, or a ``bucket`` chosen by
            randomised response. There is no third way.
    """

    low: float
    high: float
    steps: int
    paid_as: Literal["noise", "bucket"]

    @property
    def sound(self) -> bool:
        """Whether it describes a grid."""
        return (
            math.isfinite(self.low)
            and math.isfinite(self.high)
            and math.isfinite(self.high - self.low)
            and self.low < self.high
            and 1 <= self.steps <= MAX_SCALAR_STEPS
            and self.paid_as in ("noise", "bucket")
        )

    def nearest(self, value: float) -> float:
        """The value's nearest point of the grid; a value outside of the range has its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.low + (self.high - self.low) * (round(share * self.steps) / self.steps)

    def as_json(self) -> JSON:
        """The same as plain JSON values."""
        return {
            "low": float(self.low),
            "high": float(self.high),
            "steps": self.steps,
            "paid_as": self.paid_as,
        }


NO_SCALARS: Final[Mapping[str, ScalarSpec]] = MappingProxyType({})


def policy_sha256(
    tensors: Iterable[TensorForm],
    scalars: Mapping[str, ScalarSpec] = NO_SCALARS,
    max_bytes: int = MAX_UPDATE_BYTES,
    *,
    mantissa_bits: int | None = None,
    change: ChangeLimit | None = None,
    max_bits: int | None = None,
) -> Sha256:
    """SHA-256 of a policy's RFC 8785 form.

    Args:
        tensors: every tensor that must be there, in any order.
        scalars: numbers that may be there, by name.
        max_bytes: largest sum of element bytes, 8 per scalar.
        mantissa_bits: bits of fraction to which weights are rounded; None leaves them as they are.
        change: how far weights may be from those received; None for any.
        max_bits: how much information an update may hold at most; None for no cap beyond its size.
    """
    policy: JSON = {
        "schema": POLICY_SCHEMA,
        "tensors": [
            {"name": form.name, "shape": list(form.shape), "dtype": form.dtype}
            for form in sorted(tensors, key=lambda form: form.name)
        ],
        "scalars": {name: spec.as_json() for name, spec in scalars.items()},
        "max_bytes": max_bytes,
        "mantissa_bits": mantissa_bits,
        "max_bits": max_bits,
        "change": None
        if change is None
        else {
            "l2": float(change.l2),
            "largest": float(change.largest),
            "rounding": float(change.rounding),
        },
    }
    return sha256_hex(canonicalize(policy))


def constraints_of(
    *, mantissa_bits: int | None, change: ChangeLimit | None, max_bits: int | None = None
) -> tuple[str, ...]:
    """Names of everything an update that left under such a policy was held against, in a fixed order.

    Args:
        mantissa_bits: as in `policy_sha256`.
        change: as in `policy_sha256`.
        max_bits: as in `policy_sha256`.
    """
    named = [LISTED_TENSORS, NOTHING_UNPAID, FINITE_VALUES, BYTE_CAP]
    if mantissa_bits is not None:
        named.append(CAPPED_PRECISION)
    if change is not None:
        named.append(BOUNDED_CHANGE)
    if max_bits is not None:
        named.append(CAPPED_INFORMATION)
    return tuple(named)


def information_bits(
    tensors: Iterable[TensorForm],
    scalars: Mapping[str, ScalarSpec] = NO_SCALARS,
    *,
    mantissa_bits: int | None = None,
) -> int:
    """How much information an update can hold at most, in bits.

    An element that is rounded to ``m`` bits of fraction is one of at most ``2**(1 + e + m)`` values, with
    ``e`` bits of exponent (IEEE 754-2019, section 3.4); a number is one of the points of its grid.

    Args:
        tensors: everything that leaves, of types in ``ELEMENT_BYTES``.
        scalars: numbers that may leave, by name.
        mantissa_bits: bits of fraction to which weights are rounded; None leaves them as they are.
    """
    total = 0
    for form in tensors:
        fraction = MANTISSA_BITS[form.dtype]
        kept = fraction if mantissa_bits is None else min(mantissa_bits, fraction)
        total += math.prod(form.shape) * (_SIGN_AND_EXPONENT[form.dtype] + kept)
    return total + sum(spec.steps.bit_length() for spec in scalars.values())


def cap_of_a_round(max_update_bits: int | None, max_job_bits: int | None, rounds: int) -> int | None:
    """The cap on each round's update that keeps both to a manifest's caps; None where it has none.

    Every round's update has one form and holds as many bits, so a job's cap is shared out evenly.

    Args:
        max_update_bits: the manifest's cap on one update.
        max_job_bits: its cap on all updates of a job.
        rounds: how many the job has.
    """
    caps = [max_update_bits, None if max_job_bits is None else max_job_bits // rounds]
    return min((one for one in caps if one is not None), default=None)


def elements(tensors: Iterable[TensorForm]) -> int:
    """How many elements the tensors have together."""
    return sum(math.prod(form.shape) for form in tensors)


def element_bytes(tensors: Iterable[TensorForm]) -> int:
    """Bytes of the elements of tensors whose types are in ``ELEMENT_BYTES``."""
    return sum(math.prod(form.shape) * ELEMENT_BYTES[form.dtype] for form in tensors)
