"""The budget ledgers of the sites on one machine, opened only if they are the newest copies of themselves.

An older copy of a ledger is sound in itself, and so is an older copy of the log that states its heads. Rules
kept here:

1. Every head of a ledger that the site's log states is an entry of the ledger; a ledger that lacks one, or is
   gone, is refused.
2. A log is held against the checkpoints of it that others hold before its word on the ledger counts: a ledger
   and a log that were set back together are refused by whoever saw the log later.
3. A spend is stated before anything made with it leaves the site: by the rounds of a job, and by releases,
   tunings and perturbed models that are paid from :func:`cloister.federation.site_account.site_account`. So
   what a set-back ledger could hide is at most a spend of which nothing left.
4. A ledger that was made is never made anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from cloister.core.files import write_atomic, write_new
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence import Envelope, EvidenceLog, open_statement
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.predicates import MOCK, BudgetSpend, DataCommitment
from cloister.evidence.transcript import Mode, Unit
from cloister.evidence.witness.rollback import require_newest
from cloister.policy import ProtocolManifest, decode_manifest
from cloister.privacy.budget import Limit, Scope, subject_limit
from cloister.privacy.errors import LedgerError
from cloister.privacy.ledger import BudgetLedger
from cloister.workflow.party import Party

MOCK_FOLDER: Final = "mock"


@dataclass(frozen=True)
class LedgerTerms:
    """What a manifest says about a dataset's ledger.

    Attributes:
        mode: How spends are composed.
        unit: What is protected.
        delta: The largest delta that epsilon may be stated at.
    """

    mode: Mode = "adaptive"
    unit: Unit = "record"
    delta: float = 1e-5


def terms_of(manifest: ProtocolManifest) -> LedgerTerms:
    """Return what a manifest says about its dataset's ledger."""
    guardrails = manifest.privacy_guardrails
    return LedgerTerms(guardrails.accounting, guardrails.unit, guardrails.delta_budget)


def limits_of(manifest: ProtocolManifest) -> tuple[Limit, ...]:
    """Return the ceilings that a manifest sets on its dataset's epsilon; the ledger adds its hard stop."""
    guardrails = manifest.privacy_guardrails
    return (
        subject_limit(
            guardrails.epsilon_per_subject, guardrails.subject_sites, guardrails.cross_site_subjects
        ),
        Limit("manifest budget", guardrails.epsilon_budget, Scope.DATASET),
        Limit("manifest hard stop", guardrails.epsilon_hard_stop, Scope.DATASET),
    )


@dataclass(frozen=True)
class Ledgers:
    """Where the ledgers of a machine's sites are kept.

    Attributes:
        database: URL of the PostgreSQL database that holds them; None keeps each in a file of its site.
    """

    database: str | None = None

    def open(self, site: Party, dataset: str, terms: LedgerTerms, log: EvidenceLog) -> BudgetLedger:
        """Open a site's ledger for a dataset, making it with the dataset's first use.

        Args:
            site: Who holds the dataset.
            dataset: Its declared name.
            terms: What the site's manifest says.
            log: The site's log.

        Raises:
            LedgerError: It is gone, set back, made under other terms, or can't be trusted.
            EvidenceError: The log is an older copy, or doesn't hold together.
        """
        folder = site.folder / "budget"
        path, begun = folder / f"{dataset}.sqlite", folder / f"{dataset}.begun"
        held = site.held_checkpoints()
        require_newest(log.checkpoint(), log.consistency_proof, held, *log.keys)
        if begun.exists() or path.exists() or _stated_heads(log, dataset):
            if self.database is None and not path.exists():
                raise LedgerError(
                    "ledger.missing",
                    f"the budget ledger of {site.name} is gone, but it was used for {dataset} before",
                    "Restore it from a backup; starting at zero would overspend the patients' budget.",
                )
            ledger = self._open_newest(path, site, dataset, terms, log, held)
        else:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                ledger = _make(self.database or path, dataset, terms, site.name)
            except LedgerError as error:
                if self.database is None or error.code != "ledger.exists":
                    raise
                # An interrupted first use made it; or this site's folder was lost, and it holds spends.
                ledger = self._open_newest(path, site, dataset, terms, log, held)
        if not begun.exists():
            write_new(begun, b"")
        return ledger

    def _open_newest(
        self,
        path: Path,
        site: Party,
        dataset: str,
        terms: LedgerTerms,
        log: EvidenceLog,
        held: Collection[Checkpoint],
    ) -> BudgetLedger:
        """Open a ledger that is there, if its terms are these and it holds every spend that was stated."""
        ledger = BudgetLedger.open(self.database or path, dataset, holder=site.name)
        try:
            ledger.require_terms(mode=terms.mode, unit=terms.unit, delta=terms.delta)
            require_current(ledger, log, held)
        except BaseException:
            ledger.close()
            raise
        return ledger

    def mock(self, site: Party, dataset: str, terms: LedgerTerms) -> BudgetLedger:
        """Make a ledger that no budget is charged in."""
        folder = site.folder / MOCK_FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _make(folder / f"{uuid4().hex}.sqlite", dataset, terms, site.name)


def keep_manifest(site: Party, dataset: str, manifest: Envelope) -> None:
    """Keep the manifest that a dataset's budget is held to now, for whoever looks at the budget.

    Args:
        site: Who holds the dataset.
        dataset: Its declared name.
        manifest: The signed manifest; its hash is in the site's log.
    """
    write_atomic(_kept(site, dataset), manifest.payload)


def kept_manifest(site: Party, dataset: str, sha256: str) -> ProtocolManifest | None:
    """Return the manifest with this hash, if it is the one that was kept last."""
    path = _kept(site, dataset)
    payload = path.read_bytes() if path.is_file() else b""
    return decode_manifest(payload) if sha256_hex(payload) == sha256 else None


def _kept(site: Party, dataset: str) -> Path:
    return site.folder / "budget" / f"{dataset}.manifest"


def require_current(ledger: BudgetLedger, log: EvidenceLog, held: Iterable[Checkpoint]) -> None:
    """Refuse a ledger that lacks a spend which its site stated, whether or not its log was set back too.

    Args:
        ledger: The dataset's ledger.
        log: The log of the site that holds the dataset.
        held: Checkpoints of that log which others hold.

    Raises:
        LedgerError: ``ledger.rolled_back``.
        LogError: ``evidence.log_rolled_back`` if the log was set back.
    """
    require_newest(log.checkpoint(), log.consistency_proof, held, *log.keys)
    gone = ledger.unknown(_stated_heads(log, ledger.dataset))
    if gone:
        raise LedgerError(
            "ledger.rolled_back",
            f"the budget ledger of {ledger.dataset} lacks {len(gone)} spend(s) that {log.origin} states",
            "Restore the newest copy of the ledger; an older one would overspend the patients' budget.",
        )


def _make(place: Path | str, dataset: str, terms: LedgerTerms, holder: str) -> BudgetLedger:
    return BudgetLedger.create(place, dataset, terms.delta, mode=terms.mode, unit=terms.unit, holder=holder)


def _stated_heads(log: EvidenceLog, dataset: str) -> tuple[Sha256, ...]:
    """Every head of a dataset's ledger that the site's own log states, oldest first.

    A spend doesn't name its dataset; the job's data commitment, which the site wrote before it, does. A
    mock's spends were charged to no budget.
    """
    names: dict[str, str] = {}
    heads: list[Sha256] = []
    for envelope in log.envelopes():
        predicate = open_statement(envelope).predicate
        if isinstance(predicate, DataCommitment):
            names[predicate.job_id] = predicate.dataset_name
        elif not isinstance(predicate, BudgetSpend) or predicate.noise_generator == MOCK:
            continue
        elif names.get(predicate.job_id) == dataset:
            heads.append(Sha256(predicate.ledger_head))
    return tuple(heads)
