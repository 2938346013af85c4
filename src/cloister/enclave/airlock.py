"""The airlock: the one place where something leaves a site, and only what a policy lists.

Rules kept here:

* Default deny. A policy lists each tensor (name, shape, dtype) and each scalar (name, range); all else is
  refused, and so is an update that lacks a listed tensor.
* What leaves is rebuilt: fresh contiguous arrays of a clean dtype, checked after they were copied, so that no
  object, view, subclass, metadata or later write of the sender goes along.
* Only exact built-in types are looked at (``dict``, ``str``, ``float``, ``int``, ``numpy.ndarray``); a
  subclass could run code of its own when read.
* Every problem is listed. Unlisted names could carry a message, so they appear as a count and a hash only.
* Pure: no file, no log, no clock.

The update has the sections ``params`` and, optionally, ``metrics``; nothing nests deeper. What this cannot
close: the listed numbers themselves carry information; differential privacy before the airlock bounds
that.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal, TypeAlias, cast

import numpy as np

from cloister.core.canonical import JSON
from cloister.enclave.errors import AirlockViolation, EnclaveError
from cloister.enclave.tensors import FLOAT_DTYPES, FloatArray, update_sha256
from cloister.evidence.airlock_policy import MAX_UPDATE_BYTES, policy_json, policy_sha256
from cloister.evidence.weights import TensorForm

PARAMS = "params"
METRICS = "metrics"

DtypeName: TypeAlias = Literal["float32", "float64"]


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
        scalars: name to (lowest, highest) of numbers that may be there.
        max_bytes: largest sum of element bytes, 8 per scalar.

    Raises:
        EnclaveError: enclave.airlock_policy for doubled names, negative sizes, unknown dtypes or empty
        ranges.
    """

    tensors: tuple[TensorSpec, ...]
    scalars: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    max_bytes: int = MAX_UPDATE_BYTES

    def __post_init__(self) -> None:
        names = [spec.name for spec in self.tensors]
        sound = (
            bool(names)
            and len(set(names)) == len(names)
            and all(spec.dtype in FLOAT_DTYPES and min(spec.shape, default=0) >= 0 for spec in self.tensors)
            and all(
                math.isfinite(low) and math.isfinite(high) and low <= high
                for low, high in self.scalars.values()
            )
            and self.max_bytes > 0
        )
        if not sound:
            raise EnclaveError("enclave.airlock_policy", "The airlock policy contradicts itself.")
        object.__setattr__(self, "scalars", MappingProxyType(dict(self.scalars)))

    @classmethod
    def for_tensors(
        cls,
        tensors: Mapping[str, FloatArray],
        *,
        scalars: Mapping[str, tuple[float, float]] | None = None,
        max_bytes: int = MAX_UPDATE_BYTES,
    ) -> "AirlockPolicy":
        """The policy that lets exactly the names, shapes and dtypes of a known model pass.

        Args:
            tensors: the global model's weights by name.
            scalars: name to (lowest, highest) of numbers that may leave too.
            max_bytes: cap on the whole update.

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
        )

    def as_json(self) -> JSON:
        """The policy as plain JSON values, tensors sorted by name."""
        return policy_json(self._forms, self.scalars, self.max_bytes)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the policy's RFC 8785 form."""
        return policy_sha256(self._forms, self.scalars, self.max_bytes)

    @property
    def _forms(self) -> tuple[TensorForm, ...]:
        return tuple(TensorForm(spec.name, spec.dtype, spec.shape) for spec in self.tensors)


@dataclass(frozen=True, eq=False)
class ScreenedUpdate:
    """An update as it leaves: rebuilt, checked, hashed.

    Attributes:
        tensors: fresh read-only arrays, sorted by name.
        scalars: finite numbers in their ranges, sorted by name.
        sha256: ``update_sha256`` of both.
        bytes: element bytes plus 8 per scalar.
    """

    tensors: dict[str, FloatArray]
    scalars: dict[str, float]
    sha256: str
    bytes: int


def screen(update: Mapping[str, object], policy: AirlockPolicy) -> ScreenedUpdate:
    """Rebuild an update from what the policy lists, or refuse it whole.

    Args:
        update: ``{"params": {name: array}, "metrics": {name: number}}``; ``metrics`` may be absent.
        policy: what may leave.

    Returns:
        The rebuilt update.

    Raises:
        AirlockViolation: airlock.refused, with every problem in its details.
    """
    problems: list[str] = []
    sections = _names_of(update, "update", problems)
    unexpected = [name for name in sections if name not in (PARAMS, METRICS)]
    if unexpected:
        problems.append(f"update: {_withheld(unexpected)}")
    params = _section(update, PARAMS, sections, problems)
    metrics = _section(update, METRICS, sections, problems) if METRICS in sections else {}
    size = sum(spec.nbytes for spec in policy.tensors) + 8 * len(metrics)
    if size > policy.max_bytes:
        problems.append(f"update: {size} bytes, at most {policy.max_bytes} may leave")
        raise _violation(problems)
    tensors = _rebuild_tensors(params, policy, problems)
    scalars = _rebuild_scalars(metrics, policy, problems)
    if problems:
        raise _violation(problems)
    return ScreenedUpdate(tensors, scalars, update_sha256(tensors, scalars), size)


def _rebuild_tensors(
    params: dict[str, object], policy: AirlockPolicy, problems: list[str]
) -> dict[str, FloatArray]:
    specs = {spec.name: spec for spec in policy.tensors}
    unexpected = [name for name in params if name not in specs]
    if unexpected:
        problems.append(f"{PARAMS}: {_withheld(unexpected)}")
    rebuilt: dict[str, FloatArray] = {}
    for name in sorted(specs):
        if name not in params:
            problems.append(f"tensor {name}: missing")
            continue
        outcome = _rebuild_tensor(params[name], specs[name])
        if isinstance(outcome, str):
            problems.append(f"tensor {name}: {outcome}")
        else:
            rebuilt[name] = outcome
    return rebuilt


def _rebuild_tensor(value: object, spec: TensorSpec) -> FloatArray | str:
    if type(value) is not np.ndarray:
        return "not a plain array"
    clean = FLOAT_DTYPES[spec.dtype]
    if value.dtype != clean or value.dtype.metadata is not None:
        return f"not of dtype {spec.dtype}"
    if value.shape != spec.shape:
        return f"not of shape {list(spec.shape)}"
    fresh = np.empty(spec.shape, dtype=clean)
    np.copyto(fresh, value, casting="no")
    if not np.isfinite(fresh).all():
        return "holds NaN or infinity"
    fresh.setflags(write=False)
    return cast(FloatArray, fresh)


def _rebuild_scalars(
    metrics: dict[str, object], policy: AirlockPolicy, problems: list[str]
) -> dict[str, float]:
    unexpected = [name for name in metrics if name not in policy.scalars]
    if unexpected:
        problems.append(f"{METRICS}: {_withheld(unexpected)}")
    rebuilt: dict[str, float] = {}
    for name in sorted(policy.scalars):
        if name not in metrics:
            continue
        value = metrics[name]
        low, high = policy.scalars[name]
        if type(value) is not float and type(value) is not int:
            problems.append(f"scalar {name}: not a plain number")
        elif not low <= value <= high:
            problems.append(f"scalar {name}: outside {low:g} to {high:g}")
        else:
            rebuilt[name] = float(value)
    return rebuilt


def _section(
    update: Mapping[str, object], name: str, sections: Sequence[str], problems: list[str]
) -> dict[str, object]:
    if name not in sections:
        problems.append(f"update: no section {name}")
        return {}
    section = update[name]
    names = _names_of(section, name, problems)
    return {key: cast("dict[str, object]", section)[key] for key in names}


def _names_of(mapping: object, what: str, problems: list[str]) -> list[str]:
    if type(mapping) is not dict:
        problems.append(f"{what}: not a plain dictionary")
        return []
    strangers = sum(1 for key in mapping if type(key) is not str)
    if strangers:
        problems.append(f"{what}: {strangers} name(s) that aren't plain text")
    return [key for key in mapping if type(key) is str]


def _withheld(names: Sequence[str]) -> str:
    digest = hashlib.sha256("\0".join(sorted(names)).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{len(names)} unlisted name(s), withheld (sha256 {digest[:16]})"


def _violation(problems: Sequence[str]) -> AirlockViolation:
    return AirlockViolation(
        "airlock.refused",
        f"The update may not leave: {len(problems)} problem(s).",
        "Send only the model's own tensors and the scalars that the policy lists.",
        details=problems,
    )
