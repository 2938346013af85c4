"""What a log shows to the outside, also where nobody outside has seen it yet, and under a new key."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from cloister.core.errors import CloisterError, StorageError
from cloister.core.keys import PublicKey
from cloister.core.settings import load_settings
from cloister.evidence.checkpoint import parse_checkpoint, verify_checkpoint
from cloister.evidence.custody.access import AccessRecord
from cloister.evidence.errors import LogError
from cloister.workflow.audit import log_keepers
from cloister.workflow.workspace import open_workspace
from tests.cli.conftest import Cloister
from tests.system.example_job import FAST, ExampleJob

EVERYTHING = ("--from", "2020-01-01")
SITE = ("--party", "site/northgate")


@pytest.fixture
def work(lived_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a finished job, of which no manifest says anything about logs unseen outside."""
    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copytree(lived_in, tmp_path / "work"))
    for party in copy.glob("parties/*/*"):
        (party / "log.rule").unlink(missing_ok=True)
    return copy


def accesses(cloister: Cloister, work: Path) -> list[dict[str, object]]:
    """What the site's log states of who looked at it."""
    ended = cloister("audit", "log", "-w", work, *SITE, "--json")
    assert ended.code == 0, ended.err
    return cast("list[dict[str, object]]", ended.json()["accesses"])


def test_under_the_default_rule_a_log_can_be_shown_exported_and_given_to_a_witness(
    cloister: Cloister, work: Path, finished: Path
) -> None:
    with open_workspace(work) as opened, pytest.raises(LogError) as refused:
        log_keepers(opened)[0].open_log()
    assert refused.value.code == "evidence.log_unwitnessed"
    at = ("-w", work)
    assert cloister("log", "checkpoint", *at, *SITE).code == 0
    assert cloister("log", "tiles", *at, *SITE, "--out", "tiles").code == 0
    assert cloister("audit", "export", *at, *EVERYTHING, "--out", "export.json").code == 0
    assert cloister("audit", "log", *at).code == 0
    # What a witness saw is what opens the logs again for a job.
    assert cloister("witness", "init", "east", "--name", "east", "--trust", finished / "trust").code == 0
    Path("outside").mkdir()
    with open_workspace(work) as opened:
        parties = [(f"{one.role}/{one.name}", one) for one in log_keepers(opened)]
    for place, one in parties:
        assert cloister("log", "proof", *at, "--party", place, "--from", "0", "--out", "request").code == 0
        note = f"outside/{one.name}.note"
        assert cloister("witness", "cosign", "east", "request", "--out", note).code == 0
    Path("pinned/witness").mkdir(parents=True)
    shutil.copy("east/witness.pem", "pinned/witness/east.pem")
    Path("cloister.toml").write_text('held_checkpoints = "outside"\n')
    with open_workspace(work, settings=load_settings({})) as opened:
        for one in log_keepers(opened):
            with pytest.raises(CloisterError):
                one.open_log()
    Path("cloister.toml").write_text('held_checkpoints = "outside"\npinned_witnesses = "pinned"\n')
    with open_workspace(work, settings=load_settings({})) as opened:
        for one in log_keepers(opened):
            one.open_log().close()


def test_a_killed_runs_mark_that_cannot_be_taken_away_keeps_nobody_out(
    cloister: Cloister, work: Path
) -> None:
    job = "00000000-0000-4000-8000-000000000009"
    (work / "open").mkdir(exist_ok=True)
    (work / "open" / job).write_text("site northgate\n")
    ended = cloister("log", "checkpoint", "-w", work, *SITE, "--json")
    assert ended.code == 0
    assert ended.json()["origin"] == "cloister/site/northgate"
    assert job in ended.err
    assert "evidence.log_unwitnessed" in ended.err
    assert (work / "open" / job).is_file()


def test_a_party_with_a_new_key_keeps_its_log(cloister: Cloister, work: Path) -> None:
    at = ("-w", work)
    before = parse_checkpoint(cloister("log", "checkpoint", *at, *SITE).out)
    ended = cloister("log", "rotate-key", *at, *SITE, "--json")
    assert ended.code == 0
    told = ended.json()
    key = PublicKey.from_pem(str(told["public_key"]))
    assert told["key_id"] == key.key_id != told["former_key_id"]
    assert cloister("log", "tiles", *at, *SITE, "--out", "tiles").code == 0
    after = parse_checkpoint(cloister("log", "checkpoint", *at, *SITE).out)
    assert after.size > before.size
    verify_checkpoint(after, after.origin, key)
    again = cloister("log", "rotate-key", *at, *SITE)
    assert again.code == 0
    assert "BEGIN PUBLIC KEY" in again.out
    assert "former/site/northgate/" in again.out
    # The workspace itself knows what its parties signed with before; an outsider pins it.
    export = cloister("audit", "export", *at, *EVERYTHING, *SITE, "--out", "export.json")
    assert export.code == 0, export.out


def test_a_job_after_a_change_of_keys_has_a_receipt(cloister: Cloister, work: Path, tmp_path: Path) -> None:
    for party in ("hub/hub", "site/northgate"):
        assert cloister("log", "rotate-key", "-w", work, "--party", party).code == 0
    for rule in work.glob("parties/*/*"):
        (rule / "log.rule").write_text("allow")
    job = ExampleJob(job={**FAST, "privacy.target_epsilon": 0.5}).write(tmp_path / "again")
    ended = cloister("run", job, "-w", work, "--json")
    assert ended.code == 0, ended.err
    assert len(list((work / "jobs").iterdir())) == 2


def test_a_broken_log_is_recovered_up_to_the_checkpoint_that_somebody_holds(
    cloister: Cloister, work: Path
) -> None:
    at = ("-w", work)
    log = work / "parties" / "site" / "northgate" / "log.sqlite"
    assert cloister("log", "checkpoint", *at, *SITE, "--out", "held.note").code == 0
    held = parse_checkpoint(Path("held.note").read_text())
    assert cloister("log", "tiles", *at, *SITE, "--out", "tiles").code == 0
    with closing(sqlite3.connect(log)) as plain, plain:
        plain.execute("UPDATE evidence_nodes SET hash = zeroblob(32)")
        plain.execute("UPDATE evidence_entries SET stream = 'elsewhere' WHERE idx = 1")
    assert cloister("log", "checkpoint", *at, *SITE).code == 5
    for neighbour in work.glob("parties/*/*/held"):
        shutil.rmtree(neighbour)
    unknown = cloister("log", "recover", *at, *SITE)
    assert unknown.code != 0
    assert "--held" in unknown.err
    shown = cloister("log", "recover", *at, *SITE, "--held", "held.note", "--json")
    assert shown.code == 0, shown.err
    assert shown.json() == {"origin": held.origin, "held": held.size, "good": held.size, "to": None}
    asking = ("--actor", "Asha", "--role", "operator", "--purpose", "the disk broke")
    moved = cloister("log", "recover", *at, *SITE, "--held", "held.note", "--to", "new.sqlite", *asking)
    assert moved.code == 0, moved.err
    assert [one.name for one in Path().glob(".*unfinished*")] == []
    assert cloister("log", "recover", *at, *SITE, "--held", "held.note", "--to", "new.sqlite").code == 5
    # A person puts it in the old one's place.
    for old in log.parent.glob("log.sqlite*"):
        old.unlink()
    shutil.move("new.sqlite", log)
    after = parse_checkpoint(cloister("log", "checkpoint", *at, *SITE).out)
    assert after.size == held.size + 1
    (stated,) = [one for one in accesses(cloister, work) if one["index"] == held.size]
    assert stated["action"] == "export"
    assert stated["what"] == f"the first {held.size} entries, moved to this new log"
    assert "Asha" in str(stated["actor"])
    assert stated["purpose"] == "the disk broke"


def test_a_log_that_can_not_state_who_had_it_made_is_not_made(
    cloister: Cloister, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("-w", work)
    assert cloister("log", "checkpoint", *at, *SITE, "--out", "held.note").code == 0

    def full(*_: object) -> None:
        raise StorageError("storage.no_space", "The disk is full.")

    monkeypatch.setattr(AccessRecord, "state_access", full)
    ended = cloister("log", "recover", *at, *SITE, "--held", "held.note", "--to", "new.sqlite")
    assert ended.code == 5
    assert list(Path().glob("*new.sqlite*")) == []
    assert list(Path().glob(".*")) == []


def test_a_log_is_verified_as_a_whole_and_states_that_it_was(cloister: Cloister, work: Path) -> None:
    at = ("-w", work)
    before = parse_checkpoint(cloister("log", "checkpoint", *at, *SITE).out)
    ended = cloister("log", "verify", *at, *SITE, "--purpose", "monthly check", "--json")
    assert (ended.code, ended.json()["size"]) == (0, before.size + 1)
    (stated,) = [one for one in accesses(cloister, work) if one["action"] == "verify"]
    assert stated["purpose"] == "monthly check"
    log = work / "parties" / "site" / "northgate" / "log.sqlite"
    with closing(sqlite3.connect(log)) as plain, plain:
        plain.execute("UPDATE evidence_entries SET stream = 'elsewhere' WHERE idx = 1")
    refused = cloister("log", "verify", *at, *SITE)
    assert refused.code == 5
    assert "evidence.log_mismatch" in refused.err


def test_a_log_whose_entries_lead_to_no_held_checkpoint_is_not_recovered(
    cloister: Cloister, work: Path
) -> None:
    at = ("-w", work)
    assert cloister("log", "checkpoint", *at, "--party", "hub/hub", "--out", "hub.note").code == 0
    foreign = cloister("log", "recover", *at, *SITE, "--held", "hub.note")
    assert foreign.code != 0
    assert "evidence.checkpoint_unsigned" in foreign.err
    assert cloister("log", "checkpoint", *at, *SITE, "--out", "held.note").code == 0
    log = work / "parties" / "site" / "northgate" / "log.sqlite"
    with closing(sqlite3.connect(log)) as plain, plain:
        plain.execute("UPDATE evidence_entries SET envelope = x'00' WHERE idx = 0")
    for neighbour in work.glob("parties/*/*/held"):
        shutil.rmtree(neighbour)
    shown = cloister("log", "recover", *at, *SITE, "--held", "held.note", "--json")
    assert shown.json()["good"] == 0
    moved = cloister("log", "recover", *at, *SITE, "--held", "held.note", "--to", "new.sqlite")
    assert moved.code == 5
    assert not Path("new.sqlite").exists()


def test_nobody_who_keeps_no_log_gets_a_new_key(cloister: Cloister, work: Path) -> None:
    assert cloister("log", "rotate-key", "-w", work, "--party", "site/nobody").code != 0
    assert not (work / "parties" / "site" / "nobody").exists()
