"""Audit the privacy of a job: its plan at one site, the trainer, and a model if one is named.

Rules kept here:

- The conformance suite and the canaries touch no record. Attacks on records are made on public demonstration
  data, or where someone who may see the records says so; the report is marked confidential then.
- The claim is the one that a job would make: per the unit, and by the accountant of the mode, that the
  manifest fixes for the dataset's ledger.
- Nothing here trains a model that is released, writes to a ledger, or reads a log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.enclave.model_file import DEFAULT_MAX_BYTES, decode_model
from cloister.evidence.transcript import ACCOUNTANTS, RELATION
from cloister.federation.site_plan import plan_round, units_of
from cloister.health import FederatedData, SiteData, require_readable
from cloister.policy import load_manifest_draft
from cloister.policy.manifest import PrivacyGuardrails
from cloister.privacy.audit.canaries import audit_with_canaries
from cloister.privacy.audit.conformance import FULL, QUICK, Power, run_conformance
from cloister.privacy.audit.inversion import attack_updates
from cloister.privacy.audit.membership import Membership, Roc, attack_training, loss_threshold, train_plainly
from cloister.privacy.audit.model_checks import AuditedModel
from cloister.privacy.audit.report import AuditReport, Claim, Pictures
from cloister.privacy.models import load_arrays
from cloister.privacy.modes import epsilon_in
from cloister.privacy.randomness import OS_GENERATOR, OsRandom
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan
from cloister.workflow.admission import load_data
from cloister.workflow.compare import PUBLIC_SOURCES
from cloister.workflow.compute import one_thread_per_site
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.scoring import model_of

if TYPE_CHECKING:
    from torch import nn

_VICTIMS = 8
_PLAIN_STEPS = 400
_PLAIN_RATE = 0.3


class Records(Enum):
    """Whether attacks on a site's records may be made."""

    IF_PUBLIC = "if public"
    CONFIDENTIAL = "confidential"


@dataclass(frozen=True)
class AuditRequest:
    """What to audit.

    Attributes:
        spec: The job.
        data_dir: Folder with the data files, for sources that need one.
        model: A model file of that job, to attack as well.
        site: Whose plan and records; by default the first site's.
        records: Whether attacks may read records that are not public.
        power: How much the conformance suite looks at.
    """

    spec: JobSpec
    data_dir: Path | None = None
    model: Path | None = None
    site: str | None = None
    records: Records = Records.IF_PUBLIC
    power: Power = QUICK


def full_power() -> Power:
    """Return the power that takes minutes."""
    return FULL


def audit_job(request: AuditRequest) -> AuditReport:
    """Audit a job.

    Args:
        request: What to audit.

    Raises:
        InputError: The job has no such site, or a file can't be read.
        HealthError: ``health.sealed``: The site's records are sealed, and an audit looks at them.
        EnclaveError: ``enclave.model_file`` for a model file that is malformed.
        JobError: ``federation.wrong_unit``: the manifest protects subjects, and the records don't say whose
            they are.
        ModelError: ``model.weights_mismatch`` for a model of another job.
    """
    with one_thread_per_site():
        return _audit(request, load_data(request.spec, request.data_dir))


def _audit(request: AuditRequest, data: FederatedData) -> AuditReport:
    spec = request.spec
    site = request.site or sorted(data.sites)[0]
    if site not in data.sites:
        raise InputError(
            "input.schema", f"the job has no site {site}", f"Its sites: {', '.join(sorted(data.sites))}."
        )
    mine = require_readable(data.sites[site], "An audit")
    guardrails = load_manifest_draft(spec.manifest_path).privacy_guardrails
    claim = _claim(spec, mine, guardrails)
    public = data.source in PUBLIC_SOURCES
    readable = public or request.records is Records.CONFIDENTIAL
    subjects = mine.subjects if guardrails.unit == "subject" else None
    records = TrainingData(
        mine.features.copy(), mine.labels.copy(), None if subjects is None else subjects.copy()
    )
    model = None if request.model is None else _load(spec, request.model, records)
    not_done = {}
    if not readable:
        not_done["Attacks on the site's records"] = (
            "the records are not public. Whoever may see them asks for it with --confidential; the report has"
            " to stay with them."
        )
    if model is None:
        not_done["Attack on a model"] = "no model file was named."
    elif not readable:
        not_done["Attack on the model"] = "it needs the site's records."
    return AuditReport(
        claim=claim,
        conformance=run_conformance(_trainer, model=_audited(spec, records), power=request.power),
        canaries=audit_with_canaries(_trainer, claim.plan, claim.epsilon, claim.delta),
        memberships=_memberships(spec, claim, records) if readable else (),
        model=_model_attack(model, records, data) if model is not None and readable else None,
        pictures=_pictures(claim, records if readable else None, site),
        not_done=not_done,
        confidential=readable and not public,
    )


def _trainer(plan: TrainingPlan, site: str) -> DPTrainer:
    """The trainer as a site makes it."""
    return DPTrainer(
        plan, noise=OsRandom("audit", site, "noise"), sampling=OsRandom("audit", site, "sampling")
    )


def _audited(spec: JobSpec, records: TrainingData) -> AuditedModel:
    """The job's own architecture, on made-up rows."""
    features = records.features.shape[1]
    return AuditedModel(lambda: model_of(spec.file.model, spec.file.federation.seed, features), features)


def _claim(spec: JobSpec, mine: SiteData, guardrails: PrivacyGuardrails) -> Claim:
    job, mode, units = spec.federation_job(), guardrails.accounting, units_of(mine, guardrails.unit)
    # The delta that the dataset's ledger counts with, which a job may not be below.
    delta = min(job.privacy.delta, guardrails.delta_budget)
    one_round = plan_round(job, units, delta, mode)
    whole = replace(one_round, steps=job.rounds * one_round.steps)
    return Claim(
        name=spec.file.name,
        site=mine.name,
        plan=whole,
        epsilon=epsilon_in(mode, [whole.event], delta),
        delta=delta,
        accountant=ACCOUNTANTS[mode],
        unit=guardrails.unit,
        relation=RELATION,
        units=units,
        generator=OS_GENERATOR,
    )


def _load(spec: JobSpec, path: Path, records: TrainingData) -> nn.Module:
    model = model_of(spec.file.model, spec.file.federation.seed, records.features.shape[1])
    weights = decode_model(read_bounded(path, DEFAULT_MAX_BYTES))
    load_arrays(model, cast("Mapping[str, npt.NDArray[np.float32]]", weights))
    return model


def _model_attack(model: nn.Module, records: TrainingData, data: FederatedData) -> Roc:
    others = TrainingData(
        np.array(data.test.features, dtype=np.float32),
        np.array(data.test.labels, dtype=np.int64),
    )
    # Record by record, like the test set: a subject's mean would differ from one record's by that alone.
    return loss_threshold(model, replace(records, subjects=None), others)


def _memberships(spec: JobSpec, claim: Claim, records: TrainingData) -> tuple[Membership, ...]:
    def new(number: int) -> nn.Module:
        return model_of(spec.file.model, number, records.features.shape[1])

    def plainly(part: TrainingData, number: int) -> nn.Module:
        return train_plainly(new(number), part, steps=_PLAIN_STEPS, learning_rate=_PLAIN_RATE)

    def privately(part: TrainingData, number: int) -> nn.Module:
        model = new(number)
        _trainer(claim.plan, claim.site).fit(model, part)
        return model

    ways: dict[str, Callable[[TrainingData, int], nn.Module]] = {
        "no protection": plainly,
        f"this plan, epsilon {claim.epsilon:.2g}": privately,
    }
    return tuple(attack_training(name, train, records) for name, train in ways.items())


def _pictures(claim: Claim, records: TrainingData | None, site: str) -> tuple[Pictures, ...]:
    found = [_rebuilt("Made-up pictures", claim, made_up_pictures(), (12, 12))]
    if records is not None:
        rows = np.arange(records.records)
        if records.subjects is not None:  # one record each of so many subjects
            rows = np.unique(records.subjects, return_index=True)[1]
        few = TrainingData(records.features[rows[:_VICTIMS]], records.labels[rows[:_VICTIMS]])
        side = math.ceil(math.sqrt(few.features.shape[1]))
        found.append(_rebuilt(f"Records of {site}, one square for each feature", claim, few, (side, side)))
    return tuple(found)


def _rebuilt(name: str, claim: Claim, victims: TrainingData, shape: tuple[int, int]) -> Pictures:
    results = attack_updates(_trainer, claim.plan, victims)
    return Pictures(name, victims.features.astype(np.float64), results, shape)


def made_up_pictures() -> TrainingData:
    """Eight figures of 12 x 12 points between -1 and 1: what a rebuilt record looks like."""
    across, down = np.meshgrid(np.arange(12) - 5.5, np.arange(12) - 5.5)
    from_middle = np.hypot(across, down)
    drawn = [
        np.abs(from_middle - 4) < 0.9,
        (np.abs(across) < 1.5) | (np.abs(down) < 1.5),
        np.abs(np.abs(across) - np.abs(down)) < 0.9,
        np.maximum(np.abs(across), np.abs(down)) < 3,
        (np.arange(12) % 4 < 2)[:, None] & (np.abs(across) < 5),
        (np.arange(12) % 4 < 2)[None, :] & (np.abs(down) < 5),
        np.abs(across) + np.abs(down) < 4.5,
        (down > 3) | ((np.abs(across) < down / 2 + 3) & (down > -4)),
    ]
    pictures = np.stack([np.where(one, 1.0, -1.0).ravel() for one in drawn]).astype(np.float32)
    return TrainingData(pictures, np.arange(8, dtype=np.int64) % 4)
