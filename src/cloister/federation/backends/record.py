"""Wrappers around the nodes of a run: they keep its record and tell the watcher, and change nothing.

Rules:
- one lock orders all events, so a watcher is never called twice at once;
- the first error of a hub's node (or of the watcher) is kept, because NVFlare swallows what is raised in
  callbacks;
- a site's own error is kept beside its code: in one process the person who runs the job may read it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from cloister.core.errors import CloisterError
from cloister.federation.backends.base import FederationResult, RoundRecord
from cloister.federation.compile import JobFolder
from cloister.federation.errors import FederationError
from cloister.federation.events import (
    EventSink,
    FederationEvent,
    RoundFinished,
    RoundStarted,
    SiteAdmitted,
    SiteLeft,
    SiteRefused,
    SiteRoundFinished,
)
from cloister.federation.job import FederationJob
from cloister.federation.node import (
    Abort,
    Admission,
    AggregatedRound,
    Challenge,
    HubNode,
    ReleasedUpdate,
    RoundTask,
    SiteFailure,
    SiteNode,
    Weights,
)

Result = TypeVar("Result")


class RunRecord:
    """What happened in a run, as far as it got."""

    def __init__(self, job: FederationJob, on_event: EventSink) -> None:
        self._job = job
        self._on_event = on_event
        self._lock = threading.Lock()
        self.start: Weights = {}
        self.weights: Weights = {}
        self.rounds: list[RoundRecord] = []
        self.admissions: list[Admission] = []
        self.failures: list[SiteFailure] = []
        self.site_errors: dict[str, Exception] = {}
        self.error: BaseException | None = None

    def tell(self, event: FederationEvent) -> None:
        """Delivers an event; a watcher that raises ends the job."""
        with self._lock:
            try:
                self._on_event(event)
            except Exception as error:
                self.keep(error)

    def keep(self, error: BaseException) -> None:
        """Keeps the first error."""
        self.error = self.error or error

    @property
    def total_rounds(self) -> int:
        """Rounds of the job."""
        return self._job.rounds

    def result(self) -> FederationResult:
        """The run's result, if it is complete."""
        return FederationResult(
            self.weights, tuple(self.rounds), tuple(self.admissions), tuple(self.failures)
        )

    def site_reasons(self) -> list[str]:
        """One line per site that was refused or left: its stable code and, if known here, its error."""
        lines = [
            f"{seen.site}: refused, {seen.reason} {self._own_words(seen.site)}".rstrip()
            for seen in self.admissions
            if not seen.admitted
        ]
        lines += [
            f"{one.site}: left in round {one.round + 1}, {one.code} {self._own_words(one.site)}".rstrip()
            for one in self.failures
        ]
        return lines

    def _own_words(self, site: str) -> str:
        error = self.site_errors.get(site)
        if isinstance(error, CloisterError):
            return error.message
        return type(error).__name__ if error else ""


class RecordedSite:
    """A site node whose releases and errors are on record."""

    def __init__(self, node: SiteNode, record: RunRecord) -> None:
        self._node = node
        self._record = record

    @property
    def site(self) -> str:
        """As the node's."""
        return self._node.site

    @property
    def job_sha256(self) -> str:
        """As the node's."""
        return self._node.job_sha256

    def accept_folder(self, folder: JobFolder) -> None:
        """As the node's."""
        try:
            self._node.accept_folder(folder)
        except Exception as error:
            self._record.site_errors[self.site] = error
            raise

    def quote(self, challenge: Challenge) -> bytes:
        """As the node's."""
        try:
            return self._node.quote(challenge)
        except Exception as error:
            self._record.site_errors[self.site] = error
            raise

    def hub_log_seen(self) -> int:
        """As the node's."""
        try:
            return self._node.hub_log_seen()
        except Exception as error:
            self._record.site_errors[self.site] = error
            raise

    def train_round(self, task: RoundTask, abort: Abort) -> Mapping[str, object]:
        """As the node's."""
        try:
            return self._node.train_round(task, abort)
        except Exception as error:
            self._record.site_errors[self.site] = error
            raise

    def release(self, round_number: int, update: Mapping[str, object]) -> ReleasedUpdate:
        """As the node's, and the watcher hears of it."""
        try:
            released = self._node.release(round_number, update)
        except Exception as error:
            self._record.site_errors[self.site] = error
            raise
        self._record.tell(SiteRoundFinished(self.site, round_number, self.epsilon_spent()))
        return released

    def epsilon_spent(self) -> float | None:
        """As the node's."""
        return self._node.epsilon_spent()


class RecordedHub:
    """A hub node whose decisions, rounds and errors are on record."""

    def __init__(self, node: HubNode, record: RunRecord) -> None:
        self._node = node
        self._record = record

    def initial_weights(self) -> Weights:
        """As the node's."""
        weights = self._guarded(self._node.initial_weights)
        self._record.start = {name: weights[name].copy() for name in weights}
        return weights

    def challenge(self, site: str) -> Challenge:
        """As the node's."""
        return self._guarded(lambda: self._node.challenge(site))

    def admit(self, site: str, challenge: Challenge, evidence: bytes | None) -> Admission:
        """As the node's, and the watcher hears of it."""
        admission = self._guarded(lambda: self._node.admit(site, challenge, evidence))
        self._record.admissions.append(admission)
        self._record.tell(SiteAdmitted(site) if admission.admitted else SiteRefused(site, admission.reason))
        return admission

    def site_weight(self, site: str) -> float:
        """As the node's."""
        return self._guarded(lambda: self._node.site_weight(site))

    def site_has_seen(self, site: str, size: int) -> None:
        """As the node's."""
        self._guarded(lambda: self._node.site_has_seen(site, size))

    def round_started(self, round_number: int, sites: tuple[str, ...]) -> bytes:
        """As the node's, and the watcher hears of it."""
        hub_log = self._guarded(lambda: self._node.round_started(round_number, sites))
        self._record.tell(RoundStarted(round_number, self._record.total_rounds, sites))
        return hub_log

    def site_answered(self, site: str, site_log: bytes) -> None:
        """As the node's; a site whose log is not in order is out, and the job goes on."""
        try:
            self._node.site_answered(site, site_log)
        except FederationError as error:
            self._record.site_errors[site] = error
            raise
        except Exception as error:
            self._record.keep(error)
            raise

    def site_failed(self, failure: SiteFailure) -> None:
        """As the node's, and the watcher hears of it."""
        self._guarded(lambda: self._node.site_failed(failure))
        self._record.failures.append(failure)
        self._record.tell(SiteLeft(failure.site, failure.round, failure.code))

    def failed(self, error: CloisterError) -> None:
        """As the node's."""
        self._record.keep(error)
        self._guarded(lambda: self._node.failed(error))

    def aggregated(self, result: AggregatedRound) -> Mapping[str, float]:
        """As the node's, and the watcher hears of it."""
        metrics = dict(self._guarded(lambda: self._node.aggregated(result)))
        hashes = {site: update.sha256 for site, update in result.updates.items()}
        self._record.weights = result.after
        self._record.rounds.append(RoundRecord(result.round, hashes, metrics))
        self._record.tell(RoundFinished(result.round, self._record.total_rounds, metrics))
        return metrics

    def _guarded(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except Exception as error:
            self._record.keep(error)
            raise
