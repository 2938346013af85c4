"""The airlock: the one place where something leaves a site, and only what a policy lists.

Rules kept here:

* Default deny. A policy lists each tensor (name, shape, dtype) and each scalar (name, grid); all else is
  refused, and so is an update that lacks a listed tensor.
* What leaves is rebuilt: fresh contiguous arrays of a clean dtype, checked after they were copied, so that no
  object, view, subclass, metadata or later write of the sender goes along.
* Only exact built-in types are looked at (``dict``, ``str``, ``float``, ``int``, ``numpy.ndarray``); a
  subclass could run code of its own when read.
* Weights are finite; where the policy says so, rounded to so many bits; and, as they leave, no further from
  the received ones than private training and that rounding can move them.
* A scalar leaves only if it is, bit for bit, what was released privately and paid for (`charges`), and then
  as the nearest point of its public grid. There are no raw metrics.
* Every problem is listed. Unlisted names could carry a message, so they appear as a count and a hash only;
  names that are known never to leave are said as such.
* Pure: no file, no log, no clock.

The update has the sections ``params`` and, optionally, ``metrics``; nothing nests deeper. What this cannot
close: the listed numbers themselves carry information, and so does when a round ends; differential privacy
before the airlock bounds the first. See ``docs/explanation/airlock.md``.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, cast

import numpy as np

from cloister.enclave.airlock_policy import NEVER_LEAVES, AirlockPolicy, TensorSpec
from cloister.enclave.change import Received, too_far
from cloister.enclave.charges import Charge
from cloister.enclave.errors import AirlockViolation
from cloister.enclave.rounding import round_in_place
from cloister.enclave.tensors import FLOAT_DTYPES, FloatArray, update_sha256

PARAMS = "params"
METRICS = "metrics"


_NOTHING_RECEIVED: Final[Received] = MappingProxyType({})
_NOTHING_PAID: Final[Mapping[str, Charge]] = MappingProxyType({})
_DEEPEST: Final = 8
_MOST_NAMES: Final = 10_000


@dataclass(frozen=True, eq=False)
class ScreenedUpdate:
    """An update as it leaves: rebuilt, checked, hashed.

    Attributes:
        tensors: fresh read-only arrays, sorted by name.
        scalars: points of their grids, sorted by name.
        sha256: ``update_sha256`` of both.
        bytes: element bytes plus 8 per scalar.
    """

    tensors: dict[str, FloatArray]
    scalars: dict[str, float]
    sha256: str
    bytes: int


def screen(
    update: Mapping[str, object],
    policy: AirlockPolicy,
    *,
    received: Received = _NOTHING_RECEIVED,
    charges: Mapping[str, Charge] = _NOTHING_PAID,
) -> ScreenedUpdate:
    """Rebuild an update from what the policy lists, or refuse it whole.

    Args:
        update: ``{"params": {name: array}, "metrics": {name: number}}``; ``metrics`` may be absent.
        policy: what may leave.
        received: the weights that the round began with, where the policy bounds the change.
        charges: what was released privately and paid for, by the names of ``metrics``.

    Returns:
        The rebuilt update.

    Raises:
        AirlockViolation: airlock.refused, with every problem in its details.
    """
    problems: list[str] = []
    sections = _names_of(update, "update", problems)
    problems += _never_leaving(update)
    unexpected = [name for name in sections if name not in (PARAMS, METRICS)]
    if unexpected:
        problems.append(f"update: {_withheld(unexpected)}")
    params = _section(update, PARAMS, sections, problems)
    metrics = _section(update, METRICS, sections, problems) if METRICS in sections else {}
    size = sum(spec.nbytes for spec in policy.tensors) + 8 * len(metrics)
    if size > policy.max_bytes:
        problems.append(f"update: {size} bytes, at most {policy.max_bytes} may leave")
        raise _violation(problems)
    if policy.max_bits is not None and policy.bits > policy.max_bits:
        problems.append(
            f"update: room for {policy.bits} bits of information, at most {policy.max_bits} may leave"
        )
        raise _violation(problems)
    tensors = _rebuild_tensors(params, policy, problems)
    scalars = _rebuild_scalars(metrics, policy, charges, problems)
    if policy.mantissa_bits is not None and not problems:
        problems += _shortened(tensors, policy.mantissa_bits)
    if policy.change is not None and not problems:
        problems += too_far(tensors, received, policy.change)
    if problems:
        raise _violation(problems)
    for tensor in tensors.values():
        tensor.setflags(write=False)
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
    return cast(FloatArray, fresh)


def _shortened(tensors: Mapping[str, FloatArray], bits: int) -> list[str]:
    problems = []
    for name, tensor in tensors.items():
        round_in_place(tensor, bits)
        if not np.isfinite(tensor).all():
            problems.append(f"tensor {name}: a weight is too large to be rounded to {bits} bits")
    return problems


def _rebuild_scalars(
    metrics: dict[str, object], policy: AirlockPolicy, charges: Mapping[str, Charge], problems: list[str]
) -> dict[str, float]:
    unexpected = [name for name in metrics if name not in policy.scalars]
    if unexpected:
        problems.append(f"{METRICS}: {_withheld(unexpected)}")
    rebuilt: dict[str, float] = {}
    for name in sorted(policy.scalars):
        if name not in metrics:
            continue
        value, spec, charge = metrics[name], policy.scalars[name], charges.get(name)
        if type(value) is not float and type(value) is not int:
            problems.append(f"scalar {name}: not a plain number")
        elif not spec.low <= value <= spec.high:
            problems.append(f"scalar {name}: outside {spec.low:g} to {spec.high:g}")
        elif charge is None or charge.paid_as != spec.paid_as or charge.value != value:
            problems.append(f"scalar {name}: not what was released with {spec.paid_as} and paid for")
        else:
            rebuilt[name] = spec.nearest(float(value))
    return rebuilt


def _never_leaving(update: object) -> list[str]:
    """Name what must not leave under any name's cover, found at any depth of plain containers."""
    found: set[str] = set()
    level: list[object] = [update]
    looked_at = 0
    for _ in range(_DEEPEST):
        deeper: list[object] = []
        for one in level:
            looked_at += len(one) if type(one) in (dict, list, tuple) else 0  # type: ignore[arg-type]
            if looked_at > _MOST_NAMES:
                return ["update: more names than any model has"]
            if type(one) is dict:
                found |= {key for key in one if type(key) is str and key in NEVER_LEAVES}
                deeper += one.values()
            elif type(one) in (list, tuple):
                deeper += cast("Sequence[object]", one)
        if not deeper:
            break
        level = deeper
    else:
        return [*_said(found), f"update: nests deeper than {_DEEPEST} levels"]
    return _said(found)


def _said(found: set[str]) -> list[str]:
    return [f"update: holds {name}, which never leaves" for name in sorted(found)]


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
