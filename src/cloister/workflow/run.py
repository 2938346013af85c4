"""One job from its file to its receipt: admit, attest, train, evaluate, release, prove.

On one machine this module plays every party, each with its own key, log and ledger. It composes; the
rooms below decide and act. Rules kept here:

- Nothing is trained before every hospital has agreed in its own log and every site was attested.
- Whatever ends a job, each party that wrote about it closes its chain, so that a log tells how it ended.
- The job's folder appears whole, with a receipt that this module has verified like a stranger would,
  or it doesn't appear.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from cloister.core.clock import Clock, system_clock
from cloister.core.errors import CloisterError
from cloister.core.files import write_new
from cloister.core.hashes import sha256_hex
from cloister.core.logging import (
    Logger,
    LogLevel,
    bind_correlation,
    configure_logging,
    get_logger,
    stop_logging,
)
from cloister.enclave.attestation import (
    AppraisalPolicy,
    NonceBook,
    Platforms,
    TrustStore,
    certificate_pem,
)
from cloister.enclave.attestation import Verifier as AttestationVerifier
from cloister.enclave.measure import code_measurement
from cloister.enclave.model_file import encode_model
from cloister.evidence import Role, Subject, Trust, TrustEntry, write_trust
from cloister.evidence.predicates import JobOpened
from cloister.evidence.receipt import ModelFile, compose_receipt
from cloister.evidence.verifier import TestRandomness, Verdict, Verifier, model_artifact
from cloister.federation import (
    FederationJob,
    FederationResult,
    HubRuntime,
    LocalBackend,
    SiteRuntime,
    compile_job,
)
from cloister.federation.compile import JobFolder
from cloister.federation.events import FederationEvent
from cloister.federation.hub import initial_weights
from cloister.federation.node import Weights
from cloister.federation.site import RandomnessFor, os_randomness, seeded_test_randomness
from cloister.health import FederatedData
from cloister.policy import PolicyError
from cloister.privacy import BudgetLedger, Limit, Scope
from cloister.workflow.admission import Agreement, admit, commit_data, load_data, sign_agreement
from cloister.workflow.affordability import require_affordable
from cloister.workflow.checks import full_registry
from cloister.workflow.compute import one_thread_per_site
from cloister.workflow.history import History
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.outcome import (
    MODEL_FILE,
    RECEIPT_FILE,
    REPORT_FILE,
    TRUST_FOLDER,
    JobOutcome,
    RoundRecord,
)
from cloister.workflow.parties import HUB, Parties, open_parties
from cloister.workflow.release import (
    Goal,
    Measured,
    common_goal,
    measure_model,
    state_evaluation,
    state_release,
)
from cloister.workflow.report import render_report
from cloister.workflow.scoring import CLASSES
from cloister.workflow.summary import summarise_outcome
from cloister.workflow.workspace import Workspace

_READABLE: Final = 0o644


@dataclass(frozen=True)
class Stage:
    """A step of the job has begun; the sentence is for people."""

    sentence: str


RunEvent = Stage | FederationEvent
Watcher = Callable[[RunEvent], None]


@dataclass(frozen=True)
class Trained:
    """What the federation left: the final weights, its rounds, and how long they took."""

    result: FederationResult
    sites: Mapping[str, SiteRuntime]
    rounds: tuple[RoundRecord, ...]
    seconds: float


def run_job(
    spec: JobSpec,
    workspace: Workspace,
    *,
    watch: Watcher,
    data_dir: Path | None = None,
    test_seed: int | None = None,
    log_level: LogLevel = LogLevel.INFO,
    log_file: Path | None = None,
    clock: Clock = system_clock,
) -> JobOutcome:
    """Run one job to its end.

    Args:
        spec: The job.
        workspace: Holds keys, logs, ledgers and finished jobs.
        watch: Called with each event, one at a time.
        data_dir: Folder with the data files, for sources that need one.
        test_seed: None takes noise from the operating system's entropy; a number makes the run repeatable
            and worthless as protection, which every artifact then says.
        log_level: The lowest level of the run's log.
        log_file: Where that log goes; None for the workspace's ``logs`` folder.
        clock: Gives the time.

    Returns:
        The finished job with its artifacts on disk. The model may have missed its threshold.

    Raises:
        CloisterError: Whatever stopped the job; nothing of it is left in ``jobs``.
    """
    job = spec.federation_job()
    path = log_file if log_file is not None else workspace.log_path(job.job_id)
    configure_logging(path=path, level=log_level, experiment_id=job.job_id, clock=clock)
    log = get_logger("workflow")
    try:
        with bind_correlation(job.job_id), one_thread_per_site(), _ending(log):
            log.info("job_started", name=spec.file.name, source=spec.file.data.source, sites=len(job.clients))
            outcome = _run(spec, job, workspace, watch, data_dir, test_seed, clock)
            log.info("job_finished", passed=outcome.passed, receipt_accepted=outcome.verdict.accepted)
            return outcome
    finally:
        stop_logging()


@contextmanager
def _ending(log: Logger) -> Iterator[None]:
    """Log what ends a job early, by its code or, where it has none, by its type."""
    try:
        yield
    except CloisterError as error:
        log.warning("job_stopped", code=error.code)
        raise
    except BaseException as error:
        log.warning("job_stopped", error=type(error).__name__)
        raise


@dataclass(frozen=True)
class _Case:
    """What one run works with, from the first step to the last."""

    spec: JobSpec
    job: FederationJob
    workspace: Workspace
    watch: Watcher
    test_seed: int | None
    clock: Clock
    staging: Path
    data: FederatedData
    agreement: Agreement
    goal: Goal
    parties: Parties
    ledgers: Mapping[str, BudgetLedger]


def _run(
    spec: JobSpec,
    job: FederationJob,
    workspace: Workspace,
    watch: Watcher,
    data_dir: Path | None,
    test_seed: int | None,
    clock: Clock,
) -> JobOutcome:
    with (
        workspace.job_folder(f"{spec.file.name}-{job.job_id}") as (staging, final),
        ExitStack() as opened,
    ):
        watch(Stage(f"reading {spec.file.data.source}"))
        data = load_data(spec, data_dir)
        agreement = sign_agreement(spec, workspace, clock=clock)
        parties = opened.enter_context(open_parties(workspace, job, clock=clock))
        watch(Stage("asking each hospital"))
        admit(agreement, job, data, parties.writers, clock=clock)
        commit_data(data, agreement, parties.writers)
        ledgers = {
            site: opened.enter_context(
                workspace.ledger(
                    parties.sites[site].party,
                    agreement.manifests[site].dataset_scope.name,
                    delta=agreement.manifests[site].privacy_guardrails.delta_budget,
                )
            )
            for site in job.clients
        }
        goal = common_goal(agreement.manifests)
        case = _Case(
            spec, job, workspace, watch, test_seed, clock, staging, data, agreement, goal, parties, ledgers
        )
        trained = _train(case)
        measured, model_file = _measure_and_release(case, trained)
        parties.close("completed")
        verdict = _prove(case, model_file)
        outcome = summarise_outcome(
            spec,
            job,
            final,
            data,
            agreement,
            measured,
            trained.sites,
            _absent(trained.result),
            trained.rounds,
            trained.seconds,
            ledgers,
            verdict,
        )
        write_new(staging / REPORT_FILE, render_report(outcome).encode(), mode=_READABLE)
    return outcome


def _train(case: _Case) -> Trained:
    case.watch(Stage("attesting each site (SIMULATED), then training"))
    job, data, agreement = case.job, case.data, case.agreement
    compiled = compile_job(job)
    compiled.write(case.staging / "job")
    _open_job(case, compiled)
    vendor = case.workspace.simulated_vendor(case.clock)
    measurement = code_measurement()
    key_ids = {site: seat.party.signer.public_key.key_id for site, seat in case.parties.sites.items()}
    sites = {
        site: SiteRuntime(
            job,
            data.sites[site],
            CLASSES,
            ledger=case.ledgers[site],
            statements=seat.writer,
            site_key_id=key_ids[site],
            platform=vendor.platform(site, measurement),
            randomness=_randomness(case, site),
            limits=_limits(agreement, site),
        )
        for site, seat in case.parties.sites.items()
    }

    require_affordable(
        job,
        sites,
        case.ledgers,
        {site: _limits(agreement, site) for site in job.clients},
        case.parties.writers,
    )

    def evaluate(weights: Weights) -> dict[str, float]:
        measured = measure_model(job, weights, data.test, case.goal)
        return {case.goal.metric.value: measured.result.value}

    hub = HubRuntime(
        job,
        initial_weights(job, data.test.features.shape[1], CLASSES),
        statements=case.parties.hub.writer,
        verifier=AttestationVerifier(TrustStore.simulated(vendor.root_der), case.clock),
        nonces=NonceBook(case.clock),
        policy=_appraisal_policy(agreement),
        site_key_ids=key_ids,
        records={site: agreement.manifests[site].dataset_scope.sample_size for site in job.clients},
        evaluate=evaluate,
    )
    history = History(job.job_id, case.watch)
    began = time.perf_counter()
    result = LocalBackend(case.staging).run(job, compiled, hub, sites, history.take)
    seconds = time.perf_counter() - began
    return Trained(result, sites, history.rounds(case.goal.metric.value), seconds)


def _open_job(case: _Case, compiled: JobFolder) -> None:
    digest = sha256_hex(case.job.canonical())
    case.parties.hub.writer.write(
        JobOpened,
        (Subject(name="job", sha256=digest),),
        job_sha256=digest,
        job_folder_sha256=compiled.sha256,
        code_measurement=code_measurement().hex(),
        sites=sorted(case.job.clients),
        rounds=case.job.rounds,
        strategy=case.job.strategy.value,
        test_set=case.data.test.name,
    )


def _randomness(case: _Case, site: str) -> RandomnessFor:
    if case.test_seed is None:
        return os_randomness(site, case.job.job_id)
    return seeded_test_randomness(case.test_seed, site)


def _absent(result: FederationResult) -> dict[str, str]:
    refused = {one.site: one.reason for one in result.admissions if not one.admitted}
    return refused | {one.site: f"{one.code} in round {one.round + 1}" for one in result.failures}


def _limits(agreement: Agreement, site: str) -> tuple[Limit, ...]:
    guardrails = agreement.manifests[site].privacy_guardrails
    return (
        Limit("manifest budget", guardrails.epsilon_budget, Scope.DATASET),
        Limit("manifest hard stop", guardrails.epsilon_hard_stop, Scope.DATASET),
    )


def _appraisal_policy(agreement: Agreement) -> AppraisalPolicy:
    terms = [manifest.attestation for manifest in agreement.manifests.values()]
    simulated = all(one.allow_simulated for one in terms)
    return AppraisalPolicy(
        measurements=frozenset.intersection(*(frozenset(one.allowed_measurements) for one in terms)),
        platforms=Platforms.HARDWARE_OR_SIMULATED if simulated else Platforms.HARDWARE_ONLY,
    )


def _measure_and_release(case: _Case, trained: Trained) -> tuple[Measured, bytes]:
    case.watch(Stage(f"measuring on {case.data.test.name}"))
    weights, hub = trained.result.weights, case.parties.hub.writer
    measured = measure_model(case.job, weights, case.data.test, case.goal)
    state_evaluation(measured, case.data.test, hub)
    model_file = encode_model(weights)
    unmet = state_release(model_file, weights, case.goal, hub)
    if unmet:
        raise PolicyError(
            "policy.refused",
            "the model isn't released",
            "The manifests' output constraints don't allow it.",
            details=[f"{constraint.name}: {constraint.detail}" for constraint in unmet],
        )
    write_new(case.staging / MODEL_FILE, model_file)
    return measured, model_file


def _prove(case: _Case, model_file: bytes) -> Verdict:
    case.watch(Stage("composing and checking the receipt"))
    model = ModelFile(name=MODEL_FILE, sha256=sha256_hex(model_file), bytes=len(model_file))
    receipt = compose_receipt(
        receipt_id=str(uuid4()),
        issuer=HUB,
        signer=case.parties.hub.party.signer,
        clock=case.clock,
        job=case.job.model_dump(mode="json"),
        manifests=case.agreement.manifest_envelopes,
        request=case.agreement.request_envelope,
        model=model,
        extracts=[seat.log.extract(case.job.job_id) for seat in case.parties.seats],
    )
    write_new(case.staging / RECEIPT_FILE, receipt, mode=_READABLE)
    write_trust(case.staging / TRUST_FOLDER, _trust_entries(case))
    accept = TestRandomness.REFUSE if case.test_seed is None else TestRandomness.ACCEPT
    verifier = Verifier(Trust.load(case.staging / TRUST_FOLDER), full_registry(), accept=accept)
    return verifier.verify(receipt, model_artifact(model_file))


def _trust_entries(case: _Case) -> list[TrustEntry]:
    entries = [
        TrustEntry(Role(seat.party.role), seat.party.name, seat.party.signer.public_key.pem.encode())
        for seat in case.parties.seats
    ]
    entries += [
        TrustEntry(Role.HOSPITAL, site, manifest.hospital.public_key.encode())
        for site, manifest in case.agreement.manifests.items()
    ]
    developer = case.agreement.request.ai_developer
    entries.append(TrustEntry(Role.DEVELOPER, developer.id, developer.public_key.encode()))
    root = certificate_pem(case.workspace.simulated_vendor(case.clock).root_der)
    entries.append(TrustEntry(Role.TEE_ROOT, "SIMULATED", root))
    return entries
