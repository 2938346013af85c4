"""A figure about one site's records, beside any job: asked for, decided on, paid for, stated, then told.

Rules kept here:

- It is asked for by a signed request and decided by the hospital's manifest, as a job is; both have to name
  ``dp-scalars``. The decision is written down before it takes effect, a refusal too.
- The schema says what can be asked: a number's mean between its declared bounds, or how many units fall into
  each declared category. Neither bounds nor categories come from the records.
- Where subjects are protected, each counts once: by the mean of its records, or by its commonest category.
- The spend stands in the site's log before the figure is handed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from cloister.core.canonical import JSON, canonicalize
from cloister.core.clock import Clock, system_clock
from cloister.core.errors import InputError
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence.transcript import RELATION, Unit, event_to_json
from cloister.federation.site_account import site_account
from cloister.health import ColumnKind, OutsideBounds, SiteData, TableSchema
from cloister.policy import OutputKind, Reason
from cloister.privacy import epsilon_of
from cloister.privacy.account import Account
from cloister.privacy.modes import calibrate
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import Release, per_subject, release_histogram, release_mean
from cloister.workflow.admission import Agreement, Asked, commit_data, decide_at, load_data, sign_agreement
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.ledgers import keep_manifest, limits_of, terms_of
from cloister.workflow.parties import open_site
from cloister.workflow.workspace import Workspace


@dataclass(frozen=True)
class FigureRequest:
    """What is asked for.

    Attributes:
        site: Whose records.
        column: A declared column, or the label.
        epsilon: What the figure may cost by itself, above 0.
    """

    site: str
    column: str
    epsilon: float

    @property
    def sha256(self) -> Sha256:
        """SHA-256 over canonical JSON, by which the decision names it."""
        asked: JSON = {"figure": {"site": self.site, "column": self.column}, "epsilon": float(self.epsilon)}
        return sha256_hex(canonicalize(asked))


@dataclass(frozen=True)
class Figure:
    """What was told, and what it cost.

    Attributes:
        request: What was asked for.
        job_id: Under which it stands in the site's log.
        dataset: The dataset's declared name.
        unit: What is protected.
        release: The figures with their intervals.
        delta: The ledger's delta.
        epsilon: Of this figure alone.
        epsilon_dataset: Of everything done to the dataset so far.
        budget: The manifest's ceiling on that.
    """

    request: FigureRequest
    job_id: str
    dataset: str
    unit: Unit
    release: Release
    delta: float
    epsilon: float
    epsilon_dataset: float
    budget: float

    def as_json(self) -> dict[str, JSON]:
        """The figure for machines."""
        return {
            "site": self.request.site,
            "dataset": self.dataset,
            "column": self.request.column,
            "kind": self.release.kind,
            "about": self.release.about,
            "figures": {
                name: {"value": one.value, "low": one.low, "high": one.high}
                for name, one in self.release.figures.items()
            },
            "event": event_to_json(self.release.event),
            "noise_generator": self.release.noise_generator,
            "unit": self.unit,
            "relation": RELATION,
            "delta": self.delta,
            "epsilon": self.epsilon,
            "epsilon_dataset": self.epsilon_dataset,
            "epsilon_budget": self.budget,
            "job_id": self.job_id,
        }


@dataclass(frozen=True)
class Counts:
    """How many units fall into each declared category; private."""

    counts: Mapping[str, int]


@dataclass(frozen=True)
class BoundedValues:
    """A value of each unit between declared bounds; private."""

    values: npt.NDArray[np.float64]
    bounds: tuple[float, float]
    clamp: bool


def release_figure(
    spec: JobSpec,
    workspace: Workspace,
    request: FigureRequest,
    *,
    data_dir: Path | None = None,
    clock: Clock = system_clock,
) -> Figure:
    """Release one figure about a site's records.

    Args:
        spec: The job file; it names data, manifest and request. Its training is not looked at.
        workspace: Holds keys, logs and ledgers.
        request: What is asked for.
        data_dir: Folder with the data files, for sources that need one.
        clock: Gives the time.

    Raises:
        InputError: The job has no such site, or the site's schema no such column.
        PolicyError: The hospital refuses; ``details`` holds every reason.
        BudgetExceeded: It doesn't fit what is left of a budget; nothing was spent.
        PrivacyError: No noise keeps this epsilon.
        CloisterError: As for a job: records that don't fit their schema, a ledger or log that was set back.
    """
    if request.site not in spec.file.data.sites:
        raise InputError(
            "input.schema",
            f"the job has no site {request.site}",
            f"Sites: {', '.join(spec.file.data.sites)}.",
        )
    data = load_data(spec, data_dir)
    table = data.sites[request.site]
    agreement = sign_agreement(spec, workspace, clock=clock)
    manifest = agreement.manifests[request.site]
    guardrails, dataset = manifest.privacy_guardrails, manifest.dataset_scope.name
    exact = exact_figure(data.schema, table, request.column, guardrails.unit)
    job_id = str(uuid4())
    with open_site(workspace, request.site, job_id, agreement.log_rules[request.site], clock=clock) as seat:
        asked = Asked(request.sha256, _not_asked_for(agreement))
        decision = decide_at(request.site, agreement, asked, data, seat.writer, clock)
        decision.require_approved(f"the figure at {request.site}")
        commit_data(data, agreement, {request.site: seat.writer})
        with workspace.ledger(seat.party, dataset, terms_of(manifest), log=seat.log) as ledger:
            keep_manifest(seat.party, dataset, agreement.manifest_envelopes[request.site])
            noise = calibrate(ledger.mode, request.epsilon, ledger.delta, 1.0, 1)
            account = site_account(
                ledger,
                seat.writer,
                site=request.site,
                dataset_sha256=Sha256(table.dataset_sha256),
                job_id=job_id,
                round_number=0,
                limits=limits_of(manifest),
            )
            release = _released(exact, guardrails.unit, noise, account)
            return Figure(
                request,
                job_id,
                dataset,
                guardrails.unit,
                release,
                ledger.delta,
                epsilon_of([release.event], ledger.delta),
                ledger.epsilon(),
                guardrails.epsilon_budget,
            )


def _not_asked_for(agreement: Agreement) -> tuple[Reason, ...]:
    if OutputKind.DP_SCALARS in agreement.request.outputs:
        return ()
    return (Reason("outputs", f"the request doesn't ask for {OutputKind.DP_SCALARS}"),)


def exact_figure(schema: TableSchema, table: SiteData, column: str, unit: Unit) -> Counts | BoundedValues:
    """Compute the exact figure, which must not leave.

    Args:
        schema: The declared columns.
        table: The site's records.
        column: Which column, or the label.
        unit: What is protected.

    Raises:
        InputError: There is no such column.
    """
    subjects = table.subjects if unit == "subject" else None
    if column == schema.label.name:
        return _counts(table.labels, schema.label.classes, subjects)
    if column not in schema.column_names:
        raise InputError(
            "input.schema",
            "the schema declares no such column",
            "Name one of the columns listed.",
            details=(*schema.column_names, schema.label.name),
        )
    place = schema.column_names.index(column)
    declared, values = schema.columns[place], table.raw[:, place]
    if declared.kind in (ColumnKind.CATEGORY, ColumnKind.BINARY):
        return _counts(values.astype(np.int64), declared.categories or ("0", "1"), subjects)
    clamp = declared.outside is OutsideBounds.CLAMP
    within = values.clip(*declared.bounds) if clamp else values
    return BoundedValues(
        within if subjects is None else per_subject(within, subjects), declared.bounds, clamp
    )


def _counts(
    chosen: npt.NDArray[np.int64], categories: Sequence[str], subjects: npt.NDArray[np.int64] | None
) -> Counts:
    if subjects is None:
        found = np.bincount(chosen, minlength=len(categories))
    else:
        _, whose = np.unique(subjects, return_inverse=True)
        table = np.zeros((int(whose.max()) + 1, len(categories)), dtype=np.int64)
        np.add.at(table, (whose, chosen), 1)
        found = np.bincount(table.argmax(axis=1), minlength=len(categories))
    return Counts(dict(zip(categories, found.tolist(), strict=True)))


def _released(
    exact: Counts | BoundedValues, unit: Unit, noise_multiplier: float, account: Account
) -> Release:
    noise = GaussianIntegers(OsRandom(account.job_id, "figure"))
    if isinstance(exact, Counts):
        return release_histogram(
            exact.counts, unit=unit, noise_multiplier=noise_multiplier, noise=noise, account=account
        )
    return release_mean(
        exact.values,
        exact.bounds,
        len(exact.values),
        unit=unit,
        noise_multiplier=noise_multiplier,
        noise=noise,
        account=account,
        clamp=exact.clamp,
    )
