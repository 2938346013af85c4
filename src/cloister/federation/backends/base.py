"""The port that every back end implements, and what a job's run results in.

A back end moves messages. It decides nothing about privacy, admission or release; those are the nodes'. It
never trusts its engine's word that a job is complete: `require_complete` looks at the recorded rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cloister.federation.compile import JobFolder
from cloister.federation.errors import FederationError
from cloister.federation.events import EventSink, ignore_events
from cloister.federation.job import FederationJob
from cloister.federation.node import Abort, Admission, HubNode, SiteFailure, SiteNode, Weights


@dataclass(frozen=True)
class RoundRecord:
    """One aggregated round: who took part, with what, and the metrics on public data. Rounds count from 0."""

    round: int
    update_sha256: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites whose updates were averaged, sorted."""
        return tuple(sorted(self.update_sha256))


@dataclass(frozen=True)
class FederationResult:
    """A job that ran all its rounds."""

    weights: Weights
    rounds: tuple[RoundRecord, ...]
    admissions: tuple[Admission, ...]
    failures: tuple[SiteFailure, ...]


def run_to_the_end() -> bool:
    """The abort question of a caller that never aborts."""
    return False


class Backend(Protocol):
    """Runs a compiled job."""

    def run(
        self,
        job: FederationJob,
        folder: JobFolder,
        hub: HubNode,
        sites: Mapping[str, SiteNode],
        on_event: EventSink = ignore_events,
        abort: Abort = run_to_the_end,
    ) -> FederationResult:
        """Runs the job to its end; returns only when nothing of it is left running.

        Args:
            job: the job.
            folder: what `compile_job(job)` gave.
            hub: the hub's node.
            sites: the nodes of the sites that are present, by name; an absent one counts as refused.
            on_event: called with each event, one at a time, from any thread.
            abort: asked now and then from this thread.

        Raises:
            FederationError: too few sites, quorum lost, aborted, a site's thread that does not end.
            CloisterError: what the hub's node raised.
        """
        ...


def require_complete(job: FederationJob, result: FederationResult, start: Weights) -> None:
    """Compares the record of a run with what was asked.

    Raises:
        FederationError: `federation.incomplete`.
    """
    wrong = []
    if [record.round for record in result.rounds] != list(range(job.rounds)):
        wrong.append(f"{len(result.rounds)} rounds of {job.rounds} are on record")
    wrong += [
        f"round {record.round + 1} has {len(record.sites)} updates, the job needs {job.min_clients}"
        for record in result.rounds
        if len(record.sites) < job.min_clients
    ]
    if all(np.array_equal(result.weights[name], start[name]) for name in start):
        wrong.append("the global weights did not move")
    if wrong:
        raise FederationError(
            "federation.incomplete", "the engine ended a job that is not complete", details=wrong
        )
