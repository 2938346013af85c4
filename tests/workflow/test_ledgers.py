"""A site's ledgers are held against the agreement and against what the site stated, releases included."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.errors import StorageError
from cloister.core.hashes import sha256_hex
from cloister.evidence import StatementWriter, Subject, open_statement
from cloister.evidence.predicates import BudgetSpend, DataCommitment
from cloister.evidence.transcript import Gaussian, event_from_json
from cloister.federation.site_account import site_account
from cloister.privacy.account import Account
from cloister.privacy.errors import LedgerError
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.privacy.noise import GaussianIntegers
from cloister.privacy.randomness import OsRandom
from cloister.privacy.release import release_count
from cloister.workflow.ledgers import Ledgers, LedgerTerms
from cloister.workflow.workspace import Workspace, open_workspace

JOB = "6f2a7c1e-90d4-4c56-8a41-0d2b7e4f9c11"
RECORDS = sha256_hex(b"records")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "work") as opened:
        yield opened


def test_a_ledger_whose_sites_folder_was_lost_is_not_opened_under_other_terms(
    workspace: Workspace, postgresql: str
) -> None:
    site = workspace.party("site", "lost-and-found")
    with BudgetLedger.create(postgresql, "visits", 1e-5, unit="record", holder=site.name) as before:
        before.reserve(
            Gaussian(20.0, 1),
            dataset_sha256=sha256_hex(b"records"),
            job_id="earlier",
            round_number=0,
            purpose=Purpose.TRAINING,
            limits=(),
        )
    with site.open_log_to_show() as log:
        with pytest.raises(LedgerError) as refused:
            Ledgers(postgresql).open(site, "visits", LedgerTerms(unit="subject"), log)
        assert refused.value.code == "ledger.other_terms"
        assert not (site.folder / "budget" / "visits.begun").exists()
        with Ledgers(postgresql).open(site, "visits", LedgerTerms(), log) as found:
            assert found.events() == (Gaussian(20.0, 1),)


def paying(ledger: BudgetLedger, writer: StatementWriter) -> Account:
    return site_account(
        ledger,
        writer,
        site="north",
        dataset_sha256=RECORDS,
        job_id=JOB,
        round_number=0,
        limits=(),
    )


def test_a_ledger_set_back_to_before_a_release_is_refused(
    workspace: Workspace, clock: Clock, tmp_path: Path
) -> None:
    site = workspace.party("site", "north")
    noise = GaussianIntegers(OsRandom("north", JOB, "release"))
    with site.open_log() as log:
        writer = StatementWriter(log, site.signer, site.name, JOB, clock)
        commit(writer)
        with Ledgers().open(site, "visits", LedgerTerms(), log) as ledger:
            path = site.folder / "budget" / "visits.sqlite"
            shutil.copy(path, tmp_path / "before")
            released = release_count(
                40, unit="record", noise_multiplier=20.0, noise=noise, account=paying(ledger, writer)
            )
            head = ledger.head
        stated = [open_statement(one).predicate for one in log.envelopes()]
        (spend,) = [one for one in stated if isinstance(one, BudgetSpend)]
        assert (spend.purpose, spend.ledger_head) == ("evaluation", head)
        assert event_from_json(spend.event) == released.event
        shutil.copy(tmp_path / "before", path)
        with pytest.raises(LedgerError) as refused:
            Ledgers().open(site, "visits", LedgerTerms(), log)
        assert refused.value.code == "ledger.rolled_back"


def test_what_could_not_be_stated_is_spent_and_not_handed_out(
    workspace: Workspace, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = workspace.party("site", "north")
    noise = GaussianIntegers(OsRandom("north", JOB, "release"))

    def full(*_: object, **__: object) -> None:
        raise StorageError("storage.no_space", "the disk is full")

    with site.open_log() as log:
        writer = StatementWriter(log, site.signer, site.name, JOB, clock)
        commit(writer)
        with Ledgers().open(site, "visits", LedgerTerms(), log) as ledger:
            monkeypatch.setattr(writer, "write", full)
            with pytest.raises(StorageError):
                release_count(
                    40, unit="record", noise_multiplier=20.0, noise=noise, account=paying(ledger, writer)
                )
            assert ledger.events() == (Gaussian(20.0, 1),)


def commit(writer: StatementWriter) -> None:
    writer.write(
        DataCommitment,
        [Subject("dataset/north", RECORDS)],
        dataset_name="visits",
        dataset_sha256=RECORDS,
        records=40,
        subject_count=None,
        features=3,
        single_class=None,
        normalisation="declared-public-bounds",
        bounds_sha256=sha256_hex(b"bounds"),
    )
