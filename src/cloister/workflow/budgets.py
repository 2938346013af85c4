"""What the budget ledgers of a workspace say, as values: what is spent, what is left, and by what.

Rules kept here:

1. A ledger is read only after the checks that a job makes: its chain, and its site's log beside what others
   hold of that log. A figure of a set-back ledger is never shown.
2. Epsilon comes with unit, relation, delta and accountant, and with the limit it is held against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from cloister.core.errors import InputError
from cloister.evidence import EvidenceLog, open_statement
from cloister.evidence.predicates import DataCommitment, ManifestAccepted
from cloister.evidence.transcript import (
    ACCOUNTANTS,
    ADAPTIVE,
    FIXED_PLAN,
    RELATION,
    Event,
    coalesce,
    event_to_json,
    other_mode,
)
from cloister.privacy.budget import HARD_STOP_EPSILON, subject_limit
from cloister.privacy.ledger import BudgetLedger
from cloister.privacy.ledger_entries import Header, Reserved, Settled, resize
from cloister.privacy.modes import epsilon_in, held_in, steps_within
from cloister.workflow.ledgers import kept_manifest, require_current
from cloister.workflow.party import Party
from cloister.workflow.workspace import Workspace

_MANY: Final = 200
"""Above this many different mechanisms only the ledger's own accountant is asked."""


@dataclass(frozen=True)
class Spend:
    """One reservation of a ledger.

    Attributes:
        recorded_at: When it was reserved.
        job_id: The job.
        round: Its round.
        purpose: What for.
        event: What was reserved, in the transcript's JSON form.
        executed: Steps that were done; None while it isn't settled, and then all of it counts.
        epsilon_after: Of everything on the dataset, as it counts now, up to and including this spend.
    """

    recorded_at: str
    job_id: str
    round: int
    purpose: str
    event: Mapping[str, object]
    executed: int | None
    epsilon_after: float


@dataclass(frozen=True)
class BudgetView:
    """One dataset's budget.

    Attributes:
        site: Who holds the dataset.
        dataset: Its name.
        unit: What is protected.
        relation: How neighbouring datasets differ.
        mode: How spends are composed.
        accountant: The mode's accountant.
        delta: At which every epsilon is stated.
        epsilon: Spent by all jobs; in ``adaptive`` the reading of an odometer, at the best order.
        other_accountant: The other accountant.
        epsilon_other: Its figure; None where it was not asked.
        limit: The smallest limit of the newest manifest under which the dataset was used, one person's share
            included, and the hard stop.
        limit_name: Which of them.
        epsilon_held: Spent by all jobs, as held against the limit: in ``adaptive`` at the limit's own order.
        left: Limit less what is held against it.
        jobs: Epsilon of each job alone.
        mechanisms: Everything that counts, in the transcript's JSON form.
        unsettled: Reservations that count in full since nobody settled them.
        entries: Number of the ledger's entries.
        head: Hash of the newest.
    """

    site: str
    dataset: str
    unit: str
    relation: str
    mode: str
    accountant: str
    delta: float
    epsilon: float
    other_accountant: str
    epsilon_other: float | None
    limit: float
    limit_name: str
    epsilon_held: float
    left: float
    jobs: Mapping[str, float]
    mechanisms: tuple[Mapping[str, object], ...]
    unsettled: int
    entries: int
    head: str

    def as_json(self) -> dict[str, object]:
        """Return the view for machines."""
        return asdict(self)


@dataclass(frozen=True)
class Budget:
    """One dataset's budget with its history."""

    view: BudgetView
    spends: tuple[Spend, ...]

    def explain(self, sampling: float, noise: float, fitting: int) -> tuple[str, ...]:
        """Say in sentences what the figures mean.

        Args:
            sampling: Sampling probability of the steps that were asked about.
            noise: Their noise multiplier.
            fitting: How many of them still fit.
        """
        view = self.view
        unit = "one record" if view.unit == "record" else "one subject with all its records"
        kept = (
            "It is the reading of an odometer: what is promised, also where each job was chosen after seeing "
            "earlier results, is the limit, by one order that is fixed with it. Steps that were not taken "
            "were given back."
            if view.mode == ADAPTIVE
            else "This is true only if every plan was fixed in advance, which nothing enforces; nothing of a "
            "plan is given back."
        )
        lines = [
            f"Protected is {unit} of {view.dataset} at {view.site}: added or removed ({view.relation}).",
            f"All jobs together spent epsilon {view.epsilon:.4f} at delta {view.delta:g}. Whatever was "
            f"released, nobody can tell by it whether {unit} was in the data, better than odds times "
            f"e^{view.epsilon:.2f} allow, but for a chance of {view.delta:g}.",
            f"Spends are composed by {view.accountant} ({view.mode}). {kept}",
            f"The limit is {view.limit:g}: {view.limit_name}. Held against it is {view.epsilon_held:.4f}, "
            f"which leaves {view.left:.4f}. A job may cost more than that by itself, since spends compose to "
            "less than their sum.",
        ]
        if view.epsilon_other is not None:
            lines.append(
                f"{view.other_accountant} would say {view.epsilon_other:.4f}. No limit is held against it."
            )
        if view.unsettled:
            lines.append(
                f"{view.unsettled} reservation(s) are not settled: a job runs or crashed. They count in full."
            )
        if len(view.jobs) > 1:
            lines.append(
                f"The jobs alone would add up to {sum(view.jobs.values()):.4f}; composed they cost less."
            )
        lines.append(f"Of steps with sampling {sampling:g} and noise {noise:g}, {fitting} more would fit.")
        return tuple(lines)


def read_budgets(
    workspace: Workspace, *, site: str | None = None, dataset: str | None = None
) -> tuple[Budget, ...]:
    """Read the budgets of a workspace.

    Args:
        workspace: The workspace.
        site: Only this site's.
        dataset: Only of datasets of this name.

    Raises:
        InputError: ``input.missing_file`` if there is none.
        LedgerError: A ledger is damaged, set back, or gone.
        EvidenceError: A site's log is.
    """
    found = tuple(
        _read(workspace, holder, name)
        for holder, name in _places(workspace)
        if site in (None, holder) and dataset in (None, name)
    )
    if not found:
        raise InputError(
            "input.missing_file",
            "This workspace keeps no such budget.",
            "A dataset's ledger is made by the first job on it; name its workspace with --workspace.",
        )
    return found


def fitting_steps(workspace: Workspace, budget: Budget, sampling: float, noise: float) -> int:
    """Return how many more steps of a kind fit under the budget's limit."""
    view = budget.view
    with _ledger(workspace, view.site, view.dataset) as ledger:
        return steps_within(ledger.mode, view.limit, ledger.delta, sampling, noise, spent=ledger.events())


def _places(workspace: Workspace) -> Iterator[tuple[str, str]]:
    for folder in sorted(workspace.root.glob("parties/site/*/budget")):
        names = {one.stem for ending in ("sqlite", "begun") for one in folder.glob(f"*.{ending}")}
        for name in sorted(names):
            yield folder.parent.name, name


def _ledger(workspace: Workspace, site: str, dataset: str) -> BudgetLedger:
    path = workspace.root / "parties" / "site" / site / "budget" / f"{dataset}.sqlite"
    return BudgetLedger.open(workspace.settings.ledger_database or path, dataset, holder=site)


def _read(workspace: Workspace, site: str, dataset: str) -> Budget:
    party = workspace.party("site", site)
    with party.open_log_to_show() as log, _ledger(workspace, site, dataset) as ledger:
        require_current(ledger, log, party.held_checkpoints())
        limit, limit_name = _limit(log, party, dataset)
        spends = tuple(_spends(ledger))
        return Budget(_view(ledger, site, limit, limit_name), spends)


def _limit(log: EvidenceLog, site: Party, dataset: str) -> tuple[float, str]:
    """The smallest limit on a dataset, of the newest manifest under which a job committed to it."""
    limits = [(HARD_STOP_EPSILON, "hard stop")]
    newest = _newest_manifest(log, dataset)
    if newest is not None:
        limits.append((newest.epsilon_budget, "newest manifest"))
        manifest = kept_manifest(site, dataset, newest.manifest_sha256)
        if manifest is not None:
            terms = manifest.privacy_guardrails
            share = subject_limit(terms.epsilon_per_subject, terms.subject_sites, terms.cross_site_subjects)
            limits += [(terms.epsilon_hard_stop, "manifest hard stop"), (share.epsilon, "one person's share")]
    return min(limits, key=lambda one: one[0])


def _newest_manifest(log: EvidenceLog, dataset: str) -> ManifestAccepted | None:
    """A manifest's acceptance doesn't name its dataset; the commitment in the same job does."""
    accepted: dict[str, ManifestAccepted] = {}
    newest = None
    for envelope in log.envelopes():
        predicate = open_statement(envelope).predicate
        if isinstance(predicate, ManifestAccepted):
            accepted[predicate.job_id] = predicate
        elif isinstance(predicate, DataCommitment) and predicate.dataset_name == dataset:
            newest = accepted.get(predicate.job_id, newest)
    return newest


def _view(ledger: BudgetLedger, site: str, limit: float, limit_name: str) -> BudgetView:
    events, other = ledger.events(), other_mode(ledger.mode)
    jobs = dict.fromkeys(one.entry.job_id for one in ledger.history() if isinstance(one.entry, Reserved))
    epsilon, held = ledger.epsilon(), held_in(ledger.mode, events, ledger.delta, limit)
    return BudgetView(
        site=site,
        dataset=ledger.dataset,
        unit=ledger.unit,
        relation=RELATION,
        mode=ledger.mode,
        accountant=ACCOUNTANTS[ledger.mode],
        delta=ledger.delta,
        epsilon=epsilon,
        other_accountant=ACCOUNTANTS[other],
        epsilon_other=epsilon_in(other, events, ledger.delta) if len(events) <= _MANY else None,
        limit=limit,
        limit_name=limit_name,
        epsilon_held=held,
        left=max(0.0, limit - held),
        jobs={job: ledger.epsilon(job) for job in jobs},
        mechanisms=tuple(event_to_json(one) for one in events),
        unsettled=len(ledger.unsettled),
        entries=len(ledger.history()),
        head=ledger.head,
    )


def _spends(ledger: BudgetLedger) -> Iterator[Spend]:
    history = ledger.history()
    executed = {one.entry.id: one.entry.executed for one in history if isinstance(one.entry, Settled)}
    counted: list[Event] = []
    for one in history:
        entry = one.entry
        if isinstance(entry, Header | Settled):
            continue
        done = executed.get(entry.id)
        whole = done is None or ledger.mode == FIXED_PLAN
        if whole or done:
            counted = list(coalesce([*counted, entry.event if whole else resize(entry.event, done or 0)]))
        yield Spend(
            recorded_at=one.recorded_at,
            job_id=entry.job_id,
            round=entry.round_number,
            purpose=entry.purpose.value,
            event=event_to_json(entry.event),
            executed=done,
            epsilon_after=epsilon_in(ledger.mode, counted, ledger.delta),
        )
