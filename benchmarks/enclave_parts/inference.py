"""Secure inference with a sealed worker: its start, a session, one row, and 10,000 against plain torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from cloister.core.clock import system_clock
from cloister.enclave import AppraisalPolicy, Platforms, SimulatedVendor, TrustStore, Verifier, encode_model
from cloister.enclave.attestation import Tee
from cloister.enclave.inference import InferenceService, ModelDescription, open_session
from cloister.enclave.sealed import SealedHost
from cloister.privacy.models import build_model, state_arrays
from enclave_parts._rows import rows

TARGETS = {"session, median ms": ("at most", 25.0), "one row, median ms": ("at most", 10.0)}
_MEASUREMENT = bytes(range(48))
_ROUNDS = 100
_MANY = 10_000
_BATCHES = (256, 1024, _MANY)
_MODELS = {"logistic-regression": (13, 30), "small-cnn": (784, 5)}
"""Features and rounds: the heart job's model, and a picture's of 28 by 28."""


def measure() -> dict[str, float]:
    """Measure; nothing is written."""
    vendor = SimulatedVendor.create(system_clock)
    platform = vendor.platform("provider", _MEASUREMENT)
    policy = AppraisalPolicy(
        measurements=(_MEASUREMENT.hex(),),
        platforms=Platforms.HARDWARE_OR_SIMULATED,
        without_revocation=(Tee.AMD_SEV_SNP,),
    )
    verifier = Verifier(TrustStore.simulated(vendor.root_der), system_clock)
    figures: dict[str, float] = {}
    torch.set_num_threads(1)  # as a worker has
    start = time.perf_counter()
    with SealedHost.start() as host:
        figures["fork server started, s"] = time.perf_counter() - start
        for family, (features, rounds) in _MODELS.items():
            network = build_model(family, features, 2, 0).eval()
            model, start = encode_model(state_arrays(network)), time.perf_counter()
            with InferenceService.start(
                host, ModelDescription(family, {}, features), model, quote=platform.quote, simulated=True
            ) as service:
                if family == "logistic-regression":
                    figures["worker sealed with its model, ms"] = (time.perf_counter() - start) * 1000
                    figures |= _small(service, verifier, policy)
                asking = open_session(service.connect(), verifier, policy)
                many = np.random.default_rng(0).normal(size=(_MANY, features)).astype(np.float32)
                sealed = _median(partial(asking.predict, many), rounds)
                plain = min(_median(partial(_plain, network, many, size), rounds) for size in _BATCHES)
            figures[f"{family}: 10,000 rows, median ms"] = sealed * 1000
            figures[f"{family}: rows a second"] = _MANY / sealed
            figures[f"{family}: rows a second in plain torch"] = _MANY / plain
            figures[f"{family}: times as long as plain torch"] = sealed / plain
    return figures


def _small(service: InferenceService, verifier: Verifier, policy: AppraisalPolicy) -> dict[str, float]:
    sessions, answers, one = [], [], np.zeros((1, service.card.features), np.float32)
    for _ in range(_ROUNDS):
        line, start = service.connect(), time.perf_counter()
        session = open_session(line, verifier, policy)
        opened = time.perf_counter()
        session.predict(one)
        answers.append(time.perf_counter() - opened)
        sessions.append(opened - start)
        line.close()
    return {
        "session, median ms": statistics.median(sessions) * 1000,
        "one row, median ms": statistics.median(answers) * 1000,
    }


def _median(act: Callable[[], object], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        act()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def _plain(network: torch.nn.Module, many: np.ndarray, batch: int) -> np.ndarray:
    """The same rows in one process, without anything around; the fastest of three sizes of batches counts."""
    with torch.no_grad():
        parts = [torch.softmax(network(part), dim=1) for part in torch.from_numpy(many).split(batch)]
        return torch.cat(parts).numpy()


def table(figures: dict[str, float]) -> str:
    """The figures beside their targets."""
    return rows(figures, TARGETS)
