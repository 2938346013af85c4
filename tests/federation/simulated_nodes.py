"""The arithmetic parties as NVFlare components, so that its own simulator can run them in processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from cloister.core.canonical import parse
from cloister.core.errors import CloisterError
from cloister.federation import FederationJob, JobFolder
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
from tests.federation.nodes import ArithmeticHub, ArithmeticSite, sites_for


class SimulatedSite(FLComponent):
    """Takes the site's name from the run it is in."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = FederationJob.model_validate(parse(job.encode()))
        self._node: ArithmeticSite

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            self._node = sites_for(self._job)[fl_ctx.get_identity_name()]

    @property
    def site(self) -> str:
        return self._node.site

    @property
    def job_sha256(self) -> str:
        return self._node.job_sha256

    def accept_folder(self, folder: JobFolder) -> None:
        self._node.accept_folder(folder)

    def quote(self, challenge: Challenge) -> bytes:
        return self._node.quote(challenge)

    def hub_log_seen(self) -> int:
        return self._node.hub_log_seen()

    def train_round(self, task: RoundTask, abort: Abort) -> Mapping[str, object]:
        return self._node.train_round(task, abort)

    def release(self, round_number: int, update: Mapping[str, object]) -> ReleasedUpdate:
        return self._node.release(round_number, update)

    def epsilon_spent(self) -> float | None:
        return self._node.epsilon_spent()


class SimulatedHub(FLComponent):
    """Leaves the newest weights in a file."""

    def __init__(self, job: str, output: str) -> None:
        super().__init__()
        self._node = ArithmeticHub(FederationJob.model_validate(parse(job.encode())))
        self._output = Path(output)

    def initial_weights(self) -> Weights:
        return self._node.initial_weights()

    def challenge(self, site: str) -> Challenge:
        return self._node.challenge(site)

    def admit(self, site: str, challenge: Challenge, evidence: bytes | None) -> Admission:
        return self._node.admit(site, challenge, evidence)

    def site_weight(self, site: str) -> float:
        return self._node.site_weight(site)

    def site_has_seen(self, site: str, size: int) -> None:
        self._node.site_has_seen(site, size)

    def round_started(self, round_number: int, sites: tuple[str, ...]) -> bytes:
        return self._node.round_started(round_number, sites)

    def site_answered(self, site: str, site_log: bytes) -> None:
        self._node.site_answered(site, site_log)

    def site_failed(self, failure: SiteFailure) -> None:
        self._node.site_failed(failure)

    def failed(self, error: CloisterError) -> None:
        self._node.failed(error)

    def aggregated(self, result: AggregatedRound) -> Mapping[str, float]:
        metrics = self._node.aggregated(result)
        np.savez(self._output, rounds=np.array(result.round + 1), **result.after)
        return metrics
