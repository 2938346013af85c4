"""Every command that reads records, spends a budget or opens a data key has cloister's immune system on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from cloister.enclave import encode_model
from cloister.immune import present
from cloister.immune.audit_event import AuditKind
from cloister.immune.protection import Protection
from cloister.privacy.models import build_model, state_arrays
from cloister.workflow import privacy_audit
from tests.cli.conftest import Cloister
from tests.cli.test_own_tables import write_tables
from tests.system.example_job import TUMOUR, ExampleJob

LOAD = "cloister.health.sources.breast_cancer:load"
READ = "cloister.health.sentry:read_table"
UNWRAP = "cloister.core.keys.wrapping:FileWrappingKey.unwrap"
SETTLE = "cloister.privacy.ledger:BudgetLedger.settle"
QUERY = "cloister.enclave.inference.line:Line.query"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are typed, without a workspace."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, int]]]:
    """How often each watched function was called, for each time that the immune system was on."""
    found: list[dict[str, int]] = []
    close = Protection.close

    def closing(self: Protection) -> None:
        if present() is self:
            functions = cast("dict[str, dict[str, int]]", self.status()["functions"])
            found.append({name: one["calls"] for name, one in functions.items() if one["calls"]})
        close(self)

    monkeypatch.setattr(Protection, "close", closing)
    yield found
    assert present() is None


@pytest.mark.parametrize("command", ["data", "compare"])
def test_what_reads_a_jobs_records_is_watched_and_makes_no_workspace(
    cloister: Cloister, calls: list[dict[str, int]], command: str
) -> None:
    ended = cloister(command, TUMOUR, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [one[LOAD] for one in calls] == [1]
    assert list(Path().iterdir()) == []


def test_an_audit_of_privacy_is_watched(
    cloister: Cloister, calls: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_now(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(privacy_audit, "_audit", not_now)
    assert cloister("privacy", "audit", TUMOUR).code == 130
    assert [one[LOAD] for one in calls] == [1]


def test_a_table_is_watched_when_it_is_checked_and_when_it_is_sealed(
    cloister: Cloister, calls: list[dict[str, int]], folder: Path
) -> None:
    tables = write_tables(folder / "tables")
    assert cloister("table", "check", tables / "east.csv").code == 0
    words = ("--out", "east.sealed", "--contents", "test-data", "--workspace", "work")
    assert cloister("table", "seal", tables / "east.csv", *words).code == 0
    checked, sealed = calls
    assert (checked[READ], UNWRAP in checked) == (1, False)
    assert (sealed[READ], sealed[UNWRAP]) == (1, 1)
    assert (folder / "work" / "immune" / "immune.db").exists()


def test_keys_are_watched_where_they_seal_a_package_or_a_file(
    cloister: Cloister, calls: list[dict[str, int]], folder: Path
) -> None:
    (folder / "model").write_bytes(encode_model(state_arrays(build_model("logistic-regression", 30, 2, 7))))
    words = ("--keeper", "keeper", "--job", TUMOUR, "--features", "30", "--name", "one", "--version", "1")
    ended = cloister("package", "seal", "model", *words, "--contents", "test-data", "--out", "p", "--json")
    assert ended.code == 0, ended.out
    ended = cloister(
        "keys", "data-key", "create", "keeper", "--dataset", "rows", "--purpose", "test-data", "--json"
    )
    key = ended.json()["data_key"]
    assert cloister("keys", "data-key", "seal", "keeper", str(key), "model", "--out", "sealed").code == 0
    assert [one[UNWRAP] for one in calls] == [1, 1]
    assert (folder / "keeper" / "immune" / "immune.db").exists()


def test_asking_for_a_prediction_is_watched(
    cloister: Cloister, calls: list[dict[str, int]], folder: Path
) -> None:
    (folder / "model").write_bytes(encode_model(state_arrays(build_model("logistic-regression", 30, 2, 7))))
    np.savetxt("rows.csv", np.zeros((1, 30)), delimiter=",")
    words = ("infer", "--model", "model", "--input", "rows.csv", "--job", TUMOUR, "--simulated-enclave")
    assert cloister(*words).code == 0
    assert [one[QUERY] for one in calls] == [1]


def test_a_figure_is_watched_and_what_is_noticed_is_said(
    cloister: Cloister, calls: list[dict[str, int]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noticed(*_: object) -> None:
        system = present()
        assert system is not None
        system.notes.note(AuditKind.DRIFT, "began", SETTLE, "duration 41.7x median, p=3e-05")

    monkeypatch.setattr("cloister.workflow.figures.may_leave", noticed)
    job = ExampleJob().write(folder / "job")
    words = ("--site", "northgate", "--column", "diagnosis", "--epsilon", "0.5", "-w", "work", "--json")
    ended = cloister("privacy", "release", job, *words)
    assert ended.code == 0
    (found,) = calls
    assert (found[LOAD], found[SETTLE]) == (1, 1)
    assert f"cloister: noticed behaviour-drift at {SETTLE}: nothing more is learned" in ended.err
    assert "41.7" not in ended.err


def test_with_the_immune_system_off_nothing_is_watched(
    cloister: Cloister, calls: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_IMMUNE", "false")
    assert cloister("data", TUMOUR, "--json").code == 0
    assert calls == []
