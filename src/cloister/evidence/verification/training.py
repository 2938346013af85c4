"""Checks on training: the data committed to, the budget spent, and what was made of the updates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import cast

from cloister.core.canonical import JSON
from cloister.core.errors import CloisterError
from cloister.evidence.checks import Check, judged, not_run
from cloister.evidence.context import ReceiptContext
from cloister.evidence.epsilon import (
    TOLERANCE,
    EpsilonFigures,
    crowded,
    dataset_limits_passed,
    epsilon_figures,
    epsilon_limits,
    subject_figures,
)
from cloister.evidence.predicates import (
    BudgetSpend,
    DataCommitment,
    Release,
    RoundAggregated,
)
from cloister.evidence.record import JobRecord, SignedManifest
from cloister.evidence.summary import PrivacySummary, spending_sites
from cloister.evidence.terms import MOCK_MECHANISM, SINGLE_CLASS_FLAG
from cloister.evidence.transcript import (
    ADAPTIVE,
    FIXED_PLAN,
    Approximate,
    Event,
    Gaussian,
    Pure,
    RepeatAndSelect,
    SampledGaussian,
    event_from_json,
    times,
)

WEIGHTED_BY_RECORDS = "FED_AVG"

MECHANISMS: Mapping[str, tuple[type[Event], ...]] = {
    "training": (SampledGaussian,),
    "evaluation": (Gaussian, Pure),
    "perturbation": (Gaussian, Pure, Approximate),
    "tuning": (RepeatAndSelect, SampledGaussian, Gaussian),
}
"""What a spend of each purpose can have been."""


def check_data(context: ReceiptContext) -> Check:
    """Each site committed to the dataset its manifest and the request name, and it was large enough."""
    record = context.record
    problems: list[str] = []
    sites = sorted({one.party for one in record.of(DataCommitment)} | set(record.involved))
    for site in sites:
        charged = {spend.dataset_sha256 for spend in record.by(site, BudgetSpend)}
        manifest, asked = record.manifests.get(site), record.request.terms.of_site(site)
        for one in record.by(site, DataCommitment):
            if manifest is None or one.dataset_sha256 != manifest.terms.dataset_scope.sha256:
                problems.append(f"{site}: the dataset is not the manifest's")
            else:
                problems += [f"{site}: {text}" for text in _group_problems(one, manifest)]
            if manifest is not None and not _as_declared(one, manifest):
                problems.append(f"{site}: the dataset's name or its declared bounds are not the manifest's")
            if one.single_class is not None and not _lets_out_the_flag(manifest):
                problems.append(f"{site}: it tells of its labels what its manifest doesn't let out")
            if asked is None or one.dataset_sha256 != asked.dataset_sha256:
                problems.append(f"{site}: the dataset is not the one asked for")
            if not charged <= {one.dataset_sha256}:
                problems.append(f"{site}: the budget of another dataset was charged")
    return judged("data", problems, f"{len(sites)} datasets as agreed")


def _as_declared(one: DataCommitment, manifest: SignedManifest) -> bool:
    scope = manifest.terms.dataset_scope
    return (one.dataset_name, one.bounds_sha256) == (scope.name, scope.bounds_sha256)


def _group_problems(one: DataCommitment, manifest: SignedManifest) -> Iterator[str]:
    guardrails = manifest.terms.privacy_guardrails
    if (one.subject_count is None) is (guardrails.unit == "subject"):
        yield "what it counts are not the units that its manifest protects"
    if one.units < guardrails.minimum_group_size or one.units > one.records:
        yield "the dataset is below the minimum group size, or counts more subjects than records"
    elif not guardrails.delta_budget * one.units < 1:
        yield "delta is not below one over the number of protected units"


def _lets_out_the_flag(manifest: SignedManifest | None) -> bool:
    return manifest is not None and SINGLE_CLASS_FLAG in manifest.terms.output_constraints.allowed_outputs


def check_budget_ledger(context: ReceiptContext) -> Check:
    """Each site charged its ledger for what the job's plan says, once per round and no less."""
    record = context.record
    problems = [
        f"{site}: {problem}" for site in spending_sites(record) for problem in _ledger_problems(record, site)
    ]
    count = len(record.of(BudgetSpend))
    return judged("budget-ledger", problems, f"{count} charges follow the job's plan")


def _ledger_problems(record: JobRecord, site: str) -> Iterator[str]:
    spends = record.by(site, BudgetSpend)
    manifest = record.manifests.get(site)
    if manifest is None:
        yield "it spent without a manifest"
    elif any(one.delta > manifest.terms.privacy_guardrails.delta_budget for one in spends):
        yield "delta is above the manifest's"
    if len({one.delta for one in spends}) > 1 or spends[0].delta > record.job.privacy.delta:
        yield "delta is above the job's, or changed"
    training = [one for one in spends if one.purpose == "training"]
    plans = {one.plan_steps for one in training}
    if len({(one.mode, one.unit) for one in spends}) > 1 or len(plans) > 1:
        yield "the ledger's mode, its unit or the plan changed"
    if manifest is not None and (spends[0].mode, spends[0].unit) != (
        manifest.terms.privacy_guardrails.accounting,
        manifest.terms.privacy_guardrails.unit,
    ):
        yield "the ledger's mode or unit is not the manifest's"
    if spends[0].mode == ADAPTIVE and len({one.ledger_head for one in spends}) != len(spends):
        yield "two charges end in the same ledger head"
    if any(one.prior_events for one in spends[1:]):
        yield "earlier charges are stated after the first spend"
    rounds = [one.round for one in training]
    if rounds != sorted(set(rounds)) or any(number >= record.job.rounds for number in rounds):
        yield "its rounds don't follow one another"
    noises: set[float] = set()
    sampling = _sampling_probability(record, site)
    for one in spends:
        problems = _event_problems(record, one, noises, sampling)
        yield from (f"round {one.round}: {problem}" for problem in problems)
    if len(noises) > 1:
        yield "the noise multiplier changed between rounds"


def _event_problems(
    record: JobRecord, one: BudgetSpend, noises: set[float], sampling: float
) -> Iterator[str]:
    try:
        event = event_from_json(cast(JSON, one.event))
    except CloisterError as error:
        yield error.message
        return
    if not times(event) == one.executed_steps <= one.reserved_steps:
        yield "the steps charged, executed and reserved don't agree"
    if not isinstance(event, MECHANISMS[one.purpose]):
        yield f"{one.purpose} was charged as another mechanism"
        return
    if one.mode == FIXED_PLAN and one.executed_steps != one.reserved_steps:
        yield "steps were given back of a plan that was fixed"
    if one.purpose != "training" or not isinstance(event, SampledGaussian):
        return
    noises.add(event.noise_multiplier)
    planned = record.job.privacy.noise_multiplier
    if planned is not None and event.noise_multiplier != planned:
        yield "the noise multiplier is not the job's"
    if one.reserved_steps != record.job.training.local_steps:
        yield "the steps reserved are not the job's"
    if one.plan_steps not in (None, record.job.rounds * record.job.training.local_steps):
        yield "the plan that was fixed is not the job's"
    if not math.isclose(event.sampling_probability, sampling, rel_tol=1e-12):
        yield "the sampling probability is not the job's"


def _sampling_probability(record: JobRecord, site: str) -> float:
    training = record.job.training
    if training.sampling_probability is not None:
        return training.sampling_probability
    units = max((one.units for one in record.by(site, DataCommitment)), default=0)
    return min(1.0, training.batch_size / units) if training.batch_size and units else math.nan


def _misstated(spent: EpsilonFigures, stated: PrivacySummary) -> Iterator[str]:
    pairs = (
        ("epsilon", spent.epsilon, stated.epsilon),
        ("the dataset's epsilon", spent.dataset_total, stated.epsilon_dataset_total),
        ("the other accountant's epsilon", spent.other, stated.epsilon_other),
        ("epsilon as held against the job's limit", spent.held, stated.epsilon_held),
        ("epsilon as held against the dataset's limit", spent.dataset_held, stated.epsilon_dataset_held),
    )
    for name, recomputed, claimed in pairs:
        if not abs(recomputed - claimed) <= TOLERANCE:
            yield f"{name} is {recomputed:.6f}, not {claimed:.6f}"


def check_epsilon(context: ReceiptContext) -> Check:
    """Epsilon, recomputed from each site's transcript, is what the summary says and within every limit."""
    record, stated = context.record, context.body.summary.privacy
    problems: list[str] = []
    if record.job.privacy.mechanism == MOCK_MECHANISM:
        problems.append("the job trained without noise (MOCK): no epsilon holds")
    recomputed_at: dict[str, EpsilonFigures] = {}
    largest = 0.0
    if not record.participants or any(site not in stated for site in record.participants):
        problems.append("the summary lacks a participant's epsilon")
    for site in spending_sites(record):
        if site not in record.manifests or site not in stated:
            problems.append(f"{site}: it spent without a manifest or a figure")
            continue
        spends, limits = record.by(site, BudgetSpend), epsilon_limits(record, site)
        try:
            spent = epsilon_figures(spends, limits)
            passed = dataset_limits_passed(spends, limits)
        except ImportError:
            return not_run("epsilon", "dp-accounting is not installed: pip install '.[verify]'")
        except CloisterError as error:
            problems.append(f"{site}: {error.message}")
            continue
        recomputed_at[site] = spent
        largest = max(largest, spent.epsilon)
        problems += [f"{site}: {one}" for one in _misstated(spent, stated[site])]
        if not spent.held <= limits.job + TOLERANCE:
            problems.append(f"{site}: epsilon is {spent.held:.6f}, above the limit {limits.job:g}")
        if crowded(record, site):
            problems.append(
                f"{site}: the job has more sites than its manifest shares a person's ceiling among"
            )
        for figure, limit in passed:
            problems.append(f"{site}: the dataset's epsilon is {figure:.6f}, above the limit {limit:g}")
    if recomputed_at:
        together = subject_figures(record, recomputed_at)
        if not together.dataset_total <= together.limit + len(recomputed_at) * TOLERANCE:
            problems.append(
                f"one subject's epsilon over all sites is {together.dataset_total:.6f}, "
                f"above the limit {together.limit:g}"
            )
    return judged("epsilon", problems, f"recomputed; {largest:.4f} at most in this job, within every limit")


def check_aggregation(context: ReceiptContext) -> Check:
    """The rounds form one chain of models from the first to the released one, each from enough sites."""
    record = context.record
    rounds = sorted(record.by(record.issuer, RoundAggregated), key=lambda one: one.round)
    problems = [f"round {one.round}: {text}" for one in rounds for text in _round_problems(record, one)]
    for before, after in pairwise(rounds):
        if before.model_sha256_after != after.model_sha256_before:
            problems.append(f"round {after.round}: it did not begin with the model round {before.round} made")
    for release in record.by(record.issuer, Release):
        if not rounds or release.weights_sha256 != rounds[-1].model_sha256_after:
            problems.append("the released weights are not those of the last round")
    return judged("aggregation", problems, f"{len(rounds)} rounds in one chain")


def _round_problems(record: JobRecord, one: RoundAggregated) -> Iterator[str]:
    job = record.job
    used, absent = set(one.updates), set(one.absent)
    if used & absent or used | absent != record.clients:
        yield "a site of the job is neither used nor absent, or both"
    if len(used) < job.min_clients:
        yield f"{len(used)} sites took part, fewer than {job.min_clients}"
    if one.strategy != job.strategy:
        yield "the strategy is not the job's"
    if set(one.weights) != used:
        yield "the weights don't fit the updates"
    elif not math.isclose(math.fsum(one.weights.values()), 1, rel_tol=1e-9):
        yield "the weights don't sum to one"
    elif job.strategy == WEIGHTED_BY_RECORDS and not _weights_follow_records(record, one):
        yield "the weights don't follow the sites' record counts"


def _weights_follow_records(record: JobRecord, one: RoundAggregated) -> bool:
    records = {site: record.records.get(site, 0) for site in one.updates}
    total_records, total_weight = sum(records.values()), math.fsum(one.weights.values())
    return total_records > 0 and all(
        math.isclose(one.weights[site] / total_weight, records[site] / total_records, rel_tol=1e-9)
        for site in one.updates
    )
