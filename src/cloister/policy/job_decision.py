"""Whether a job stays within the request that was approved, and within the manifest's way of evaluation.

Rules kept here:

- A job may do less than the request asks for (fewer sites, rounds, steps, less epsilon), never more and
  never something else.
- What a job yields has to be asked for and allowed to leave. The one mechanism that protects, DP-SGD,
  yields weights; a mock, without noise, is never approved.
- As in :mod:`cloister.policy.decision`: every rule runs, every reason is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister.core.canonical import JSON, canonicalize
from cloister.core.errors import InputError
from cloister.policy.decision import Decision, Reason
from cloister.policy.manifest import OutputKind, ProtocolManifest
from cloister.policy.request import TrainingRequest

MOCK_RULE: Final = "job-mechanism"
"""The rule that every mock breaks, also where the manifest allows a mock to be tried out."""


@dataclass(frozen=True)
class JobTerms:
    """What a job is about to do, in the terms that a request and a manifest speak of.

    Attributes:
        sites: The sites of the job.
        datasets: Dataset hash of the sites whose data the reader knows of.
        architecture: Name of the model.
        hyperparameters: Parameters of the model.
        strategy: How updates are aggregated.
        rounds: Rounds of the job.
        local_steps: Optimiser steps of one site in one round.
        epsilon: Epsilon the job may spend at each site.
        delta: Delta at which it is stated.
        mechanism: What protects each step: DP_SGD, or MOCK for nothing.
        test_set: Name of the test set the model is evaluated on.
    """

    sites: tuple[str, ...]
    datasets: Mapping[str, str]
    architecture: str
    hyperparameters: Mapping[str, JSON]
    strategy: str
    rounds: int
    local_steps: int
    epsilon: float
    delta: float
    mechanism: str
    test_set: str


class _JobPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _JobModel(_JobPart):
    architecture: str
    parameters: dict[str, bool | int | float | str | list[bool | int | float | str]]


class _JobTraining(_JobPart):
    local_steps: int


class _JobPrivacy(_JobPart):
    mechanism: Literal["DP_SGD", "MOCK"]
    target_epsilon: float
    delta: float


class _Job(_JobPart):
    clients: tuple[str, ...] = Field(strict=False)
    strategy: str
    rounds: int
    model: _JobModel
    training: _JobTraining
    privacy: _JobPrivacy


def job_terms(job: JSON, *, datasets: Mapping[str, str], test_set: str) -> JobTerms:
    """Read the terms of a job from its canonical JSON, as the federation writes it.

    Args:
        job: The job.
        datasets: Hash of the dataset at each of the job's sites, as far as known to the reader. A site
            that isn't among the job's clients counts as a site of the job all the same.
        test_set: Name of the test set the model is evaluated on.

    Raises:
        InputError: ``input.schema`` if a field that policy reads is missing or of a wrong kind.
    """
    try:
        read = _Job.model_validate(job)
    except ValidationError:
        raise InputError(
            "input.schema",
            "a job lacks fields that policy decides on",
            "Give the job in the canonical form that the federation writes.",
        ) from None
    return JobTerms(
        sites=tuple(sorted({*read.clients, *datasets})),
        datasets=dict(datasets),
        architecture=read.model.architecture,
        hyperparameters=cast(dict[str, JSON], read.model.parameters),
        strategy=read.strategy,
        rounds=read.rounds,
        local_steps=read.training.local_steps,
        epsilon=read.privacy.target_epsilon,
        delta=read.privacy.delta,
        mechanism=read.privacy.mechanism,
        test_set=test_set,
    )


def decide_job(manifest: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Decision:
    """Decide whether a job stays within an approved request and a manifest's way of evaluation.

    Args:
        manifest: The manifest of one of the job's sites.
        request: The approved request.
        terms: What the job is about to do.

    Returns:
        The decision, with every reason against.
    """
    return Decision(
        tuple(
            Reason(rule, sentence)
            for rule, sentences in JOB_RULES.items()
            for sentence in sentences(manifest, request, terms)
        )
    )


def _job_sites(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    for site in terms.sites:
        if request.for_site(site) is None:
            yield f"the job runs at {site}, which the request doesn't name"


def _job_datasets(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    for site, sha256 in sorted(terms.datasets.items()):
        asked = request.for_site(site)
        if asked is not None and asked.dataset_sha256 != sha256:
            yield f"the job's dataset at {site} has another hash than the request's"


def _job_architecture(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    asked = request.model_specification.architecture
    if terms.architecture != asked:
        yield f"the job trains {terms.architecture}, the request asks for {asked}"


def _job_hyperparameters(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    asked = request.model_specification.hyperparameters
    for name in sorted(asked.keys() | terms.hyperparameters.keys()):
        if name not in terms.hyperparameters or name not in asked:
            yield f"the hyperparameter {name} is not in both the job and the request"
        elif canonicalize(terms.hyperparameters[name]) != canonicalize(cast(JSON, asked[name])):
            yield f"the hyperparameter {name} differs between the job and the request"


def _job_strategy(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    asked = request.model_specification.training_config.strategy
    if terms.strategy != asked:
        yield f"the job aggregates by {terms.strategy}, the request asks for {asked}"


def _job_rounds(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    most = request.model_specification.training_config.rounds
    if terms.rounds > most:
        yield f"the job runs {terms.rounds} rounds, the request asks for at most {most}"


def _job_steps(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    most = request.model_specification.training_config.local_steps
    if terms.local_steps > most:
        yield f"the job takes {terms.local_steps} local steps a round, the request asks for at most {most}"


def _job_epsilon(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    # Written so that NaN is a reason, as in the next rule.
    if not 0 < terms.epsilon <= request.privacy.epsilon:
        yield f"the job's epsilon {terms.epsilon:g} is not within the requested {request.privacy.epsilon:g}"


def _job_delta(_: ProtocolManifest, request: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    if not 0 < terms.delta <= request.privacy.delta:
        yield f"the job's delta {terms.delta:g} is not within the requested {request.privacy.delta:g}"


def _job_mechanism(_: ProtocolManifest, __: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    if terms.mechanism != "DP_SGD":
        yield f"the job trains without noise ({terms.mechanism})"


def _job_mock(manifest: ProtocolManifest, _: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    if terms.mechanism != "DP_SGD" and not manifest.privacy_guardrails.allow_mock:
        yield "the manifest doesn't allow a job to be tried out without noise on these records"


def _job_subjects(manifest: ProtocolManifest, _: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    guardrails = manifest.privacy_guardrails
    if guardrails.cross_site_subjects == "sum" and len(terms.sites) > guardrails.subject_sites:
        yield (
            f"the job runs at {len(terms.sites)} sites, and the manifest shares one person's ceiling among "
            f"{guardrails.subject_sites}"
        )


def _job_outputs(manifest: ProtocolManifest, request: TrainingRequest, _: JobTerms) -> Iterator[str]:
    if OutputKind.MODEL_WEIGHTS not in request.outputs:
        yield "the job's sites send model-weights, which the request doesn't ask for"
    if OutputKind.MODEL_WEIGHTS not in manifest.output_constraints.allowed_outputs:
        yield "the job's sites send model-weights, which the manifest doesn't allow to leave"


def _job_test_set(manifest: ProtocolManifest, _: TrainingRequest, terms: JobTerms) -> Iterator[str]:
    named = manifest.success_metrics.evaluation_method.test_set
    if terms.test_set != named:
        yield f"the job is evaluated on {terms.test_set}, the manifest names {named}"


JobRule = Callable[[ProtocolManifest, TrainingRequest, JobTerms], Iterable[str]]

JOB_RULES: Mapping[str, JobRule] = {
    "job-sites": _job_sites,
    "job-datasets": _job_datasets,
    "job-architecture": _job_architecture,
    "job-hyperparameters": _job_hyperparameters,
    "job-strategy": _job_strategy,
    "job-rounds": _job_rounds,
    "job-local-steps": _job_steps,
    "job-epsilon": _job_epsilon,
    "job-delta": _job_delta,
    MOCK_RULE: _job_mechanism,
    "job-mock": _job_mock,
    "job-subjects": _job_subjects,
    "job-outputs": _job_outputs,
    "job-test-set": _job_test_set,
}
