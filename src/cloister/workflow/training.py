"""From an agreed job to trained weights: open it, build hub and sites, let the federation run.

Rules kept here:

- The job is opened in the hub's log before any site is challenged.
- A job of which some round would not fit a budget costs nothing: it is refused before its first round.
- How each site left is known to whoever closes its chain, also if the job comes to nothing.
- Sites train in sealed workers; each is destroyed at the end, and its site states that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation import AppraisalPolicy, NonceBook
from cloister.enclave.attestation import Verifier as AttestationVerifier
from cloister.enclave.measure import code_measurement
from cloister.evidence import Subject
from cloister.evidence.predicates import JobOpened
from cloister.federation import (
    FederationResult,
    HubRuntime,
    LocalBackend,
    SiteRuntime,
    compile_job,
    sealed_training,
)
from cloister.federation.compile import JobFolder
from cloister.federation.errors import is_refusal
from cloister.federation.events import FederationEvent, SiteLeft, SiteRefused
from cloister.federation.hub import initial_weights
from cloister.federation.node import Weights
from cloister.federation.site_airlock import OutputTerms
from cloister.workflow.affordability import require_affordable
from cloister.workflow.case import Case
from cloister.workflow.history import History
from cloister.workflow.keepers import open_handover
from cloister.workflow.ledgers import limits_of
from cloister.workflow.outcome import RoundRecord
from cloister.workflow.release import measure_model
from cloister.workflow.scoring import CLASSES
from cloister.workflow.sealing import (
    Sealing,
    accepted_levels,
    begin_sealing,
    sealed_server,
    watched,
    what_takes_time,
)
from cloister.workflow.watching import Stage

_NEEDED_LATER: Final = ("dp_accounting", "matplotlib.figure")
"""What receipt and report are made with: loaded while the fork server isn't ready yet, two seconds sooner."""


@dataclass(frozen=True)
class Trained:
    """What the federation left: the final weights, its rounds, and how long they took."""

    result: FederationResult
    sites: Mapping[str, SiteRuntime]
    rounds: tuple[RoundRecord, ...]
    seconds: float

    @property
    def absent(self) -> dict[str, str]:
        """The sites that did not take part to the end, each with the reason."""
        refused = {one.site: one.reason for one in self.result.admissions if not one.admitted}
        left = {one.site: f"{one.code} in round {one.round + 1}" for one in self.result.failures}
        return refused | left


def train(case: Case) -> Trained:
    """Open the job, attest its sites and run all its rounds.

    Args:
        case: The job and all it works with.

    Raises:
        CloisterError: What kept the job from its end; every site that left by itself is noted as such.
    """
    job = case.job
    compiled = compile_job(job)
    compiled.write(case.staging / "job")
    _open_job(case, compiled)
    starting = begin_sealing()
    why = what_takes_time(starting)
    case.watch(Stage(f"sealing a worker for each site{f' ({why})' if why else ''}"))
    if not starting.done():
        for name in _NEEDED_LATER:
            import_module(name)
    sealing = sealed_server()

    def watch(event: FederationEvent) -> None:
        match event:
            case SiteRefused(site):
                case.parties.left(site, "refused")
            case SiteLeft(site, _, code):
                case.parties.left(site, "refused" if is_refusal(code) else "failed")
            case _:
                pass
        case.watch(event)

    sites: dict[str, SiteRuntime] = {}
    writers = list(case.parties.writers.values())
    with watched(sealing, case.staging / "job", writers, case.clock), _ended(sites):
        _fill(case, sealing, sites)
        require_affordable(job, sites, case.ledgers, case.parties.writers)
        mark = case.attester.protection.mark
        case.watch(Stage(f"attesting each site{f' ({mark})' if mark else ''}, then training"))
        history = History(job.job_id, watch)
        began = time.perf_counter()
        result = LocalBackend(case.staging).run(job, compiled, _hub(case), sites, history.take)
        seconds = time.perf_counter() - began
    return Trained(result, sites, history.rounds(case.goal.metric.value), seconds)


def _open_job(case: Case, compiled: JobFolder) -> None:
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


@contextmanager
def _ended(sites: Mapping[str, SiteRuntime]) -> Iterator[None]:
    """Have every site's worker destroyed, and that stated, whatever became of the job."""
    with ExitStack() as ending:
        try:
            yield
        finally:
            for site in sites.values():
                # The second is for one that was interrupted or failed; it does nothing otherwise.
                ending.callback(site.end)
                ending.callback(site.end)


def _fill(case: Case, sealing: Sealing, sites: dict[str, SiteRuntime]) -> None:
    levels = accepted_levels(
        case.workspace.settings.seal_levels,
        (one.attestation.accepted_seal_levels for one in case.agreement.manifests.values()),
    )
    for site, seat in case.parties.sites.items():
        platform = case.attester.platform(site)
        with open_handover(case, site, platform) as handover:
            trainer = sealed_training(
                sealing.host, case.data.schema, levels, handover, test_seed=case.test_seed
            )
            sites[site] = SiteRuntime(
                case.job,
                case.data.sites[site],
                CLASSES,
                ledger=case.ledgers[site],
                statements=seat.writer,
                logs=case.parties.site_logs(site),
                site_key_id=seat.party.signer.public_key.key_id,
                platform=platform,
                trainer=trainer,
                limits=limits_of(case.agreement.manifests[site]),
                outputs=OutputTerms.of(case.agreement.manifests[site]),
                minimum_units=case.agreement.manifests[site].privacy_guardrails.minimum_group_size,
            )


def _hub(case: Case) -> HubRuntime:
    job, manifests, hub = case.job, case.agreement.manifests, case.parties.hub

    def evaluate(weights: Weights) -> dict[str, float]:
        measured = measure_model(job, weights, case.data.test, case.goal)
        return {case.goal.metric.value: measured.result.value}

    return HubRuntime(
        job,
        initial_weights(job, case.data.test.features.shape[1], CLASSES),
        statements=hub.writer,
        verifier=AttestationVerifier(case.attester.trust, case.clock, case.attester.collateral),
        nonces=NonceBook(case.clock),
        policy=AppraisalPolicy.agreed_by(manifest.attestation for manifest in manifests.values()),
        site_key_ids={site: seat.party.signer.public_key.key_id for site, seat in case.parties.sites.items()},
        records={site: manifests[site].dataset_scope.sample_size for site in job.clients},
        logs=case.parties.hub_logs(),
        evaluate=evaluate,
    )
