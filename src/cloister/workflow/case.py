"""What one run works with, from the first step to the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.core.clock import Clock
from cloister.evidence.witness.witness import Witness
from cloister.federation import FederationJob
from cloister.health import FederatedData
from cloister.privacy import BudgetLedger
from cloister.workflow.admission import Agreement
from cloister.workflow.attester import Attester
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.parties import Parties
from cloister.workflow.release import Goal
from cloister.workflow.watching import Watcher
from cloister.workflow.workspace import Workspace


@dataclass(frozen=True)
class Case:
    """One job that every hospital has agreed to.

    Attributes:
        spec: The job file.
        job: The job as it runs.
        workspace: Holds keys, logs and ledgers.
        watch: Is told of each event.
        test_seed: None for noise from the operating system's entropy.
        clock: Gives the time.
        staging: The folder in which the job's artifacts are built.
        data: Each site's records and the test set.
        agreement: The signed documents.
        goal: What the hospitals together ask of the model.
        parties: The hub and the sites with their logs.
        ledgers: Each site's budget ledger.
        attester: What the sites prove themselves with.
        witnesses: Who cosigns the logs' heads in the receipt.
    """

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
    attester: Attester
    witnesses: tuple[Witness, ...] = ()
