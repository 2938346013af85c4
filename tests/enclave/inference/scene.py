"""A model, an enclave that serves it in this process, and a client who trusts the simulated vendor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cloister.core.clock import fixed_clock
from cloister.enclave import AppraisalPolicy, SimulatedPlatform, TrustStore, Verifier
from cloister.enclave.inference import (
    Endpoint,
    Hello,
    InferenceSession,
    InferenceWorker,
    Line,
    ModelCard,
    Query,
    Welcome,
    open_session,
)
from cloister.enclave.inference.messages import inference_binding, session_id
from cloister.enclave.keyrelease import Quote
from cloister.enclave.sealed import Measure, SealClaims, SealLevel, SealPolicy
from cloister.enclave.sealed.claims import MEASURES
from tests.enclave.attestation_scene import MEASUREMENT, NOW, vendor
from tests.enclave.keyrelease.scene import appraisal

MODEL_SHA256 = "c" * 64
CARD = ModelCard(
    model_sha256=MODEL_SHA256, architecture="logistic-regression", parameters={}, features=4, classes=2
)
SEAL = SealClaims(SealLevel.NAMESPACES, tuple(Measure(name, "held") for name in MEASURES), "6.8.0")
Rows = npt.NDArray[np.float32]


def machine() -> SimulatedPlatform:
    return vendor().platform("provider", MEASUREMENT)


def halves(rows: Rows) -> Rows:
    """A model that answers with the mean of a row and its rest to one."""
    means = rows.mean(axis=1, keepdims=True, dtype=np.float32)
    return np.concatenate([means, 1 - means], axis=1)


def greeted(worker: InferenceWorker, quote: Quote, message: bytes) -> bytes:
    """What the operator's service does with a hello."""
    public = worker.hello(message)
    binding = inference_binding(Hello.decode(message), public, worker._card, worker._seal)
    return Welcome(worker._card, worker._seal, public, quote(binding.report_data())).encode()


@dataclass
class Carrier:
    """An endpoint in the hands of a test, which sees and may change what passes."""

    worker: InferenceWorker
    quote: Quote
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    change_query: Callable[[bytes], bytes] = bytes
    change_answer: Callable[[bytes], bytes] = bytes
    change_welcome: Callable[[bytes], bytes] = bytes

    def hello(self, message: bytes) -> bytes:
        answer = greeted(self.worker, self.quote, message)
        self.seen.append((message, answer))
        return self.change_welcome(answer)

    def query(self, message: bytes) -> bytes:
        answer = self.worker.query(self.change_query(message))
        self.seen.append((message, answer))
        return self.change_answer(answer)


def carrier(worker: InferenceWorker | None = None, quote: Quote | None = None) -> Carrier:
    return Carrier(worker or InferenceWorker(CARD, SEAL, halves), quote or machine().quote)


def session(
    endpoint: Endpoint,
    policy: AppraisalPolicy | None = None,
    model_sha256: str | None = None,
    seal: SealPolicy | None = None,
) -> InferenceSession:
    verifier = Verifier(TrustStore.simulated(vendor().root_der), fixed_clock(NOW))
    return open_session(endpoint, verifier, policy or appraisal(), model_sha256=model_sha256, seal=seal)


def rows(count: int = 3, features: int = 4) -> Rows:
    return np.linspace(0, 1, count * features, dtype=np.float32).reshape(count, features)


class Desk:
    """Gives lines to a worker in this process, as a service does to a sealed one."""

    def __init__(self, worker: InferenceWorker | None = None, quote: Quote | None = None) -> None:
        self.worker = worker or InferenceWorker(CARD, SEAL, halves)
        self._quote, self._lock = quote or machine().quote, threading.Lock()
        self.lines: list[Line] = []

    def connect(self) -> Line:
        self.lines.append(Line(self._greet, self._carry, self._forget))
        return self.lines[-1]

    def _greet(self, message: bytes) -> tuple[bytes, bytes]:
        with self._lock:
            welcome = greeted(self.worker, self._quote, message)
        return welcome, session_id(Welcome.decode(welcome).public)

    def _carry(self, message: bytes, query: Query) -> bytes:
        with self._lock:
            return self.worker.query(message)

    def _forget(self, session: bytes) -> None:
        with self._lock:
            self.worker.end(session)
