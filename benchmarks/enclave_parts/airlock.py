"""How long an update takes through the airlock.

A 10 MB update of ten layers, one core, the median of thirty; each rule of the policy by itself and together.
The hash alone is what the release needs in any case.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from cloister.enclave.airlock import screen
from cloister.enclave.airlock_policy import AirlockPolicy
from cloister.evidence.change_limit import ChangeLimit
from enclave_parts._rows import rows

TURNS = 30
LIMIT = ChangeLimit(l2=10.0, largest=1.0, rounding=0.0)


def milliseconds(act: Callable[[], object]) -> float:
    """Median time of an act."""
    act()
    times = []
    for _ in range(TURNS):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def measure() -> dict[str, float]:
    """Milliseconds by what the policy holds an update against."""
    random = np.random.default_rng(0)
    received = {
        f"layers.{one}.weight": random.normal(size=(512, 512)).astype(np.float32) for one in range(10)
    }
    update: dict[str, object] = {
        "params": {name: value + np.float32(1e-3) for name, value in received.items()}
    }
    data = bytes(sum(value.nbytes for value in received.values()))
    figures = {"SHA-256 alone, ms": milliseconds(lambda: hashlib.sha256(data).digest())}
    policies = {
        "names, shapes, finite, ms": AirlockPolicy.for_tensors(received),
        "... and 16 bits, ms": AirlockPolicy.for_tensors(received, mantissa_bits=16),
        "... and bounded change, ms": AirlockPolicy.for_tensors(received, change=LIMIT),
        "all of it, ms": AirlockPolicy.for_tensors(received, mantissa_bits=16, change=LIMIT),
    }
    for name, policy in policies.items():
        figures[name] = milliseconds(partial(screen, update, policy, received=received))
    return figures


def table(figures: dict[str, float]) -> str:
    """The figures beside the target, which includes the pipe."""
    return rows(figures, {"all of it, ms": ("at most", 60.0)})
