"""The parties of one job on this machine, each with its opened log and its statement writer.

Whatever way the job ends, each party that has stated something closes its chain by what became of the job
for itself: completed, refused or failed. Then a log alone tells it. A process that is killed can't; so the
job is marked in the workspace as long as its chains are open, and who opens the workspace next closes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from cloister.core.clock import Clock
from cloister.core.errors import StorageError
from cloister.evidence import EvidenceError, EvidenceLog, StatementWriter
from cloister.federation import FederationJob, RefusalError
from cloister.policy import PolicyError, UnwitnessedLog
from cloister.privacy import BudgetExceeded
from cloister.workflow.party import Party
from cloister.workflow.workspace import Workspace

HUB = "hub"


Ending = Literal["completed", "refused", "failed"]


@dataclass(frozen=True)
class Seat:
    """One party with what it writes with."""

    party: Party
    log: EvidenceLog
    writer: StatementWriter


@dataclass(frozen=True)
class Parties:
    """The hub and the sites of one job."""

    hub: Seat
    sites: Mapping[str, Seat]
    _left: dict[str, Ending] = field(default_factory=dict)

    @property
    def writers(self) -> Mapping[str, StatementWriter]:
        """The sites' statement writers by name."""
        return {name: seat.writer for name, seat in self.sites.items()}

    @property
    def seats(self) -> tuple[Seat, ...]:
        """The hub, then the sites by name."""
        return (self.hub, *(self.sites[name] for name in sorted(self.sites)))

    def left(self, site: str, ending: Ending) -> None:
        """Note how the job ended for a site that takes no further part in it."""
        self._left[site] = ending

    def close(self, ending: Ending) -> None:
        """Let every party state how the job ended for it, if it hasn't.

        Args:
            ending: How it ended for the hub and for every site that hadn't left before.
        """
        for seat in self.seats:
            if not seat.log.extract(seat.writer.job_id).entries:
                continue
            try:
                seat.writer.close(self._left.get(seat.party.name, ending) if seat is not self.hub else ending)
            except EvidenceError as error:
                if error.code != "evidence.job_closed":
                    raise


@contextmanager
def open_parties(
    workspace: Workspace, job: FederationJob, rules: Mapping[str, UnwitnessedLog], *, clock: Clock
) -> Iterator[Parties]:
    """Open the logs of a job's parties, and close their chains if the job doesn't complete.

    Args:
        workspace: Holds keys and logs.
        job: Names the sites.
        rules: What each site's manifest says about a log of which nobody off its machine holds a checkpoint;
            for the hub's log the strictest holds.
        clock: Gives the statements' time.

    Yields:
        The parties. Whoever completes the job calls ``close("completed")``.

    Raises:
        LogError: A log is older than somebody has seen it, or nobody has and a manifest doesn't allow that.
        StorageError: ``storage.exists`` if a party has stated something about a job of this id before.
    """
    with ExitStack() as opened:

        def seat(role: str, name: str, rule: UnwitnessedLog) -> Seat:
            party = workspace.party(role, name)
            party.agree_on_log(rule)
            log = party.open_log()
            opened.callback(log.close)
            return Seat(party, log, StatementWriter(log, party.signer, name, job.job_id, clock))

        parties = Parties(
            hub=seat("hub", HUB, _strictest(rules[site] for site in job.clients)),
            sites={site: seat("site", site, rules[site]) for site in job.clients},
        )
        _require_unused(parties, job)
        workspace.open_jobs.begin(job.job_id, [seat.party for seat in parties.seats])
        try:
            yield parties
        except BaseException as error:
            refused = isinstance(error, PolicyError | BudgetExceeded | RefusalError)
            parties.close("refused" if refused else "failed")
            workspace.open_jobs.end(job.job_id)
            raise
        workspace.open_jobs.end(job.job_id)


def _strictest(rules: Iterable[UnwitnessedLog]) -> UnwitnessedLog:
    return UnwitnessedLog.REFUSE if UnwitnessedLog.REFUSE in set(rules) else UnwitnessedLog.ALLOW


def _require_unused(parties: Parties, job: FederationJob) -> None:
    """A second job under one id would continue the first one's chains, and no receipt could come of it."""
    used = [seat.party.name for seat in parties.seats if seat.log.extract(job.job_id).entries]
    if used:
        raise StorageError(
            "storage.exists",
            f"the id {job.job_id} was used by an earlier job in this workspace",
            "Give the job another job_id, or leave it out to have a fresh one.",
            details=[f"the log of {name} holds statements of it" for name in used],
        )
