"""What a round of a job is at one site, and what all its rounds are together, in the terms of the ledger."""

from __future__ import annotations

from cloister.evidence.transcript import ADAPTIVE, Mode, SampledGaussian, Unit
from cloister.federation.errors import JobError
from cloister.federation.job import FederationJob
from cloister.health import SiteRecords
from cloister.privacy.errors import PrivacyError
from cloister.privacy.modes import calibrate
from cloister.privacy.trainer import TrainingPlan


def plan_round(job: FederationJob, units: int, delta: float, mode: Mode = ADAPTIVE) -> TrainingPlan:
    """What one round at a site with so many units is, in the terms of the trainer and the ledger.

    Args:
        job: the job; without a noise multiplier, the smallest is taken with which all its rounds stay within
            the target epsilon.
        units: the site's records, or subjects where those are what is protected; public.
        delta: the delta its ledger counts with.
        mode: how its ledger composes spends.

    Raises:
        PrivacyError: no noise reaches the target, the job asks for none, or its batch is larger than the
            dataset.
    """
    probability = job.training.sampling_probability_for(units)
    if probability > 1:
        raise PrivacyError(
            "privacy.plan_invalid",
            "The job's batch is larger than the dataset of one of its sites.",
            "Ask for a smaller batch_size, or for a sampling_probability of 1 to use everyone in every step.",
        )
    steps = job.training.local_steps
    noise = job.privacy.noise_multiplier
    if noise is None:
        noise = calibrate(mode, job.privacy.target_epsilon, delta, probability, job.rounds * steps)
    return TrainingPlan(
        sampling_probability=probability,
        noise_multiplier=noise,
        max_grad_norm=job.privacy.max_grad_norm,
        steps=steps,
        learning_rate=job.training.learning_rate,
    )


def plan_job(job: FederationJob, plan: TrainingPlan) -> SampledGaussian:
    """What all rounds of a job are together.

    Args:
        job: the job.
        plan: what one round is.
    """
    return SampledGaussian(plan.sampling_probability, plan.noise_multiplier, job.rounds * plan.steps)


def units_of(data: SiteRecords, unit: Unit) -> int:
    """How many records, or subjects, a site has, whichever are protected.

    Raises:
        JobError: `federation.wrong_unit` if subjects are protected and the records don't say whose they are.
    """
    if unit == "record":
        return data.records
    if data.subject_count is None:
        raise JobError(
            "federation.wrong_unit",
            f"subjects are protected at {data.name}, and its records don't say whose they are",
            "declare the column that names the subject",
        )
    return data.subject_count
