"""The airlock policy's form and hash: so that a verifier tells what a site let out, without NumPy.

A policy lists every tensor and every number that may leave in one update. A federated job lets out exactly
the model's tensors, no number beside them, and at most ``MAX_UPDATE_BYTES``; from the tensors a site states
anyone recomputes the hash of the policy it must have applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence.weights import TensorForm

POLICY_SCHEMA: Final = "urn:cloister:airlock-policy:v1"
MAX_UPDATE_BYTES: Final = 64 * 1024 * 1024
ELEMENT_BYTES: Final[Mapping[str, int]] = MappingProxyType({"float32": 4, "float64": 8})
"""The element types a policy may list, with the size of one element."""


def policy_json(
    tensors: Iterable[TensorForm], scalars: Mapping[str, tuple[float, float]], max_bytes: int
) -> JSON:
    """A policy as plain JSON values.

    Args:
        tensors: every tensor that must be there, in any order.
        scalars: name to (lowest, highest) of numbers that may be there.
        max_bytes: largest sum of element bytes, 8 per scalar.
    """
    return {
        "schema": POLICY_SCHEMA,
        "tensors": [
            {"name": form.name, "shape": list(form.shape), "dtype": form.dtype}
            for form in sorted(tensors, key=lambda form: form.name)
        ],
        "scalars": {name: [float(low), float(high)] for name, (low, high) in scalars.items()},
        "max_bytes": max_bytes,
    }


def policy_sha256(
    tensors: Iterable[TensorForm],
    scalars: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    max_bytes: int = MAX_UPDATE_BYTES,
) -> Sha256:
    """SHA-256 of a policy's RFC 8785 form; by default of the one that lets a model's tensors out.

    Args:
        tensors: as in `policy_json`.
        scalars: as in `policy_json`.
        max_bytes: as in `policy_json`.
    """
    return sha256_hex(canonicalize(policy_json(tensors, scalars, max_bytes)))


def element_bytes(tensors: Iterable[TensorForm]) -> int:
    """Bytes of the elements of tensors whose types are in ``ELEMENT_BYTES``."""
    return sum(math.prod(form.shape) * ELEMENT_BYTES[form.dtype] for form in tensors)
