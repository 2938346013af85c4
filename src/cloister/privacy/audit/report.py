"""The report of a privacy audit: JSON for machines, one HTML page for people that needs nothing else.

Rules kept here:

1. What was not done says so, with the reason; nothing is shown in its place.
2. The page says what its findings do not prove before it shows any.
3. Figures of attacks on records are not differentially private: a report with such figures from records that
   are not public is marked confidential at its top.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from cloister.privacy.audit.canaries import CanaryAudit
from cloister.privacy.audit.check import Conformance
from cloister.privacy.audit.inversion import Inversion
from cloister.privacy.audit.membership import Membership, Roc
from cloister.privacy.audit.observation import Floats
from cloister.privacy.trainer import TrainingPlan

SCHEMA: Final = "urn:cloister:privacy-audit:v1"

NOT_PROVEN: Final = (
    "A lower bound below the claimed epsilon is not evidence that the claim holds. One run with noise two"
    " percent too small looks the same; so does many another fault.",
    "An attack that fails proves nothing: a better one may succeed. Epsilon bounds every attack, known or"
    " not; these are some of the known ones.",
    "The conformance suite tests the trainer of this installation on made-up records. It does not show which"
    " trainer made a model; that is what a job's attestation and receipt are for.",
    "Differential privacy hides one unit's part in the data. It does not hide what is true of the whole"
    " group, nor that a hospital took part, and it says nothing about what else was released of the same"
    " records.",
)
"""What no audit of this kind proves; shown in every report."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is audited.

    Args:
        name: The job's name.
        site: The site whose plan this is.
        plan: All steps of the job at that site.
        epsilon: What the accountant says of the plan, at ``delta``.
        delta: In (0, 1).
        accountant: Who says it: that of the ledger's mode.
        unit: What is protected.
        relation: How neighbouring datasets differ.
        units: Number of units at the site, public.
        generator: Name of the noise's generator.
    """

    name: str
    site: str
    plan: TrainingPlan
    epsilon: float
    delta: float
    accountant: str
    unit: str
    relation: str
    units: int
    generator: str

    def as_json(self) -> dict[str, object]:
        """The claim as plain JSON."""
        return {
            "job": self.name,
            "site": self.site,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "unit": self.unit,
            "relation": self.relation,
            "units": self.units,
            "sampling_probability": self.plan.sampling_probability,
            "noise_multiplier": self.plan.noise_multiplier,
            "max_grad_norm": self.plan.max_grad_norm,
            "steps": self.plan.steps,
            "noise_generator": self.generator,
        }


@dataclass(frozen=True, slots=True)
class Pictures:
    """What was rebuilt from updates, to be looked at.

    Args:
        name: Whose records they are.
        originals: float64 [records, features].
        results: One for each way to protect the update.
        shape: Height and width of a picture; zeros fill what the features don't.
    """

    name: str
    originals: Floats = field(repr=False)
    results: Sequence[Inversion]
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Everything an audit found.

    Args:
        claim: What is audited.
        conformance: The suite's checks.
        canaries: The one-run bound.
        memberships: Attacks on ways to train; empty where none were made.
        model: The attack on the model that was named, if one was.
        pictures: Attacks on updates.
        not_done: What was left out, each with its reason.
        confidential: Whether figures rest on records that are not public.
    """

    claim: Claim
    conformance: Conformance
    canaries: CanaryAudit
    memberships: Sequence[Membership]
    model: Roc | None
    pictures: Sequence[Pictures]
    not_done: Mapping[str, str]
    confidential: bool

    @property
    def passed(self) -> bool:
        """Whether nothing contradicts the claim. It doesn't follow that the claim holds."""
        return self.conformance.passed and not self.canaries.refutes

    def as_json(self) -> dict[str, object]:
        """The report as plain JSON, without any record."""
        return {
            "schema": SCHEMA,
            "confidential": self.confidential,
            "contradicted": not self.passed,
            "claim": self.claim.as_json(),
            "conformance": self.conformance.as_json(),
            "canaries": self.canaries.as_json(),
            "membership": [one.as_json() for one in self.memberships],
            "model": None if self.model is None else self.model.as_json(),
            "inversion": [
                {"records": one.name, "results": [found.as_json() for found in one.results]}
                for one in self.pictures
            ],
            "not_done": dict(self.not_done),
            "not_proven": list(NOT_PROVEN),
        }

    def encode(self) -> bytes:
        """The report as a JSON file."""
        return (json.dumps(self.as_json(), indent=2) + "\n").encode()


def render(report: AuditReport) -> str:
    """Render the report as one HTML page."""
    import jinja2

    from cloister.privacy.audit import plots

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("cloister.privacy.audit").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        report=report,
        not_proven=NOT_PROVEN,
        check_plot=plots.noise_scales(report.conformance),
        canary_plot=plots.canary_scores(report.canaries),
        bound_plot=plots.bounds(report.canaries),
        roc_plot=plots.curves(report.memberships, report.model, report.claim.epsilon, report.claim.delta),
        galleries=[(one, plots.gallery(one)) for one in report.pictures],
    )
