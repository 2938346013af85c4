"""One job from its file to its receipt: admit, attest, train, evaluate, release, prove.

On one machine this module plays every party, each with its own key, log and ledger. It composes; the
rooms below decide and act. Rules kept here:

- Nothing is trained before every hospital has agreed in its own log and every site was attested.
- Whatever ends a job, each party that wrote about it closes its chain, so that a log tells how it ended.
- The job's folder appears whole, with a receipt that this module has verified like a stranger would,
  or it doesn't appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cloister.core.clock import Clock, system_clock
from cloister.core.errors import CloisterError
from cloister.core.files import write_new
from cloister.core.logging import (
    Logger,
    LogLevel,
    bind_correlation,
    configure_logging,
    get_logger,
    stop_logging,
)
from cloister.enclave.model_file import encode_model
from cloister.enclave.protection import require_records_may_be_read
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.federation import FederationJob
from cloister.policy import load_manifest_draft
from cloister.privacy import BudgetLedger
from cloister.workflow.admission import Agreement, admit, commit_data, load_data, sign_agreement
from cloister.workflow.attester import Attester, SimulatedChips, require_fitting_attestation
from cloister.workflow.case import Case
from cloister.workflow.compute import one_thread_per_site
from cloister.workflow.immunity import Immunity, immunity
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.ledgers import keep_manifest, terms_of
from cloister.workflow.marks import MARKED, folder_mark, model_marks
from cloister.workflow.outcome import MODEL_FILE, REPORT_FILE, JobOutcome
from cloister.workflow.parties import Parties, open_parties
from cloister.workflow.preflight import require_releasable
from cloister.workflow.proof import READABLE, prove
from cloister.workflow.release import (
    Measured,
    common_goal,
    measure_model,
    require_satisfied,
    state_evaluation,
    state_release,
)
from cloister.workflow.report import render_report
from cloister.workflow.sealing import begin_sealing
from cloister.workflow.summary import summarise_outcome
from cloister.workflow.training import Trained, train
from cloister.workflow.watching import Stage, Watcher
from cloister.workflow.witnessing import open_witnesses
from cloister.workflow.workspace import Workspace


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
    attester: Attester | None = None,
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
        attester: What the sites prove themselves with, and how the run is protected; None for the workspace's
            own simulated chips.

    Returns:
        The finished job with its artifacts on disk. The model may have missed its threshold.

    Raises:
        CloisterError: Whatever stopped the job; nothing of it is left in ``jobs``.
    """
    if attester is None:
        attester = SimulatedChips(workspace.simulated_vendor(clock))
    require_fitting_attestation(spec, attester.protection)
    job = spec.federation_job()
    path = log_file if log_file is not None else workspace.log_path(job.job_id)
    configure_logging(
        path=path,
        level=log_level,
        experiment_id=job.job_id,
        clock=clock,
        protection=attester.protection.mark or None,
    )
    log = get_logger("workflow")
    begin_sealing()
    try:
        with (
            bind_correlation(job.job_id),
            one_thread_per_site(),
            _ending(log),
            immunity(workspace.settings, workspace.root) as noticing,
        ):
            log.info("job_started", name=spec.file.name, source=spec.file.data.source, sites=len(job.clients))
            outcome = _run(spec, job, workspace, watch, data_dir, test_seed, clock, attester, noticing)
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
        log.warning("job_stopped", error=error)
        raise


def _run(
    spec: JobSpec,
    job: FederationJob,
    workspace: Workspace,
    watch: Watcher,
    data_dir: Path | None,
    test_seed: int | None,
    clock: Clock,
    attester: Attester,
    noticing: Immunity,
) -> JobOutcome:
    mark = folder_mark(job, attester.protection)
    with (
        workspace.job_folder(f"{mark}{spec.file.name}-{job.job_id}") as (staging, final),
        ExitStack() as opened,
    ):
        draft = load_manifest_draft(spec.manifest_path)
        require_records_may_be_read(attester.protection, draft.dataset_scope.contents)
        watch(Stage(f"reading {spec.file.data.source}"))
        data = load_data(spec, data_dir)
        agreement = sign_agreement(spec, draft, workspace, clock=clock)
        parties = opened.enter_context(open_parties(workspace, job, agreement.log_rules, clock=clock))
        incidents = opened.enter_context(noticing.stated_by([seat.writer for seat in parties.seats]))
        witnesses = open_witnesses(workspace.settings, [seat.log for seat in parties.seats], clock())
        watch(Stage("asking each hospital"))
        admit(agreement, job, data, parties.writers, clock=clock)
        goal = common_goal(agreement.manifests)
        require_releasable(job, data.test, goal)
        commit_data(data, agreement, parties.writers)
        ledgers = {
            site: opened.enter_context(_ledger(site, job, workspace, agreement, parties))
            for site in job.clients
        }
        case = Case(
            spec,
            job,
            workspace,
            watch,
            test_seed,
            clock,
            staging,
            data,
            agreement,
            goal,
            parties,
            ledgers,
            attester,
            witnesses,
        )
        trained = train(case)
        measured, model_file = _measure_and_release(case, trained)
        incidents.close()
        parties.close("completed")
        verdict = prove(case, model_file)
        outcome = summarise_outcome(
            spec,
            job,
            final,
            data,
            agreement,
            measured,
            trained.sites,
            trained.absent,
            trained.rounds,
            trained.seconds,
            ledgers,
            verdict,
            attester.protection,
            noticing.noticed,
        )
        write_new(staging / REPORT_FILE, render_report(outcome).encode(), mode=READABLE)
    return outcome


def _ledger(
    site: str, job: FederationJob, workspace: Workspace, agreement: Agreement, parties: Parties
) -> BudgetLedger:
    manifest, seat = agreement.manifests[site], parties.sites[site]
    terms = terms_of(manifest)
    if job.privacy.mechanism == MOCK_MECHANISM:
        return workspace.mock_ledger(seat.party, manifest.dataset_scope.name, terms)
    ledger = workspace.ledger(seat.party, manifest.dataset_scope.name, terms, log=seat.log)
    keep_manifest(seat.party, manifest.dataset_scope.name, agreement.manifest_envelopes[site])
    return ledger


def _measure_and_release(case: Case, trained: Trained) -> tuple[Measured, bytes]:
    case.watch(Stage(f"measuring on {case.data.test.name}"))
    weights, hub = trained.result.weights, case.parties.hub.writer
    measured = measure_model(case.job, weights, case.data.test, case.goal)
    state_evaluation(measured, case.data.test, hub)
    mechanism = case.job.privacy.mechanism
    marks = model_marks(case.job, case.attester.protection)
    model_file = encode_model({**weights, **marks}, case.attester.protection.mark)
    constraints = state_release(
        model_file, weights, case.goal, hub, mechanism, protection=case.attester.protection
    )
    # A marked model stays here, refused, for whoever tries the job out.
    require_satisfied([one for one in constraints if not (marks and one.name in MARKED)])
    write_new(case.staging / MODEL_FILE, model_file)
    return measured, model_file
