"""Parties for tests: real implementations of the node ports, with arithmetic instead of training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import numpy as np

from cloister.core.errors import CloisterError
from cloister.enclave.tensors import tensors_sha256
from cloister.federation.compile import JobFolder, compile_job
from cloister.federation.errors import FederationError
from cloister.federation.job import FederationJob, ModelSpec, PrivacyConfig, TrainingConfig
from cloister.federation.node import (
    Abort,
    Admission,
    AggregatedRound,
    Challenge,
    ReleasedUpdate,
    RoundTask,
    SiteFailure,
    Weights,
)

JOB_ID = "6f2a7c1e-90d4-4c56-8a41-0d2b7e4f9c11"


def a_job(**changes: object) -> FederationJob:
    fields: dict[str, object] = {
        "job_id": JOB_ID,
        "clients": ("north", "south", "west"),
        "rounds": 10,
        "privacy": PrivacyConfig(),
        "training": TrainingConfig(sampling_probability=0.2),
        "model": ModelSpec(architecture="logistic-regression"),
        "dataset_id": "numbers",
    }
    return FederationJob.model_validate(fields | changes)


class ArithmeticSite:
    """Adds a constant of its own to each weight; `before_round` may misbehave first."""

    def __init__(
        self,
        job: FederationJob,
        site: str,
        step: float = 1.0,
        *,
        before_round: Callable[[RoundTask, Abort], Mapping[str, object] | None] = lambda task, abort: None,
        measurement: bytes = b"the-right-code",
    ) -> None:
        self.site = site
        self.job_sha256 = job.sha256
        self._folder_sha256 = compile_job(job).sha256
        self._job_id = job.job_id
        self.rounds: list[int] = []
        self.received: list[str] = []
        self._step = np.float32(step)
        self._before_round = before_round
        self._measurement = measurement

    def accept_folder(self, folder: JobFolder) -> None:
        if folder.sha256 != self._folder_sha256:
            raise FederationError("federation.bad_task", "another folder")

    def quote(self, challenge: Challenge) -> bytes:
        assert challenge.job_id == self._job_id
        return challenge.nonce + self._measurement

    def hub_log_seen(self) -> int:
        return len(self.rounds)

    def train_round(self, task: RoundTask, abort: Abort) -> Mapping[str, object]:
        self.rounds.append(task.round)
        assert task.hub_log == f"the hub's log in round {task.round}".encode()
        self.received.append(tensors_sha256(task.weights))
        other = self._before_round(task, abort)
        if other is not None:
            return other
        return {name: value + self._step * np.float32(0.1) for name, value in task.weights.items()}

    def release(self, round_number: int, update: Mapping[str, object]) -> ReleasedUpdate:
        tensors = {}
        for name in sorted(update):
            value = update[name]
            if name not in {"layer.weight", "layer.bias"} or not isinstance(value, np.ndarray):
                raise FederationError("federation.update_refused", "something that is no weight")
            tensors[name] = np.array(value, dtype=np.float32, copy=True)
        return ReleasedUpdate(tensors, tensors_sha256(tensors), site_log=f"the log of {self.site}".encode())

    def epsilon_spent(self) -> float | None:
        return 0.25 * len(self.rounds)


class ArithmeticHub:
    """Admits whoever repeats its nonce with the right measurement."""

    def __init__(self, job: FederationJob) -> None:
        self.job = job
        self.weights: Weights = {
            "layer.weight": np.zeros((2, 3), np.float32),
            "layer.bias": np.zeros(2, np.float32),
        }
        self.trace: list[str] = []
        self.failures: list[SiteFailure] = []
        self.admissions: list[Admission] = []
        self.seen: dict[str, int] = {}

    def initial_weights(self) -> Weights:
        return self.weights

    def challenge(self, site: str) -> Challenge:
        self.trace.append(f"challenge {site}")
        return Challenge(os.urandom(32), self.job.job_id, "policy-1")

    def admit(self, site: str, challenge: Challenge, evidence: bytes | None) -> Admission:
        right = evidence == challenge.nonce + b"the-right-code"
        admission = Admission(site, right, "" if right else "measurement")
        self.admissions.append(admission)
        return admission

    def site_weight(self, site: str) -> float:
        return {"north": 100.0, "south": 50.0, "west": 25.0}[site]

    def site_has_seen(self, site: str, size: int) -> None:
        self.seen[site] = size

    def round_started(self, round_number: int, sites: tuple[str, ...]) -> bytes:
        self.trace.append(f"round {round_number} {','.join(sites)}")
        return f"the hub's log in round {round_number}".encode()

    def site_answered(self, site: str, site_log: bytes) -> None:
        if site_log != f"the log of {site}".encode():
            raise FederationError("federation.bad_log", "another log")

    def site_failed(self, failure: SiteFailure) -> None:
        self.failures.append(failure)

    def failed(self, error: CloisterError) -> None:
        self.trace.append(f"failed {error.code}")

    def aggregated(self, result: AggregatedRound) -> Mapping[str, float]:
        self.weights = result.after
        self.trace.append(f"aggregated {result.round} {','.join(sorted(result.updates))}")
        return {"mean": float(np.mean(result.after["layer.bias"]))}


def sites_for(job: FederationJob, **special: ArithmeticSite) -> dict[str, ArithmeticSite]:
    steps = {"north": 1.0, "south": -0.7, "west": 2.3}
    return {name: special.get(name) or ArithmeticSite(job, name, steps[name]) for name in job.clients}


def slow(seconds: float) -> Callable[[RoundTask, Abort], None]:
    def wait(task: RoundTask, abort: Abort) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not abort():
            time.sleep(0.005)

    return wait
