"""Exports, reports and the record of access, as an auditor meets them at the command line."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import cast

import pytest

from cloister.core.clock import format_time, system_clock
from cloister.core.errors import StorageError
from cloister.core.files import StagedFile
from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceLog, StatementWriter, Subject, Trust
from cloister.evidence.custody import verify_bundle
from cloister.evidence.log.tiles_reader import verify_tiles
from cloister.evidence.predicates import Violation
from cloister.evidence.predicates.base import TYPE_PREFIX
from cloister.evidence.regulation import RegulationId, load_regulation
from cloister.evidence.statement import open_statement
from cloister.evidence.witness.continuation import parse_continuation
from cloister.workflow.audit import log_keepers
from cloister.workflow.workspace import open_workspace
from tests.cli.conftest import Cloister

REFUSED_JOB = "33333333-3333-4333-8333-333333333333"
EVERYTHING = ("--from", "2020-01-01")


@pytest.fixture
def work(lived_in: Path, tmp_path: Path) -> Path:
    """A copy of a workspace with a finished job: an audit writes into its logs."""
    return Path(shutil.copytree(lived_in, tmp_path / "work"))


@pytest.fixture
def trust(finished: Path) -> Trust:
    """What an outsider pinned of the parties."""
    return Trust.load(finished / "trust")


def job_of(finished: Path) -> str:
    """The finished job's id."""
    return cast(str, json.loads((finished / "receipt.json").read_text())["body"]["job_id"])


def statements(work: Path) -> dict[str, int]:
    """How many statements of each kind all logs of a workspace hold."""
    counts: dict[str, int] = {}
    with open_workspace(work) as opened:
        for party in log_keepers(opened):
            with party.open_log() as log:
                for envelope in log.envelopes():
                    kind = open_statement(envelope).predicate.TYPE.removeprefix(TYPE_PREFIX)
                    counts[kind] = counts.get(kind, 0) + 1
    return counts


def accesses(cloister: Cloister, work: Path, *words: str) -> list[dict[str, object]]:
    """The record of access."""
    ended = cloister("audit", "log", "-w", work, "--json", *words)
    assert ended.code == 0
    return cast("list[dict[str, object]]", ended.json()["accesses"])


# Exports


def test_a_finished_job_is_exported_and_verifies_for_an_outsider(
    cloister: Cloister, work: Path, finished: Path, trust: Trust, tmp_path: Path
) -> None:
    out = tmp_path / "export.json"
    ended = cloister("audit", "export", "-w", work, "--job", job_of(finished), "--out", out, "--json")
    assert ended.code == 0
    assert ended.json()["verifies"] is True
    assert ended.json()["sha256"] == sha256_hex(out.read_bytes())
    assert verify_bundle(out.read_bytes(), trust).accepted
    assert out.stat().st_mode & 0o077 == 0


def test_one_party_exports_its_own_log_alone(
    cloister: Cloister, work: Path, trust: Trust, tmp_path: Path
) -> None:
    out = tmp_path / "export.json"
    ended = cloister("audit", "export", "-w", work, *EVERYTHING, "--party", "site/lakeview", "--out", out)
    assert ended.code == 0
    assert "statements of 1 logs exported" in ended.out
    verdict = verify_bundle(out.read_bytes(), trust)
    assert verdict.accepted
    assert verdict.record is not None
    assert list(verdict.record.statements) == ["cloister/site/lakeview"]


def test_a_refused_job_exports_its_violation(
    cloister: Cloister, work: Path, trust: Trust, tmp_path: Path
) -> None:
    with open_workspace(work) as opened:
        party = opened.party("site", "lakeview")
        with party.open_log() as log:
            writer = StatementWriter(log, party.signer, party.name, REFUSED_JOB, system_clock)
            subject = Subject("job", sha256_hex(REFUSED_JOB.encode()))
            writer.write(
                Violation, [subject], rule="ledger.budget_exceeded", detail="no", artifact_sha256=None
            )
            writer.close("refused")
    out = tmp_path / "export.json"
    named = ("--job", REFUSED_JOB, "--party", "site/lakeview")
    assert cloister("audit", "export", "-w", work, *named, "--out", out).code == 0
    verdict = verify_bundle(out.read_bytes(), trust)
    assert verdict.accepted
    assert verdict.record is not None
    assert cast(Violation, verdict.record.selected[0].predicate).rule == "ledger.budget_exceeded"


def test_exports_name_the_one_before_and_a_missing_one_is_located(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for file in files:
        assert cloister("audit", "export", "-w", work, "--job", job_of(finished), "--out", file).code == 0
    pinned = ("--trust", finished / "trust")
    whole = cloister("audit", "chain", *files, *pinned, "--json")
    assert (whole.code, whole.json()["outcome"]) == (0, "passed")
    broken = cloister("audit", "chain", files[0], files[2], *pinned)
    assert broken.code == 1
    assert "one between is missing" in broken.out
    assert cloister("audit", "chain", *files).code == 2


def test_a_chain_of_one_or_of_forged_exports_is_none(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.json" for number in range(2)]
    for file in files:
        assert cloister("audit", "export", "-w", work, "--job", job_of(finished), "--out", file).code == 0
    pinned = ("--trust", finished / "trust", "--json")
    alone = cloister("audit", "chain", files[0], *pinned)
    assert (alone.code, alone.json()["outcome"]) == (1, "not_run")
    files[0].write_bytes(files[0].read_bytes().replace(b"unnamed recipient", b"another recipient"))
    forged = cloister("audit", "chain", *files, *pinned)
    assert (forged.code, forged.json()["outcome"]) == (1, "failed")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "name what to export"),
        (("--job", "7"), 2, "is a UUID"),
        (("--job", REFUSED_JOB), 2, "No log here holds a statement"),
        (("--job", REFUSED_JOB, "--from", "2020-01-01"), 2, "exclude each other"),
        (("--from", "yesterday"), 2, "is not a date or time"),
        (("--from", "0001-01-01T00:00:00+23:59"), 2, "is not a date or time"),
        (("--from", "2020-01-01", "--to", "9999-12-31T23:59:59-23:59"), 2, "is not a date or time"),
        (("--from", "2020-01-02", "--to", "2020-01-01"), 2, "ends before it begins"),
        (("--from", "2020-01-01", "--to", "2999-01-01"), 2, "hasn't ended"),
        (("--from", "2020-01-01", "--party", "lab/developer"), 2, "hub/<name> or site/<name>"),
        (("--from", "2020-01-01", "--party", "site/nowhere"), 2, "no log of site/nowhere"),
    ],
)
def test_what_can_not_be_exported_is_refused_and_writes_nothing(
    cloister: Cloister, work: Path, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    out = tmp_path / "export.json"
    before = statements(work)
    ended = cloister("audit", "export", "-w", work, *words, "--out", out)
    assert ended.code == code
    assert says in ended.err.replace("\n", " ")
    assert not out.exists()
    assert statements(work) == before


def test_no_workspace_is_made_by_asking_for_one(cloister: Cloister, tmp_path: Path) -> None:
    ended = cloister("audit", "export", "-w", tmp_path / "none", *EVERYTHING, "--out", tmp_path / "out.json")
    assert ended.code == 2
    assert "no workspace" in ended.err
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_there_is_not_replaced_and_nothing_is_stated(
    cloister: Cloister, work: Path, tmp_path: Path
) -> None:
    out = tmp_path / "export.json"
    out.write_text("mine")
    before = statements(work)
    assert cloister("audit", "export", "-w", work, *EVERYTHING, "--out", out).code == 5
    assert out.read_text() == "mine"
    assert statements(work) == before


def test_what_can_not_be_logged_is_not_handed_over(
    cloister: Cloister, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EvidenceLog, "append", full)
    ended = cloister("audit", "export", "-w", work, *EVERYTHING, "--out", tmp_path / "export.json")
    assert ended.code == 5
    assert not (tmp_path / "export.json").exists()


def test_what_can_not_be_written_is_not_stated(
    cloister: Cloister, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = statements(work)
    ended = cloister("audit", "export", "-w", work, *EVERYTHING, "--out", tmp_path / "none" / "export.json")
    assert ended.code == 5
    assert statements(work) == before

    def full(*_: object) -> None:
        raise StorageError("storage.no_space", "There is no space left.")

    monkeypatch.setattr(StagedFile, "write", full)
    for words in (
        ("export", "--out", tmp_path / "export.json"),
        ("report", "--regulation", "gdpr", "--out", tmp_path / "report"),
    ):
        assert cloister("audit", *words, "-w", work, *EVERYTHING).code == 5
    after = statements(work)
    assert after.get("export:v1", 0) == before.get("export:v1", 0)
    assert after["access:v1"] > before.get("access:v1", 0)
    left = [path for path in tmp_path.glob("**/*.json") if work / "immune" not in path.parents]
    assert left == list((work / "jobs").glob("**/*.json"))
    assert not (tmp_path / "report").exists()


def test_an_export_that_will_be_refused_ends_with_one(cloister: Cloister, work: Path, tmp_path: Path) -> None:
    with open_workspace(work) as opened:
        party = opened.party("site", "lakeview")
        with party.open_log() as log:
            writer = StatementWriter(log, party.signer, party.name, REFUSED_JOB, system_clock)
            subject = Subject("job", sha256_hex(REFUSED_JOB.encode()))
            writer.write(Violation, [subject], rule="x", detail="no", artifact_sha256=None)
    out = tmp_path / "export.json"
    named = ("--job", REFUSED_JOB, "--party", "site/lakeview")
    ended = cloister("audit", "export", "-w", work, *named, "--out", out)
    assert ended.code == 1
    assert "a verifier will refuse it: completeness" in ended.out
    assert out.exists()


def test_what_only_the_owner_bounds_is_exported_and_accepted_on_demand_and_labelled(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path
) -> None:
    since = ("--from", format_time(system_clock()), "--party", "site/lakeview", "-w", work)
    refused = cloister("audit", "export", *since, "--out", tmp_path / "a.json")
    assert refused.code == 1
    assert "a verifier will refuse it: period" in refused.out
    out = tmp_path / "b.json"
    accepted = cloister("audit", "export", *since, "--accept-owners-word", "--out", out)
    assert accepted.code == 0
    assert "on the owner's word alone" in accepted.out
    verify = ("verify", out, "--trust", finished / "trust")
    assert cloister(*verify).code == 1
    shown = cloister(*verify, "--accept-owners-word")
    assert shown.code == 0
    assert "OWNER'S WORD" in shown.out
    told = cloister(*verify, "--accept-owners-word", "--json").json()
    assert (told["accepted"], told["owners_word"]) == (True, True)
    report = ("--bundle", out, "--trust", finished / "trust", "--regulation", "gdpr")
    assert cloister("audit", "report", *report, "--out", tmp_path / "refused").code == 1
    ended = cloister("audit", "report", *report, "--accept-owners-word", "--out", tmp_path / "report")
    assert ended.code == 0
    assert "WORD." in (tmp_path / "report" / "report.html").read_text()


def test_a_witness_bounds_a_period_at_the_command_line(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path
) -> None:
    head, seen, folder = tmp_path / "head.request", tmp_path / "seen.note", tmp_path / "w"
    one = ("--party", "site/lakeview", "-w", work)
    assert cloister("witness", "init", folder, "--name", "w", "--trust", finished / "trust").code == 0
    assert cloister("log", "proof", *one, "--from", "0", "--out", head).code == 0
    assert cloister("witness", "cosign", folder, head, "--out", seen).code == 0
    trust = Path(shutil.copytree(finished / "trust", tmp_path / "trust"))
    (trust / "witness").mkdir()
    shutil.copy(folder / "witness.pem", trust / "witness" / "w.pem")
    time.sleep(1.1)
    since = ("--from", format_time(system_clock()), "--held", seen, "--trust", trust)
    out = tmp_path / "export.json"
    assert cloister("audit", "export", *one, *since, "--out", out).code == 0
    assert cloister("verify", out, "--trust", trust).code == 0
    assert cloister("verify", out, "--trust", finished / "trust").code == 1


# Access


def test_the_record_of_access_shows_who_exported_read_and_reported_and_why(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path
) -> None:
    who = ("--actor", "Dr Roy", "--role", "auditor", "--purpose", "yearly audit")
    one = ("--party", "hub/hub")
    export = ("--out", tmp_path / "e.json", "--recipient", "the board")
    assert cloister("audit", "export", "-w", work, *EVERYTHING, *one, *who, *export).code == 0
    report = ("--regulation", "gdpr", "--out", tmp_path / "report")
    assert cloister("audit", "report", "-w", work, *one, *who, *report).code == 0
    found = accesses(cloister, work, *one)
    kinds = [cast(str, row["type"]).removeprefix(TYPE_PREFIX) for row in found]
    assert kinds == ["access:v1", "export:v1", "access:v1", "export:v1", "access:v1"]
    assert [row.get("action") for row in found] == ["export", None, "report", None, "read"]
    assert cast(str, found[0]["actor"]).endswith(" as Dr Roy")
    assert (found[0]["role"], found[0]["purpose"]) == ("auditor", "yearly audit")
    assert found[1]["recipient"] == "the board"
    assert found[1]["bundle_sha256"] == sha256_hex((tmp_path / "e.json").read_bytes())
    assert found[3]["previous_export_sha256"] == found[1]["bundle_sha256"]


def test_the_record_of_access_is_shown_as_a_table(cloister: Cloister, work: Path) -> None:
    ended = cloister("audit", "log", "-w", work, "--purpose", "curiosity [red]")
    assert ended.code == 0
    assert ended.out.count("curiosity [red]") == 4


# Reports


@pytest.mark.parametrize("regulation", ["dpdp", "hipaa", "gdpr"])
def test_a_report_matches_the_log_and_comes_with_the_export_it_rests_on(
    cloister: Cloister, work: Path, trust: Trust, tmp_path: Path, regulation: str
) -> None:
    expected = statements(work)
    out = tmp_path / "report"
    ended = cloister("audit", "report", "-w", work, "--regulation", regulation, "--out", out)
    assert ended.code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["statements"] == expected
    assert report["simulated"] is True
    bundle = (out / "export.json").read_bytes()
    assert report["export"]["sha256"] == sha256_hex(bundle)
    verdict = verify_bundle(bundle, trust)
    assert verdict.accepted
    assert verdict.record is not None
    logged = {
        (one.origin, one.entry.index, one.entry.envelope.payload_sha256) for one in verdict.record.selected
    }
    for clause in report["clauses"]:
        for finding in (*clause["evidenced_by"], *clause["look_at"]):
            for cited in finding["statements"]:
                assert (cited["log"], cited["index"], cited["statement_sha256"]) in logged
    assert "SIMULATED" in (out / "report.html").read_text()


def test_an_outsider_reports_on_an_export_without_the_workspace(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "export.json"
    assert cloister("audit", "export", "-w", work, *EVERYTHING, "--out", bundle).code == 0
    words = ("--regulation", "hipaa", "--bundle", bundle, "--trust", finished / "trust")
    ended = cloister("audit", "report", *words, "--out", tmp_path / "report", "--json")
    assert ended.code == 0
    assert sum(cast("dict[str, int]", ended.json()["clauses"]).values()) == len(
        load_regulation(RegulationId.HIPAA).clauses
    )


def test_a_report_that_can_not_be_made_is_made_on_the_next_try(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, pinned = tmp_path / "report", shutil.copytree(finished / "trust", tmp_path / "pinned")
    (pinned / "site" / "lakeview.pem").unlink()
    of_job = ("audit", "report", "-w", work, "--regulation", "gdpr", "--job", job_of(finished), "--out", out)
    refused = cloister(*of_job, "--trust", pinned)
    assert (refused.code, "evidence.export_unverified" in refused.err) == (1, True)
    # The logs state that export, so it stays: without it the chain of exports would have a gap.
    (kept,) = out.iterdir()
    assert str(kept) in refused.err
    assert kept.name.startswith("export-without-report-")

    def full(*_: object, **__: object) -> None:
        raise StorageError("storage.no_space", "The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr("cloister.evidence.regulation.render.render_report", full)
        assert cloister(*of_job).code == 5
    assert len(list(out.iterdir())) == 2
    assert cloister(*of_job).code == 0
    assert {"export.json", "report.json", "report.html"} < {one.name for one in out.iterdir()}
    exports = sorted(out.glob("export*.json"), key=lambda one: one.stat().st_mtime_ns)
    assert cloister("audit", "chain", *exports, "--trust", finished / "trust").code == 0


def test_an_export_that_does_not_verify_is_not_reported_on(
    cloister: Cloister, work: Path, finished: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "export.json"
    assert cloister("audit", "export", "-w", work, *EVERYTHING, "--out", bundle).code == 0
    bundle.write_bytes(bundle.read_bytes().replace(b"unnamed recipient", b"another recipient"))
    words = ("--regulation", "hipaa", "--bundle", bundle, "--trust", finished / "trust")
    ended = cloister("audit", "report", *words, "--out", tmp_path / "report")
    assert ended.code == 1
    assert "export-signature" in ended.err
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    "words", [("--bundle", "x.json"), ("--trust", "nowhere"), ("--job", REFUSED_JOB, "--from", "2020-01-01")]
)
def test_options_that_contradict_each_other_are_refused(
    cloister: Cloister, work: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    ended = cloister("audit", "report", "-w", work, "--regulation", "gdpr", *words, "--out", tmp_path / "r")
    assert ended.code == 2


# Logs


def test_a_logs_head_its_growth_and_its_tiles_are_shown(
    cloister: Cloister, work: Path, tmp_path: Path
) -> None:
    one = ("-w", work, "--party", "site/lakeview")
    head = cloister("log", "checkpoint", *one, "--json").json()
    proof = cloister("log", "proof", *one, "--from", "3")
    request = parse_continuation(proof.out)
    assert (request.old_size, request.checkpoint.size) == (3, head["size"])
    assert request.checkpoint.encode() == head["note"]
    ended = cloister("log", "tiles", *one, "--out", tmp_path / "tiles", "--purpose", "a mirror")
    assert ended.code == 0
    with open_workspace(work) as opened:
        key = opened.party("site", "lakeview").signer.public_key
    tiles = verify_tiles(tmp_path / "tiles", (key,))
    assert tiles.checkpoint.size == cast(int, head["size"]) + 1
    (stated,) = [
        row for row in accesses(cloister, work, "--party", "site/lakeview") if row["action"] == "export"
    ]
    assert (stated["what"], stated["purpose"]) == ("the whole log, as static tiles", "a mirror")


def test_a_checkpoint_can_be_written_to_a_file(cloister: Cloister, work: Path, tmp_path: Path) -> None:
    ended = cloister("log", "checkpoint", "-w", work, "--party", "hub/hub", "--out", tmp_path / "hub.note")
    assert ended.code == 0
    assert (tmp_path / "hub.note").read_text().startswith("cloister/hub/hub\n")


def test_a_proof_from_a_size_the_log_never_had_is_refused(cloister: Cloister, work: Path) -> None:
    ended = cloister("log", "proof", "-w", work, "--party", "hub/hub", "--from", "100000")
    assert ended.code == 1
    assert "evidence.out_of_range" in ended.err
