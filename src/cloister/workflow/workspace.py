"""The folder in which one machine keeps the parties it plays: keys, logs, budgets and finished jobs.

::

    <root>/parties/<role>/<name>/keys/      signing key, 0600
    <root>/parties/<role>/<name>/log.sqlite the party's evidence log
    <root>/parties/<role>/<name>/log.rule   whether that log may be opened where nobody elsewhere has seen it
    <root>/parties/<role>/<name>/held/      checkpoints of other parties' logs that the party holds
    <root>/parties/site/<name>/budget/      one ledger per dataset, outside every job's folder
    <root>/simulated-vendor/                the maker of the sites' simulated chips
    <root>/jobs/<job>/                      what a finished job leaves: model, receipt, trust, report
    <root>/immune/                          what cloister's own immune system learned, and its audit
    <root>/open/<job>                       a job whose parties haven't closed their chains yet
    <root>/logs/<job>.jsonl                 the machine's own log of the run

Rules kept here:

- One process at a time: a second one is refused, it doesn't wait and it doesn't share.
- A job's folder appears complete or not at all: it is built under a hidden name and renamed.
- Whoever opens it after a killed run first closes, as failed, the chains that run left open, or says which it
  can't close.
- A ledger that is gone, or lacks a spend, while the site's log shows spending on its dataset is refused.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO

from cloister.core.clock import Clock, system_clock
from cloister.core.errors import StorageError
from cloister.core.files import sync_directory
from cloister.core.keys import PublicKey, open_key_store
from cloister.core.settings import Settings
from cloister.enclave.attestation.simulator import SimulatedVendor
from cloister.evidence import EvidenceLog, Role, Trust
from cloister.privacy.ledger import BudgetLedger
from cloister.workflow.ledgers import MOCK_FOLDER, Ledgers, LedgerTerms
from cloister.workflow.open_jobs import OpenJobs
from cloister.workflow.party import LogPlaces, Party
from cloister.workflow.party_keys import current_key, rotate_key

_STAGING = ".unfinished-"


class Workspace:
    """An opened workspace; use :func:`open_workspace`."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.open_jobs = OpenJobs(root / "open")
        self._ledgers = Ledgers(settings.ledger_database)

    def party(self, role: str, name: str) -> Party:
        """Return a party, making its key on first use."""
        folder = self.root / "parties" / role / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = open_key_store(self.settings, folder / "keys", owner=f"{role}/{name}")
        current = current_key(role, store.names())
        signer = store.generate(role) if current is None else store.load(current)
        places = LogPlaces(
            self.settings.log_database,
            self.settings.held_checkpoints,
            neighbours=self.root / "parties",
            witnesses=self._pinned_witnesses,
            jobs=self.root / "jobs",
        )
        return Party(name=name, role=role, signer=signer, folder=folder, places=places)

    def rotate_key(self, party: Party) -> Party:
        """Let a party sign with a new key from now on; what it signed before stays its own.

        Raises:
            KeyStoreError: The store of its keys can't make one.
            StorageError: Its present public key can't be kept; then nothing was changed.
        """
        store = open_key_store(self.settings, party.folder / "keys", owner=f"{party.role}/{party.name}")
        signer = rotate_key(party.role, party.folder, party.signer.public_key, store)
        return replace(party, signer=signer)

    @cached_property
    def _pinned_witnesses(self) -> Mapping[str, PublicKey]:
        if self.settings.pinned_witnesses is None:
            return {}
        trust = Trust.load(self.settings.pinned_witnesses)
        return {name: trust.key(Role.WITNESS, name) for name in trust.parties(Role.WITNESS)}

    def simulated_vendor(self, clock: Clock) -> SimulatedVendor:
        """Return the workspace's own maker of simulated chips; its root says what it is."""
        folder = self.root / "simulated-vendor"
        folder.mkdir(exist_ok=True, mode=0o700)
        return SimulatedVendor.open(folder, clock)

    def ledger(
        self, site: Party, dataset: str, terms: LedgerTerms, *, log: EvidenceLog | None = None
    ) -> BudgetLedger:
        """Open a site's budget ledger for one dataset, creating it if the dataset is new to the site.

        Args:
            site: The site that owns the dataset.
            dataset: The name the hospital's manifest declares for the dataset.
            terms: What its manifest says about mode, unit and delta.
            log: The site's log where it is open already; else it is opened to be read.

        Raises:
            LedgerError: ``ledger.missing`` although the site's log shows spending on this dataset,
                ``ledger.rolled_back`` where it lacks what the log states, ``ledger.other_terms``, or it can't
                be trusted.
            EvidenceError: The site's log is an older copy, doesn't hold together, or holds what this version
                can't read.
        """
        with nullcontext(log) if log else site.open_log() as opened:
            return self._ledgers.open(site, dataset, terms, opened)

    def mock_ledger(self, site: Party, dataset: str, terms: LedgerTerms) -> BudgetLedger:
        """Make a ledger for a mock, which charges no budget; whoever opens the workspace next removes it."""
        return self._ledgers.mock(site, dataset, terms)

    def log_path(self, job_id: str) -> Path:
        """Return where the machine's own log of a run goes."""
        logs = self.root / "logs"
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        return logs / f"{job_id}.jsonl"

    @contextmanager
    def job_folder(self, name: str) -> Iterator[tuple[Path, Path]]:
        """Give a hidden folder to build in, and rename it to its final name if nothing went wrong.

        Args:
            name: The job's folder name.

        Yields:
            The folder to write to, and the name it will have.

        Raises:
            StorageError: A job of that name is already there.
        """
        jobs = self.root / "jobs"
        jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
        final, staging = jobs / name, jobs / f"{_STAGING}{name}"
        if final.exists():
            raise StorageError(
                "storage.exists",
                f"a finished job named {name} is already in {jobs}",
                "Give the job another job_id, or use another workspace.",
            )
        staging.mkdir(mode=0o700)
        try:
            yield staging, final
            sync_directory(staging)
            staging.rename(final)
            sync_directory(jobs)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def clear_unfinished(self) -> None:
        """Remove what a killed run left half-built; the lock says that nobody is building it."""
        for folder in (self.root / "jobs").glob(f"{_STAGING}*"):
            shutil.rmtree(folder, ignore_errors=True)
        for mock in self.root.glob(f"parties/site/*/{MOCK_FOLDER}"):
            shutil.rmtree(mock, ignore_errors=True)


def _to_stderr(line: str) -> None:
    print(f"cloister: {line}", file=sys.stderr)


@contextmanager
def open_workspace(
    root: Path,
    *,
    settings: Settings | None = None,
    clock: Clock = system_clock,
    report: Callable[[str], None] = _to_stderr,
) -> Iterator[Workspace]:
    """Open a workspace for one process.

    A killed run's chain that can't be closed, for one since its log is gone, or since nobody off this machine
    has seen it and its manifest wants that, is left as it is and reported: who opens the workspace after that
    is mended closes it. Everything that needs that log says so itself.

    Args:
        root: The folder; made if it isn't there.
        settings: The process's settings, which say where keys are kept; without them, in files.
        clock: The time at which chains are closed that a killed run left open.
        report: Called with a line for each killed run whose chains can't be closed.

    Raises:
        StorageError: It can't be made or written, or another process works in it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = (root / ".lock").open("w")
    except OSError as error:
        raise StorageError(
            "storage.permission",
            f"the workspace {root} can't be written: {os.strerror(error.errno or 0).lower()}",
            "Name a folder you may write to with --workspace.",
        ) from error
    with handle:
        _lock(handle, root)
        workspace = Workspace(root, settings or Settings.model_construct())
        workspace.clear_unfinished()
        for left in workspace.open_jobs.close_all(workspace.party, clock):
            report(left)
        yield workspace


def _lock(handle: IO[str], root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StorageError(
            "storage.in_use",
            f"another process works in the workspace {root}",
            "Wait for it to end, or name another folder with --workspace.",
        ) from error
