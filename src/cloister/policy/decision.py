"""Whether a request may be done under a manifest: a pure function that gives every reason against it.

Rules kept here:

- Each rule has a name and looks at one thing. All rules run; the reasons come in the rules' order.
- Approval is the absence of a reason. There is no default, no override and no state.
- The facts that a decision rests on are values that can be written down, so that anyone who has the
  manifest, the request and the facts comes to the same decision.
- A reason quotes the documents, never the dataset: a group that is too small isn't counted out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from cloister.core.canonical import JSON
from cloister.core.clock import parse_time
from cloister.core.hashes import Sha256Field
from cloister.policy.errors import PolicyError
from cloister.policy.fields import LARGEST_INTEGER, Section, Slug, Text, Timestamp
from cloister.policy.manifest import OutputKind, ProtocolManifest
from cloister.policy.request import TrainingRequest

CLOCK_TOLERANCE = timedelta(minutes=5)


class DecisionFacts(Section):
    """What the site knows when it decides.

    Attributes:
        site: The site's name.
        dataset_name: Name that the dataset's own declaration gives it.
        bounds_sha256: Hash of that declaration: columns, public bounds, classes.
        dataset_sha256: Hash of the dataset that is there now.
        records: Number of records in it.
        subjects: Of how many people they are, where the declaration says whose each is; else None.
        test_set_sha256: Hash of the test set that the model will be measured on.
        test_set_records: Number of records in that.
        decided_at: Time of the decision.
    """

    site: Slug
    dataset_name: Text
    bounds_sha256: Sha256Field
    dataset_sha256: Sha256Field
    records: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
    subjects: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)] | None = None
    test_set_sha256: Sha256Field
    test_set_records: Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
    decided_at: Timestamp

    def as_json(self) -> dict[str, JSON]:
        """Return the facts as they are written into a statement; what isn't known isn't written."""
        known: dict[str, JSON] = {} if self.subjects is None else {"subjects": self.subjects}
        return known | {
            "site": self.site,
            "dataset_name": self.dataset_name,
            "bounds_sha256": self.bounds_sha256,
            "dataset_sha256": self.dataset_sha256,
            "records": self.records,
            "test_set_sha256": self.test_set_sha256,
            "test_set_records": self.test_set_records,
            "decided_at": self.decided_at,
        }


@dataclass(frozen=True)
class Reason:
    """One reason against: the rule's name and a sentence."""

    rule: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


@dataclass(frozen=True)
class Decision:
    """A decision: approved if there is no reason against it."""

    reasons: tuple[Reason, ...]

    @property
    def approved(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    @property
    def reason_lines(self) -> tuple[str, ...]:
        """Every reason as ``rule: sentence``."""
        return tuple(str(reason) for reason in self.reasons)

    def require_approved(self, what: str) -> None:
        """Raise if refused.

        Args:
            what: What was decided on, such as ``the request at northgate``.

        Raises:
            PolicyError: ``policy.refused`` with every reason in its details.
        """
        if not self.approved:
            count = len(self.reasons)
            raise PolicyError(
                "policy.refused",
                f"{what} is refused for {count} reason{'s' if count > 1 else ''}",
                "Change what the reasons name, or ask the hospital for another manifest.",
                details=self.reason_lines,
            )


def decide(manifest: ProtocolManifest, request: TrainingRequest, facts: DecisionFacts) -> Decision:
    """Decide whether a site may do what a request asks, under its manifest.

    Args:
        manifest: The site's manifest, its signature verified.
        request: The request, its signature verified.
        facts: What the site knows.

    Returns:
        The decision, with every reason against.
    """
    return Decision(
        tuple(
            Reason(rule, sentence)
            for rule, sentences in REQUEST_RULES.items()
            for sentence in sentences(manifest, request, facts)
        )
    )


def _validity(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    if facts.decided_at < manifest.validity.not_before:
        yield f"the manifest is not valid before {manifest.validity.not_before}"
    if facts.decided_at >= manifest.validity.not_after:
        yield f"the manifest expired at {manifest.validity.not_after}"


def _submission(_: ProtocolManifest, request: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    if parse_time(request.submission_timestamp) > parse_time(facts.decided_at) + CLOCK_TOLERANCE:
        yield f"the request says it was submitted at {request.submission_timestamp}, which is yet to come"


def _site(manifest: ProtocolManifest, request: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    if manifest.hospital.id != facts.site:
        yield f"the manifest is {manifest.hospital.id}'s, not {facts.site}'s"
    if request.for_site(facts.site) is None:
        yield f"the request doesn't name the site {facts.site}"


def _reference(manifest: ProtocolManifest, request: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    asked = request.for_site(facts.site)
    if asked is None:
        return
    if (asked.manifest_id, asked.manifest_version) != (manifest.manifest_id, manifest.version):
        yield (
            f"the request is written for manifest {asked.manifest_id} version {asked.manifest_version}, "
            f"not for {manifest.manifest_id} version {manifest.version}"
        )
    elif asked.manifest_sha256 != manifest.sha256:
        yield "the request is written for a manifest of the same id and version but with another content"


def _purpose(manifest: ProtocolManifest, request: TrainingRequest, _: DecisionFacts) -> Iterator[str]:
    if request.purpose not in manifest.purpose_limitation.allowed_purposes:
        yield f"the purpose {request.purpose} is not among the allowed purposes"


def _prohibition(manifest: ProtocolManifest, request: TrainingRequest, _: DecisionFacts) -> Iterator[str]:
    if request.purpose in manifest.purpose_limitation.prohibited_uses:
        yield f"the purpose {request.purpose} is prohibited"


def _dataset_name(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    # The budget is kept under this name: under another one it would begin anew.
    if facts.dataset_name != manifest.dataset_scope.name:
        yield f"the dataset at the site isn't declared as {manifest.dataset_scope.name}"


def _bounds(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    if facts.bounds_sha256 != manifest.dataset_scope.bounds_sha256:
        yield "the columns and bounds declared at the site have another hash than the manifest's"


def _dataset(manifest: ProtocolManifest, request: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    asked = request.for_site(facts.site)
    if asked is not None and asked.dataset_sha256 != manifest.dataset_scope.sha256:
        yield "the request asks for a dataset with another hash than the manifest's"


def _unchanged(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    if facts.dataset_sha256 != manifest.dataset_scope.sha256:
        yield "the dataset at the site has another hash than the manifest's: it was changed or replaced"


def _sample_size(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    if facts.records != manifest.dataset_scope.sample_size:
        yield f"the dataset doesn't hold the {manifest.dataset_scope.sample_size} records the manifest states"


def _test_set(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    pinned = manifest.success_metrics.evaluation_method
    if facts.test_set_sha256 != pinned.test_set_sha256:
        yield "the test set has another hash than the manifest's: it was changed or replaced"
    if facts.test_set_records != pinned.test_set_records:
        yield f"the test set doesn't hold the {pinned.test_set_records} records the manifest states"


def _group_size(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    guardrails = manifest.privacy_guardrails
    if _units(manifest, facts) < guardrails.minimum_group_size:
        yield (
            f"the dataset holds fewer {guardrails.unit}s than the minimum group size of "
            f"{guardrails.minimum_group_size}"
        )


def _unit(manifest: ProtocolManifest, _: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    if manifest.privacy_guardrails.unit == "subject" and facts.subjects is None:
        yield "the manifest protects subjects, and the dataset at the site doesn't say whose its records are"


def _units(manifest: ProtocolManifest, facts: DecisionFacts) -> int:
    if manifest.privacy_guardrails.unit == "subject" and facts.subjects is not None:
        return facts.subjects
    return facts.records


def _epsilon(manifest: ProtocolManifest, request: TrainingRequest, _: DecisionFacts) -> Iterator[str]:
    budget = manifest.privacy_guardrails.epsilon_budget
    if request.privacy.epsilon > budget:
        yield f"epsilon {request.privacy.epsilon:g} is above the budget of {budget:g}"


def _delta(manifest: ProtocolManifest, request: TrainingRequest, _: DecisionFacts) -> Iterator[str]:
    budget = manifest.privacy_guardrails.delta_budget
    if request.privacy.delta > budget:
        yield f"delta {request.privacy.delta:g} is above the budget of {budget:g}"


def _delta_for_records(
    manifest: ProtocolManifest, request: TrainingRequest, facts: DecisionFacts
) -> Iterator[str]:
    # At a delta of 1/n, publishing one whole record counts as private.
    for whose, delta in (
        ("requested", request.privacy.delta),
        ("manifest's", manifest.privacy_guardrails.delta_budget),
    ):
        if delta * _units(manifest, facts) >= 1:
            unit = manifest.privacy_guardrails.unit
            yield f"the {whose} delta {delta:g} is not below one over the number of {unit}s"


def _outputs(manifest: ProtocolManifest, request: TrainingRequest, _: DecisionFacts) -> Iterator[str]:
    for output in request.outputs:
        if output not in manifest.output_constraints.allowed_outputs:
            yield f"the output {output} is not allowed to leave"


def _suppression(manifest: ProtocolManifest, request: TrainingRequest, facts: DecisionFacts) -> Iterator[str]:
    threshold = manifest.privacy_guardrails.suppression_threshold
    by_subject = manifest.privacy_guardrails.unit == "subject"
    protected, units = (facts.subjects or 0, "subjects") if by_subject else (facts.records, "records")
    if OutputKind.DP_SCALARS in request.outputs and protected < threshold:
        yield f"statistics about fewer than {threshold} {units} are not released"


RequestRule = Callable[[ProtocolManifest, TrainingRequest, DecisionFacts], Iterable[str]]

REQUEST_RULES: Mapping[str, RequestRule] = {
    "manifest-validity": _validity,
    "request-time": _submission,
    "site": _site,
    "manifest-reference": _reference,
    "purpose-allowed": _purpose,
    "purpose-prohibited": _prohibition,
    "dataset-name": _dataset_name,
    "dataset-bounds": _bounds,
    "dataset-requested": _dataset,
    "dataset-unchanged": _unchanged,
    "sample-size": _sample_size,
    "test-set": _test_set,
    "privacy-unit": _unit,
    "group-size": _group_size,
    "epsilon-budget": _epsilon,
    "delta-budget": _delta,
    "delta-records": _delta_for_records,
    "outputs": _outputs,
    "suppression": _suppression,
}
