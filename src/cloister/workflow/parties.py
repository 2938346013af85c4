"""The parties of one job on this machine, each with its opened log and its statement writer.

Whatever way the job ends, each party that has stated something closes its chain by what became of the job
for itself: completed, refused or failed. Then a log alone tells it. The hub closes first and shows each site
its ending, which the site states when it closes: of two endings of one hub, the sites name one.

A process that is killed closes nothing; so the job is marked in the workspace as long as its chains are open,
and who opens the workspace next closes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from cloister.core.clock import Clock
from cloister.core.errors import SignatureInvalid, StorageError
from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceError, EvidenceLog, StatementWriter, Subject, open_statement
from cloister.evidence.checks import escaped
from cloister.evidence.predicates import HubEnding, JobClosed, Violation
from cloister.federation import FederationJob, RefusalError
from cloister.federation.errors import FederationError
from cloister.federation.exchange import HubLogs, SiteLogs
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

    def hub_logs(self) -> HubLogs:
        """The hub's side of what the parties show each other of their logs."""
        keys = {name: seat.log.keys for name, seat in self.sites.items()}
        return HubLogs(self.hub.log, self.hub.writer, self.hub.party.book, keys)

    def site_logs(self, site: str) -> SiteLogs:
        """A site's side of what the parties show each other of their logs."""
        seat, hub = self.sites[site], self.hub.log
        return SiteLogs(seat.log, seat.writer, seat.party.book, hub.origin, hub.keys)

    def close(self, ending: Ending) -> None:
        """Let every party that hasn't state how the job ended for it: the hub, then the sites.

        A site that isn't shown an ending of the hub that holds states that, and ends as failed.

        Args:
            ending: How it ended for the hub and for every site that hadn't left before.
        """
        if _has_begun(self.hub):
            _close(self.hub, ending)
        for site in sorted(self.sites):
            seat = self.sites[site]
            if not _has_begun(seat):
                continue
            shown, verified = self._hub_ending(site)
            _close(seat, self._left.get(site, ending if verified else "failed"), shown)

    def _hub_ending(self, site: str) -> tuple[HubEnding | None, bool]:
        """How the hub ended the job, as a site is shown it; and whether what it is shown holds."""
        if not _has_begun(self.hub) or _has_closed(self.sites[site]):
            return None, True
        try:
            logs, shown = self.site_logs(site), self.hub_logs()
            shown.site_has_seen(site, logs.hub_size())
            return logs.take_ending(shown.show_ending([site])), True
        except (EvidenceError, FederationError, SignatureInvalid) as error:
            seat = self.sites[site]
            seat.writer.write(
                Violation,
                [Subject(f"job {seat.writer.job_id}", sha256_hex(seat.writer.job_id.encode("ascii")))],
                rule=error.code,
                detail=escaped(error.message)[:500],
                artifact_sha256=None,
            )
            return None, False


def _has_begun(seat: Seat) -> bool:
    return seat.log.last(seat.writer.job_id) is not None


def _has_closed(seat: Seat) -> bool:
    last = seat.log.last(seat.writer.job_id)
    return last is not None and isinstance(open_statement(last.envelope).predicate, JobClosed)


def _close(seat: Seat, ending: Ending, hub_ending: HubEnding | None = None) -> None:
    try:
        seat.writer.close(ending, hub_ending=hub_ending)
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
            return opened.enter_context(_seat(workspace, role, name, job.job_id, rule, clock))

        parties = Parties(
            hub=seat("hub", HUB, _strictest(rules[site] for site in job.clients)),
            sites={site: seat("site", site, rules[site]) for site in job.clients},
        )
        _require_unused(parties, job)
        workspace.open_jobs.begin(job.job_id, [seat.party for seat in parties.seats])
        try:
            yield parties
        except BaseException as error:
            parties.close(_ending(error))
            workspace.open_jobs.end(job.job_id)
            raise
        workspace.open_jobs.end(job.job_id)


@contextmanager
def open_site(
    workspace: Workspace, site: str, job_id: str, rule: UnwitnessedLog, *, clock: Clock
) -> Iterator[Seat]:
    """Open one site's log for what it does without a hub, and close its chain whatever comes of it.

    Args:
        workspace: Holds keys and logs.
        site: The site.
        job_id: A fresh id, under which it stands in the log.
        rule: What the site's manifest says about a log of which nobody off its machine holds a checkpoint.
        clock: Gives the statements' time.

    Raises:
        LogError: The log is older than somebody has seen it, or nobody has and the manifest doesn't allow it.
    """
    with _seat(workspace, "site", site, job_id, rule, clock) as seat:
        workspace.open_jobs.begin(job_id, [seat.party])
        ending: Ending = "completed"
        try:
            yield seat
        except BaseException as error:
            ending = _ending(error)
            raise
        finally:
            if _has_begun(seat):
                _close(seat, ending)
            workspace.open_jobs.end(job_id)


@contextmanager
def _seat(
    workspace: Workspace, role: str, name: str, job_id: str, rule: UnwitnessedLog, clock: Clock
) -> Iterator[Seat]:
    party = workspace.party(role, name)
    party.agree_on_log(rule)
    with party.open_log() as log:
        yield Seat(party, log, StatementWriter(log, party.signer, name, job_id, clock))


def _ending(error: BaseException) -> Ending:
    return "refused" if isinstance(error, PolicyError | BudgetExceeded | RefusalError) else "failed"


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
