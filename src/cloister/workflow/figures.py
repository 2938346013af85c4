"""A figure about one site's records, beside any job: asked for, decided on, paid for, stated, then told.

Rules kept here:

- It is asked for by a signed request and decided by the hospital's manifest, as a job is; both have to name
  ``dp-scalars``, and a figure may cost no more than the request's epsilon. The decision is written down with
  what was asked before it takes effect, a refusal too. Nothing is computed before it.
- A budget of plans that were fixed beforehand pays no figures: they are chosen as one goes.
- The schema says what can be asked: a number's mean between its declared bounds, or how many units fall into
  each declared category. Neither bounds nor categories come from the records.
- Where subjects are protected, each counts once: by the mean of its records, or by its commonest category.
- A count whose noisy value is below the manifest's suppression threshold is not told.
- The immune system is on from before the records are read; the site states what it notices.
- The spend stands in the site's log, and every witness has cosigned that, before the figure is handed out;
  what was told is kept at the site.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from cloister.core.canonical import JSON, canonicalize
from cloister.core.clock import Clock, system_clock
from cloister.core.errors import InputError
from cloister.core.files import write_new
from cloister.core.hashes import Sha256, sha256_hex
from cloister.enclave.measure import code_measurement
from cloister.evidence.transcript import FIXED_PLAN, RELATION, Unit, event_to_json
from cloister.federation.site_account import site_account
from cloister.health import ColumnKind, OutsideBounds, SiteData, TableSchema, require_readable
from cloister.policy import OutputKind, ProtocolManifest, Reason, TrainingRequest, load_manifest_draft
from cloister.policy.manifest import PrivacyGuardrails
from cloister.privacy.account import Account
from cloister.privacy.budget import check_group
from cloister.privacy.leaving import may_leave
from cloister.privacy.modes import calibrate
from cloister.privacy.noise import GaussianIntegers, IntegerNoise
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import Release, per_subject, release_histogram, release_mean
from cloister.workflow.admission import Asked, commit_data, decide_at, load_data, sign_agreement
from cloister.workflow.immunity import Immunity, immunity
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.ledgers import keep_manifest, limits_of, terms_of
from cloister.workflow.parties import open_site
from cloister.workflow.witnessing import open_witnesses, show_head
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

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError("input.schema", "the figure's epsilon must be a number above 0")

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
        release: The figures with their intervals, without those that are suppressed.
        suppressed: The names of those.
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
    suppressed: tuple[str, ...]
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
            "suppressed": [*self.suppressed],
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

    counts: Mapping[str, int] = field(repr=False)


@dataclass(frozen=True)
class BoundedValues:
    """A value of each unit between declared bounds; private."""

    values: npt.NDArray[np.float64] = field(repr=False)
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
        HealthError: ``health.sealed``: The site's records are sealed, and figures are computed here.
        CloisterError: As for a job: records that don't fit their schema, a ledger or log that was set back.
    """
    if request.site not in spec.file.data.sites:
        raise InputError(
            "input.schema",
            f"the job has no site {request.site}",
            f"Sites: {', '.join(spec.file.data.sites)}.",
        )
    with immunity(workspace.settings, workspace.root) as noticing:
        return _release(spec, workspace, request, data_dir, clock, noticing)


def _release(
    spec: JobSpec,
    workspace: Workspace,
    request: FigureRequest,
    data_dir: Path | None,
    clock: Clock,
    noticing: Immunity,
) -> Figure:
    data = load_data(spec, data_dir)
    table = require_readable(data.sites[request.site], "A figure")
    require_column(data.schema, request.column)
    agreement = sign_agreement(spec, load_manifest_draft(spec.manifest_path), workspace, clock=clock)
    manifest = agreement.manifests[request.site]
    guardrails, dataset = manifest.privacy_guardrails, manifest.dataset_scope.name
    job_id = str(uuid4())
    rule = agreement.log_rules[request.site]
    with (
        open_site(workspace, request.site, job_id, rule, clock=clock) as seat,
        noticing.stated_by([seat.writer]),
    ):
        witnesses = open_witnesses(workspace.settings, [seat.log], clock())
        asked = Asked(
            request.sha256,
            tuple(_against(manifest, agreement.request, request)),
            {"figure_column": request.column, "figure_epsilon": float(request.epsilon)},
        )
        decision = decide_at(request.site, agreement, asked, data, seat.writer, clock)
        decision.require_approved(f"the figure at {request.site}")
        commit_data(data, agreement, {request.site: seat.writer})
        with workspace.ledger(seat.party, dataset, terms_of(manifest), log=seat.log) as ledger:
            keep_manifest(seat.party, dataset, agreement.manifest_envelopes[request.site])
            multiplier = calibrate(ledger.mode, request.epsilon, ledger.delta, 1.0, 1)
            account = site_account(
                ledger,
                seat.writer,
                site=request.site,
                dataset_sha256=Sha256(table.dataset_sha256),
                job_id=job_id,
                round_number=0,
                limits=limits_of(manifest),
            )
            noise = GaussianIntegers(OsRandom(request.site, job_id, "figure"))
            exact = exact_figure(data.schema, table, request.column, guardrails.unit)
            release = _released(exact, guardrails, multiplier, noise, account)
            may_leave(release)
            told, suppressed = _suppressed(release, guardrails.suppression_threshold)
            figure = Figure(
                request,
                job_id,
                dataset,
                guardrails.unit,
                told,
                suppressed,
                ledger.delta,
                ledger.epsilon(job_id),
                ledger.epsilon(),
                guardrails.epsilon_budget,
            )
        _keep(seat.party.folder / "figures", figure)
        show_head(witnesses, seat.log, clock())
        return figure


def _against(manifest: ProtocolManifest, request: TrainingRequest, figure: FigureRequest) -> Iterator[Reason]:
    """What speaks against a figure beside the rules for every request."""
    if OutputKind.DP_SCALARS not in request.outputs:
        yield Reason("outputs", f"the request doesn't ask for {OutputKind.DP_SCALARS}")
    if figure.epsilon > request.privacy.epsilon:
        yield Reason("figure-epsilon", f"the request asks for epsilon {request.privacy.epsilon:g} at most")
    if manifest.privacy_guardrails.delta_budget > request.privacy.delta:
        yield Reason("figure-delta", f"the request asks for delta {request.privacy.delta:g} at most")
    if manifest.privacy_guardrails.accounting == FIXED_PLAN:
        yield Reason("figure-accounting", "a budget of plans fixed beforehand pays no figures chosen since")
    if code_measurement().hex() not in manifest.attestation.allowed_measurements:
        yield Reason("figure-measurement", "the code that runs here is not among those the manifest allows")
    if not manifest.attestation.allow_simulated:
        yield Reason("figure-attestation", "the manifest wants attested hardware, and figures have none yet")


def _suppressed(release: Release, threshold: int) -> tuple[Release, tuple[str, ...]]:
    """A release without the counts that look too small to be told, and their names: post-processing."""
    if release.kind != "histogram":
        return release, ()
    told = {name: one for name, one in release.figures.items() if one.value >= threshold}
    return replace(release, figures=told), tuple(name for name in release.figures if name not in told)


def _keep(folder: Path, figure: Figure) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    write_new(folder / f"{figure.job_id}.json", json.dumps(figure.as_json(), indent=2).encode())


def require_column(schema: TableSchema, column: str) -> None:
    """Refuse a column that is not declared.

    Raises:
        InputError: There is no such column; its details list those that are.
    """
    declared = (*schema.column_names, schema.label.name)
    if column not in declared:
        raise InputError(
            "input.schema",
            "the schema declares no such column",
            "Name one of the columns listed.",
            details=declared,
        )


def exact_figure(schema: TableSchema, table: SiteData, column: str, unit: Unit) -> Counts | BoundedValues:
    """Compute the exact figure, which must not leave.

    Args:
        schema: The declared columns.
        table: The site's records.
        column: Which column, or the label; see :func:`require_column`.
        unit: What is protected.
    """
    subjects = table.subjects if unit == "subject" else None
    if column == schema.label.name:
        return _counts(table.labels, schema.label.classes, subjects)
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
    exact: Counts | BoundedValues,
    guardrails: PrivacyGuardrails,
    noise_multiplier: float,
    noise: IntegerNoise,
    account: Account,
) -> Release:
    if isinstance(exact, Counts):
        check_group(sum(exact.counts.values()), guardrails.minimum_group_size)
        return release_histogram(
            exact.counts,
            unit=guardrails.unit,
            noise_multiplier=noise_multiplier,
            noise=noise,
            account=account,
        )
    check_group(len(exact.values), guardrails.minimum_group_size)
    return release_mean(
        exact.values,
        exact.bounds,
        len(exact.values),
        unit=guardrails.unit,
        noise_multiplier=noise_multiplier,
        noise=noise,
        account=account,
        clamp=exact.clamp,
    )
