"""A workspace keeps what it was given, lets one process in, and shows a job whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.errors import KeyStoreError, StorageError
from cloister.core.hashes import Sha256, sha256_hex
from cloister.evidence import EvidenceError, EvidenceLog, StatementWriter, Subject
from cloister.evidence.predicates import BudgetSpend, DataCommitment, Violation
from cloister.evidence.transcript import SampledGaussian, event_to_json
from cloister.health import FederatedData, load_source, prepare_source
from cloister.policy import UnwitnessedLog
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded, LedgerError
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.workflow.ledgers import LedgerTerms
from cloister.workflow.party import Party
from cloister.workflow.workspace import Workspace, open_workspace

JOB = "11111111-1111-4111-8111-111111111111"
EARLIER_JOB = "00000000-0000-4000-8000-000000000000"
OTHER_JOB = "22222222-2222-4222-8222-222222222222"
DATASET, OTHER_DATASET = "wards", "clinics"
TERMS = LedgerTerms(delta=1e-4)
RECORDS = sha256_hex(b"records")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    with open_workspace(tmp_path / "work") as opened:
        return opened


# One process at a time


def test_a_second_opener_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with open_workspace(tmp_path) as opened:
        with pytest.raises(StorageError) as refused, open_workspace(tmp_path):
            pass
        assert refused.value.code == "storage.in_use"
        assert opened.party("hub", "hub").signer
    with open_workspace(tmp_path):
        pass


def test_another_process_is_refused_too(tmp_path: Path) -> None:
    with open_workspace(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                with open_workspace(tmp_path):
                    os._exit(1)
            except StorageError as error:
                os._exit(0 if error.code == "storage.in_use" else 2)
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError), open_workspace(tmp_path / "file" / "work"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


# Jobs


def test_a_job_folder_appears_whole_under_its_final_name(workspace: Workspace) -> None:
    with workspace.job_folder("tumour-1") as (staging, final):
        (staging / "model").write_text("weights")
        assert not final.exists()
    assert (final / "model").read_text() == "weights"
    assert not staging.exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_job_folder_that_was_not_finished_is_gone(workspace: Workspace, error: type[BaseException]) -> None:
    def build() -> None:
        with workspace.job_folder("tumour-1") as (staging, _):
            (staging / "model").write_text("half")
            raise error

    with pytest.raises(error):
        build()
    assert list((workspace.root / "jobs").iterdir()) == []


def test_a_finished_job_is_not_replaced(workspace: Workspace) -> None:
    with workspace.job_folder("tumour-1") as (staging, final):
        (staging / "model").write_text("first")
    with pytest.raises(StorageError) as refused, workspace.job_folder("tumour-1"):
        pass
    assert refused.value.code == "storage.exists"
    assert (final / "model").read_text() == "first"


def test_what_a_killed_process_left_is_cleared_when_the_next_one_opens(workspace: Workspace) -> None:
    left = workspace.root / "jobs" / ".unfinished-tumour-1"
    left.mkdir(parents=True)
    (left / "model").write_text("half")
    with open_workspace(workspace.root):
        assert not left.exists()


def test_what_is_the_owners_is_closed_to_others(workspace: Workspace, clock: Clock) -> None:
    site = workspace.party("site", "north")
    site.open_log().close()
    workspace.ledger(site, DATASET, TERMS).close()
    workspace.simulated_vendor(clock)
    for path in workspace.root.rglob("*"):
        if path.name not in {"jobs", "parties"} and path.is_file() and path.name != ".lock":
            assert path.stat().st_mode & 0o077 == 0, path
    assert workspace.root.stat().st_mode & 0o077 == 0


# Parties


def test_a_party_keeps_its_key_over_processes(workspace: Workspace) -> None:
    first = workspace.party("site", "north").signer.public_key.key_id
    with open_workspace(workspace.root) as again:
        assert again.party("site", "north").signer.public_key.key_id == first


def test_no_two_parties_and_no_two_roles_share_a_key(workspace: Workspace) -> None:
    keys = {
        workspace.party(role, name).signer.public_key.key_id
        for role, name in (("site", "north"), ("site", "south"), ("hospital", "north"), ("hub", "hub"))
    }
    assert len(keys) == 4


def test_a_key_that_others_can_read_is_refused(workspace: Workspace) -> None:
    party = workspace.party("site", "north")
    (party.folder / "keys" / "site.pem").chmod(0o640)
    with pytest.raises(KeyStoreError) as refused:
        workspace.party("site", "north")
    assert refused.value.code == "key.permissions"


def test_the_simulated_vendor_is_the_same_over_processes(workspace: Workspace, clock: Clock) -> None:
    root = workspace.simulated_vendor(clock).root_der
    with open_workspace(workspace.root) as again:
        assert again.simulated_vendor(clock).root_der == root


# Logs


def test_a_log_is_begun_once_and_continued_ever_after(workspace: Workspace, clock: Clock) -> None:
    site = workspace.party("site", "north")
    spend(workspace, site, clock)
    log = site.open_log()
    assert log.size == 2
    log.close()


def test_a_log_that_was_used_and_is_gone_is_not_begun_anew(workspace: Workspace, clock: Clock) -> None:
    site = workspace.party("site", "north")
    spend(workspace, site, clock)
    (site.folder / "log.sqlite").unlink()
    with pytest.raises(EvidenceError) as refused:
        site.open_log()
    assert refused.value.code == "evidence.log_missing"


def test_a_log_whose_beginning_was_cut_off_is_begun_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = workspace.party("site", "north")
    create = EvidenceLog.create

    def cut_off(*arguments: object, **named: object) -> EvidenceLog:
        create(*arguments, **named)  # type: ignore[arg-type]
        raise StorageError("storage.no_space", "There is no space left.")

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceLog, "create", cut_off)
        with pytest.raises(StorageError):
            site.open_log()
    assert {path.name for path in site.folder.iterdir()} == {"keys"}
    log = site.open_log()
    assert log.size == 0
    log.close()


def test_a_log_that_was_made_but_not_marked_is_marked_when_it_is_next_opened(workspace: Workspace) -> None:
    site = workspace.party("site", "north")
    site.open_log().close()
    (site.folder / "log.begun").unlink()
    site.open_log().close()
    (site.folder / "log.sqlite").unlink()
    with pytest.raises(EvidenceError):
        site.open_log()


# Ledgers


def spend(workspace: Workspace, site: Party, clock: Clock, job: str = JOB) -> None:
    """Let a site spend budget on its dataset, and state it as it does in a job."""
    site.agree_on_log(UnwitnessedLog.ALLOW)
    event = SampledGaussian(0.5, 8.0, 1)
    with site.open_log() as log, workspace.ledger(site, DATASET, TERMS, log=log) as ledger:
        reservation = ledger.reserve(
            event, dataset_sha256=RECORDS, job_id=job, round_number=0, purpose=Purpose.TRAINING, limits=[]
        )
        ledger.settle(reservation, 1)
        writer = StatementWriter(log, site.signer, site.name, job, clock)
        writer.write(
            DataCommitment,
            (Subject("dataset/north", RECORDS),),
            dataset_name=DATASET,
            dataset_sha256=RECORDS,
            records=100,
            subject_count=None,
            features=4,
            single_class=None,
            normalisation="declared-public-bounds",
            bounds_sha256=RECORDS,
        )
        writer.write(
            BudgetSpend,
            (Subject("dataset/north", RECORDS),),
            round=0,
            purpose="training",
            event=event_to_json(event),
            delta=1e-4,
            unit="record",
            relation="add_or_remove_one",
            mode="adaptive",
            plan_steps=None,
            reserved_steps=1,
            executed_steps=1,
            dataset_sha256=RECORDS,
            noise_generator="aes-256-ctr/os-entropy",
            ledger_head=ledger.head,
            prior_events=[],
        )


def taking_part(workspace: Workspace, clock: Clock) -> Party:
    """A site that has stated something: no site has a ledger before."""
    site = workspace.party("site", "north")
    site.agree_on_log(UnwitnessedLog.ALLOW)
    with site.open_log() as log:
        writer = StatementWriter(log, site.signer, site.name, EARLIER_JOB, clock)
        writer.write(Violation, [Subject("x", RECORDS)], rule="r", detail="d", artifact_sha256=None)
    return site


def ledger_file(site: Party) -> Path:
    return site.folder / "budget" / f"{DATASET}.sqlite"


def test_a_ledger_lies_beside_the_site_and_outlives_every_job(workspace: Workspace, clock: Clock) -> None:
    site = taking_part(workspace, clock)
    workspace.ledger(site, DATASET, TERMS).close()
    path = workspace.root / "parties" / "site" / "north" / "budget" / f"{DATASET}.sqlite"
    assert path.is_file()
    with workspace.ledger(site, DATASET, TERMS) as again:
        assert again.dataset == DATASET


def test_a_dataset_that_was_never_spent_on_gets_a_new_ledger(workspace: Workspace, clock: Clock) -> None:
    site = workspace.party("site", "north")
    spend(workspace, site, clock)
    with workspace.ledger(site, OTHER_DATASET, TERMS) as ledger:
        assert ledger.epsilon() == 0.0


def test_a_ledger_that_holds_all_that_was_stated_is_opened(workspace: Workspace, clock: Clock) -> None:
    site = workspace.party("site", "north")
    for job in (JOB, OTHER_JOB):
        spend(workspace, site, clock, job)
    with workspace.ledger(site, DATASET, TERMS) as ledger:
        assert ledger.events() == (SampledGaussian(0.5, 8.0, 2),)


def test_a_ledger_that_is_gone_after_spending_is_not_made_anew(workspace: Workspace, clock: Clock) -> None:
    site = workspace.party("site", "north")
    spend(workspace, site, clock)
    ledger_file(site).unlink()
    with pytest.raises(LedgerError) as refused:
        workspace.ledger(site, DATASET, TERMS)
    assert refused.value.code == "ledger.missing"
    assert list((site.folder).glob("budget/*.sqlite*")) == []


def test_an_older_copy_of_a_ledger_is_refused(workspace: Workspace, clock: Clock) -> None:
    site = workspace.party("site", "north")
    spend(workspace, site, clock)
    earlier = ledger_file(site).read_bytes()
    spend(workspace, site, clock, OTHER_JOB)
    ledger_file(site).write_bytes(earlier)
    with pytest.raises(LedgerError) as refused:
        workspace.ledger(site, DATASET, TERMS)
    assert refused.value.code == "ledger.rolled_back"
    assert "lacks 1 spend" in refused.value.message


def test_an_empty_ledger_in_the_place_of_one_that_was_spent_from_is_refused(
    workspace: Workspace, clock: Clock
) -> None:
    site = workspace.party("site", "north")
    spend(workspace, site, clock)
    ledger_file(site).unlink()
    BudgetLedger.create(ledger_file(site), DATASET, 1e-4).close()
    with pytest.raises(LedgerError) as refused:
        workspace.ledger(site, DATASET, TERMS)
    assert refused.value.code == "ledger.rolled_back"


def test_a_ledger_that_went_another_way_since_a_stated_spend_is_refused(
    workspace: Workspace, clock: Clock
) -> None:
    site = workspace.party("site", "north")
    spend(workspace, site, clock)
    earlier = ledger_file(site).read_bytes()
    spend(workspace, site, clock, OTHER_JOB)
    ledger_file(site).write_bytes(earlier)
    with BudgetLedger.open(ledger_file(site), DATASET) as ledger:
        ledger.reserve(
            SampledGaussian(0.5, 8.0, 1),
            dataset_sha256=RECORDS,
            job_id=OTHER_JOB,
            round_number=0,
            purpose=Purpose.TRAINING,
            limits=[],
        )
    with pytest.raises(LedgerError) as refused:
        workspace.ledger(site, DATASET, TERMS)
    assert refused.value.code == "ledger.rolled_back"


# The same patients under another hash

TABLE = ["50,no", "61,yes", "47,no", "72,yes"]
DECLARATION = f"""\
document: cloister.table/v1
sites: [north]
test_set: holdout
citation: invented
table:
  name: {DATASET}
  basis: invented
  columns: [{{name: age, lower: 0.0, upper: 120.0}}]
  label: {{name: ill, classes: ["no", "yes"]}}
"""
VARIANTS = {
    "another order": TABLE[::-1],
    "one row more": [*TABLE, "55,no"],
    "one row less": TABLE[1:],
    "a cell nudged": ["50.0001,no", *TABLE[1:]],
}


def load_table(folder: Path, rows: list[str]) -> FederatedData:
    folder.mkdir(exist_ok=True)
    (folder / "schema.yaml").write_text(DECLARATION)
    for name, lines in (("north", rows), ("test", TABLE)):
        (folder / f"{name}.csv").write_text("\n".join(["age,ill", *lines]) + "\n")
    prepare_source("csv", data_dir=folder)
    return load_source("csv", data_dir=folder)


def spend_on(workspace: Workspace, data: FederatedData, job: str, clock: Clock) -> None:
    site = taking_part(workspace, clock)
    with workspace.ledger(site, data.schema.name, TERMS) as ledger:
        ledger.reserve(
            SampledGaussian(0.2, 2.864, 40),
            dataset_sha256=Sha256(data.sites["north"].dataset_sha256),
            job_id=job,
            round_number=0,
            purpose=Purpose.TRAINING,
            limits=[Limit("manifest budget", 2.0, Scope.DATASET)],
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_table_that_was_changed_to_get_another_hash_charges_the_same_budget(
    workspace: Workspace, tmp_path: Path, clock: Clock, variant: str
) -> None:
    first = load_table(tmp_path / "tables", TABLE)
    spend_on(workspace, first, JOB, clock)
    changed = load_table(tmp_path / "tables", VARIANTS[variant])
    assert changed.sites["north"].dataset_sha256 != first.sites["north"].dataset_sha256
    with pytest.raises(BudgetExceeded):
        spend_on(workspace, changed, OTHER_JOB, clock)


def test_a_new_salt_gives_another_hash_and_no_new_budget(
    workspace: Workspace, tmp_path: Path, clock: Clock
) -> None:
    first = load_table(tmp_path / "tables", TABLE)
    spend_on(workspace, first, JOB, clock)
    (tmp_path / "tables" / "north.salt").unlink()
    salted_anew = load_table(tmp_path / "tables", TABLE)
    assert salted_anew.sites["north"].dataset_sha256 != first.sites["north"].dataset_sha256
    with pytest.raises(BudgetExceeded):
        spend_on(workspace, salted_anew, OTHER_JOB, clock)
