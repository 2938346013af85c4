"""What a job's rounds told: kept for the report, passed on to the watcher, and written into the run's log."""

from __future__ import annotations

import time
from collections.abc import Mapping

from cloister.core.logging import bind_correlation, get_logger
from cloister.federation.events import (
    EventSink,
    FederationEvent,
    RoundFinished,
    SiteAdmitted,
    SiteLeft,
    SiteRefused,
    SiteRoundFinished,
)
from cloister.workflow.outcome import RoundRecord

_LOG = get_logger("workflow")


class History:
    """Collects the events of one job.

    Args:
        job_id: The job, by which the log's lines are followed.
        watch: Gets every event after it was taken in.
    """

    def __init__(self, job_id: str, watch: EventSink) -> None:
        self._job_id = job_id
        self._watch = watch
        self._spent: dict[str, float] = {}
        self._rounds: list[tuple[Mapping[str, float], dict[str, float], float]] = []
        self._since = time.perf_counter()

    def take(self, event: FederationEvent) -> None:
        """Take in one event.

        Args:
            event: What happened; the back end delivers one at a time.
        """
        # Events come from the engine's own threads, which don't inherit what the job's thread has bound.
        with bind_correlation(self._job_id):
            self._record(event)
        self._watch(event)

    def _record(self, event: FederationEvent) -> None:
        match event:
            case SiteAdmitted(site):
                _LOG.info("site_admitted", site=site)
            case SiteRefused(site, reason):
                _LOG.warning("site_refused", site=site, reason=reason)
            case SiteLeft(site, number, code):
                _LOG.warning("site_left", site=site, round=number + 1, code=code)
            case SiteRoundFinished(site, _, epsilon) if epsilon is not None:
                self._spent[site] = epsilon
            case RoundFinished(number, _, metrics):
                now = time.perf_counter()
                self._rounds.append((metrics, dict(self._spent), now - self._since))
                _LOG.info("round_finished", round=number + 1, milliseconds=int(1000 * (now - self._since)))
                self._since = now
            case _:
                pass

    def rounds(self, metric: str) -> tuple[RoundRecord, ...]:
        """The finished rounds.

        Args:
            metric: The primary metric's name.

        Returns:
            One record for each, in order.
        """
        return tuple(
            RoundRecord(number=number, metric=metrics[metric], epsilon=spent, seconds=seconds)
            for number, (metrics, spent, seconds) in enumerate(self._rounds, start=1)
        )
