"""The summary in a receipt: what a person reads first, every figure of it recomputed from statements.

The fields are those a receipt must have for execution, policy, privacy, cost, destruction, performance and
credits. Of destruction and credits it says what was stated, and nothing where nothing was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from cloister.core.canonical import b64encode
from cloister.core.hashes import Sha256Field
from cloister.evidence.cost import CostSummary, cost_of
from cloister.evidence.epsilon import EpsilonFigures, epsilon_limits, subject_figures, within
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    Destruction,
    Evaluation,
    JobClosed,
    JobOpened,
    RequestDecided,
    Settlement,
)
from cloister.evidence.predicates.base import (
    CountField,
    MeasurementField,
    NameField,
    Part,
    PartyField,
    TimeField,
    UuidField,
)
from cloister.evidence.record import JobRecord
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.evidence.transcript import (
    ACCOUNTANTS,
    ADAPTIVE,
    ORDERS,
    PLD_GRID,
    RELATION,
    order_for,
    other_mode,
)


class EnclaveSummary(Part):
    """What a site's platform attested."""

    platform: NameField
    measurement: MeasurementField
    status: NameField
    simulated: bool


class ExecutionSummary(Part):
    """When and where the job ran; ``simulated`` if any platform was."""

    start_time: TimeField
    end_time: TimeField
    code_measurement: MeasurementField
    enclaves: dict[PartyField, EnclaveSummary]
    simulated: bool


class PolicySummary(Part):
    """Whether purpose, data and privacy stayed within the manifests."""

    purpose: NameField
    purpose_compliance: bool
    dataset_compliance: bool
    privacy_compliance: bool


class DataSummary(Part):
    """The records a site trained on, by hash and count."""

    dataset_name: NameField
    dataset_sha256: Sha256Field
    records: CountField
    single_class: bool | None
    normalisation: Literal["declared-public-bounds"]


class PrivacySummary(Part):
    """What a site spent, and how it is counted.

    ``orders`` are those of the accountant RDP, ``grid`` is that of PLD; the other one is empty. ``epsilon``
    and ``epsilon_dataset_total`` are taken at the best of the orders. That of the job holds, since its plan
    was fixed when it began; the dataset's total, where jobs followed one another's results, is the reading of
    an odometer, and what is promised is the limit. ``epsilon_held`` and ``epsilon_dataset_held`` are what was
    held against the limit on the job and the smallest one on the dataset, each at the limit's own order:
    ``limit_orders``, in this sequence. With the mechanism ``MOCK`` there was no noise, and no figure holds.
    """

    mechanism: NameField
    epsilon: float = Field(ge=0)
    epsilon_dataset_total: float = Field(ge=0)
    epsilon_held: float = Field(ge=0)
    epsilon_dataset_held: float = Field(ge=0)
    delta: float
    unit: NameField
    relation: NameField
    mode: NameField
    accountant: NameField
    orders: tuple[int, ...]
    limit_orders: tuple[int, ...]
    grid: float | None
    other_accountant: NameField
    epsilon_other: float = Field(ge=0)
    noise_generators: tuple[NameField, ...]


class SubjectSummary(Part):
    """What one person may have lost at all sites together: the sites' figures added up, unless linked.

    ``linked`` is the hospitals' own statement that no person is at two sites.
    """

    cross_site_subjects: Literal["sum", "linked"]
    epsilon: float = Field(ge=0)
    epsilon_dataset_total: float = Field(ge=0)
    delta: float
    limit: float


class PerformanceSummary(Part):
    """How good the model is on the named test set."""

    test_set: NameField
    records: CountField
    metric: NameField
    value: float
    baseline_name: Literal["best-constant"]
    baseline_value: float
    improvement_score: float
    threshold: float
    passed: bool


class DestructionSummary(Part):
    """Something a party says it destroyed.

    ``method`` is what it says it did; ``verified`` if every look at whether it is gone passed, else the
    others are named; ``statement_sha256`` names the statement, whose place in the party's log is the proof
    that it was made.
    """

    party: PartyField
    what: NameField
    method: NameField
    timestamp: TimeField
    verified: bool
    failed: tuple[NameField, ...]
    not_run: tuple[NameField, ...]
    simulated: bool
    statement_sha256: Sha256Field


class CreditSummary(Part):
    """The credits a hospital was given, and by which rule; no money."""

    rule: NameField
    unit: NameField
    credits: CountField


class LogSummary(Part):
    """A log's head at the time of the receipt: what a later check of the log starts from."""

    size: CountField
    root: NameField
    statements: CountField


class Summary(Part):
    """The whole summary."""

    request_id: UuidField
    manifest_ids: dict[PartyField, UuidField]
    rounds: CountField
    participants: tuple[PartyField, ...]
    execution: ExecutionSummary
    policy: PolicySummary
    data: dict[PartyField, DataSummary]
    privacy: dict[PartyField, PrivacySummary]
    subjects: SubjectSummary
    cost: CostSummary
    destruction: tuple[DestructionSummary, ...]
    performance: PerformanceSummary
    credits_awarded: dict[PartyField, CreditSummary]
    logs: dict[NameField, LogSummary]


def spending_sites(record: JobRecord) -> tuple[str, ...]:
    """The sites that spent any budget in this job, sorted, whether or not their updates were used."""
    return tuple(sorted({one.party for one in record.of(BudgetSpend)}))


def summarise(record: JobRecord, figures: Mapping[str, EpsilonFigures]) -> Summary:
    """Recompute the summary from statements.

    Args:
        record: the job's record, complete.
        figures: epsilon per spending site, recomputed by whoever composes, or as stated by what is verified.

    Returns:
        The summary.

    Raises:
        EvidenceError: ``evidence.statement_missing`` if the record lacks what a summary needs.
    """
    try:
        return Summary(
            request_id=record.request.terms.request_id,
            manifest_ids={site: one.terms.manifest_id for site, one in record.manifests.items()},
            rounds=record.job.rounds,
            participants=record.participants,
            execution=_execution(record),
            policy=_policy(record, figures),
            data={one.party: _data(one) for one in record.of(DataCommitment)},
            privacy={site: _privacy(record, site, figures[site]) for site in spending_sites(record)},
            subjects=_subjects(record, figures),
            cost=cost_of(record),
            destruction=_destruction(record),
            performance=_performance(record),
            credits_awarded=_credits(record),
            logs=_logs(record),
        )
    except (IndexError, KeyError, ValueError) as error:
        raise EvidenceError(
            "evidence.statement_missing", "The statements don't suffice for the summary of a receipt."
        ) from error


def _execution(record: JobRecord) -> ExecutionSummary:
    opened = record.by(record.issuer, JobOpened)[0]
    verdicts = record.by(record.issuer, AttestationVerdict)
    return ExecutionSummary(
        start_time=opened.recorded_at,
        end_time=record.by(record.issuer, JobClosed)[-1].recorded_at,
        code_measurement=opened.code_measurement,
        enclaves={
            one.site: EnclaveSummary(
                platform=one.platform, measurement=one.measurement, status=one.status, simulated=one.simulated
            )
            for one in verdicts
        },
        simulated=any(one.simulated for one in verdicts),
    )


def _policy(record: JobRecord, figures: Mapping[str, EpsilonFigures]) -> PolicySummary:
    sites = record.participants
    datasets = [
        one.dataset_sha256 == record.manifests[site].terms.dataset_scope.sha256
        and one.bounds_sha256 == record.manifests[site].terms.dataset_scope.bounds_sha256
        for site in sites
        for one in record.by(site, DataCommitment)
    ]
    return PolicySummary(
        purpose=record.request.terms.purpose,
        purpose_compliance=all(one.approved for site in sites for one in record.by(site, RequestDecided)),
        dataset_compliance=all(datasets),
        privacy_compliance=record.job.privacy.mechanism != MOCK_MECHANISM
        and all(within(figures[site], epsilon_limits(record, site)) for site in spending_sites(record)),
    )


def _data(one: DataCommitment) -> DataSummary:
    return DataSummary(
        dataset_name=one.dataset_name,
        dataset_sha256=one.dataset_sha256,
        records=one.records,
        single_class=one.single_class,
        normalisation=one.normalisation,
    )


def _privacy(record: JobRecord, site: str, figures: EpsilonFigures) -> PrivacySummary:
    spends = record.by(site, BudgetSpend)
    mode = spends[0].mode
    renyi, limits, delta = mode == ADAPTIVE, epsilon_limits(record, site), max(one.delta for one in spends)
    return PrivacySummary(
        mechanism=record.job.privacy.mechanism,
        epsilon=figures.epsilon,
        epsilon_dataset_total=figures.dataset_total,
        epsilon_held=figures.held,
        epsilon_dataset_held=figures.dataset_held,
        delta=delta,
        unit=spends[0].unit,
        relation=RELATION,
        mode=mode,
        accountant=ACCOUNTANTS[mode],
        orders=ORDERS if renyi else (),
        limit_orders=tuple(order_for(one, delta) for one in (limits.job, limits.dataset)) if renyi else (),
        grid=None if renyi else PLD_GRID,
        other_accountant=ACCOUNTANTS[other_mode(mode)],
        epsilon_other=figures.other,
        noise_generators=tuple(sorted({one.noise_generator for one in spends})),
    )


def _subjects(record: JobRecord, figures: Mapping[str, EpsilonFigures]) -> SubjectSummary:
    one = subject_figures(record, {site: figures[site] for site in spending_sites(record)})
    return SubjectSummary(
        cross_site_subjects="linked" if one.linked else "sum",
        epsilon=one.epsilon,
        epsilon_dataset_total=one.dataset_total,
        delta=one.delta,
        limit=one.limit,
    )


def _destruction(record: JobRecord) -> tuple[DestructionSummary, ...]:
    return tuple(
        DestructionSummary(
            party=one.owner,
            what=one.predicate.what,
            method=one.predicate.method,
            timestamp=one.predicate.recorded_at,
            verified=all(check.outcome == "passed" for check in one.predicate.checks),
            failed=tuple(check.name for check in one.predicate.checks if check.outcome == "failed"),
            not_run=tuple(check.name for check in one.predicate.checks if check.outcome == "not_run"),
            simulated=one.predicate.simulated,
            statement_sha256=one.entry.envelope.payload_sha256,
        )
        for one in record.logged
        if isinstance(one.predicate, Destruction)
    )


def _credits(record: JobRecord) -> dict[str, CreditSummary]:
    settled = record.by(record.issuer, Settlement)
    return {
        hospital: CreditSummary(rule=one.rule, unit=one.unit, credits=count)
        for one in settled[-1:]
        for hospital, count in one.credits.items()
    }


def _performance(record: JobRecord) -> PerformanceSummary:
    one = record.by(record.issuer, Evaluation)[0]
    return PerformanceSummary(
        test_set=one.test_set,
        records=one.records,
        metric=one.metric,
        value=one.value,
        baseline_name=one.baseline_name,
        baseline_value=one.baseline_value,
        improvement_score=one.improvement_score,
        threshold=one.threshold,
        passed=one.passed,
    )


def _logs(record: JobRecord) -> dict[str, LogSummary]:
    statements = Counter(one.log for one in record.logged)
    return {
        origin: LogSummary(
            size=checkpoint.size, root=b64encode(checkpoint.root), statements=statements[origin]
        )
        for origin, checkpoint in record.checkpoints.items()
    }
