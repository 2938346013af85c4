"""``cloister privacy audit`` at the command line: a report is written, and what it can't say it says."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import cast

import pytest

from cloister.workflow import privacy_audit
from tests.cli.conftest import Cloister, Ended
from tests.privacy.audit.trainers import SPIKE

JOB = Path(__file__).resolve().parents[2] / "examples" / "tumour" / "job.yaml"


@pytest.fixture(autouse=True)
def few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks on training with as few models as they allow."""
    attack = privacy_audit.attack_training
    monkeypatch.setattr(
        privacy_audit,
        "attack_training",
        lambda name, train, records: attack(name, train, records, models=8, targets=4),
    )


def test_a_model_is_audited_and_the_report_stands_alone(
    cloister: Cloister, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit"
    ended = cloister(
        "privacy", "audit", finished / "model.safetensors", "--job", JOB, "--site", "riverside", "--out", out
    )
    assert ended.code == 0, ended.err
    assert "that does not prove it" in ended.out
    found = json.loads((out / "report.json").read_bytes())
    assert found["claim"]["site"] == "riverside"
    assert found["claim"]["epsilon"] <= 2.0
    assert found["model"]["auc"] == pytest.approx(0.5, abs=0.2)
    assert found["conformance"]["passed"] is True
    assert {one["name"] for one in found["membership"]} == {"no protection", "this plan, epsilon 2"}
    assert found["not_done"] == {}
    assert found["confidential"] is False
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 6
    assert "is not evidence that the claim holds" in page
    assert stat.S_IMODE((out / "report.html").stat().st_mode) == 0o600


def test_a_faulty_trainer_ends_with_the_code_for_a_failed_verification(
    cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SPIKE["noise 4x too small"][0](monkeypatch)
    ended = cloister("privacy", "audit", JOB, "--out", tmp_path / "audit", "--json")
    assert ended.code == 1
    assert ended.json()["contradicted"] is True
    assert "The claim is contradicted" in (tmp_path / "audit" / "report.html").read_text()


@pytest.fixture
def private_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy_audit, "PUBLIC_SOURCES", frozenset())


def audited(cloister: Cloister, out: Path, *words: str) -> Ended:
    return cloister("privacy", "audit", JOB, "--out", out, "--json", *words)


@pytest.mark.usefixtures("private_source")
def test_private_records_are_not_attacked_unless_somebody_says_so(
    cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("records were read")

    with monkeypatch.context() as patch:
        patch.setattr(privacy_audit, "_memberships", never)
        found = audited(cloister, tmp_path / "a").json()
    assert found["membership"] == []
    assert found["confidential"] is False
    assert "Attacks on the site's records" in str(found["not_done"])
    assert [one["records"] for one in found["inversion"]] == ["Made-up pictures"]  # type: ignore[attr-defined]
    asked = audited(cloister, tmp_path / "b", "--confidential").json()
    assert asked["confidential"] is True
    assert asked["membership"] != []
    assert "CONFIDENTIAL" in (tmp_path / "b" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("model.safetensors",), 2, "--job"),
        ((str(JOB), "--site", "nowhere"), 2, "no site nowhere"),
        (("missing.yaml",), 2, "missing.yaml"),
    ],
)
def test_what_cannot_be_audited_is_refused(
    cloister: Cloister, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    ended = cloister("privacy", "audit", *words, "--out", tmp_path / "audit")
    assert ended.code == code
    assert says in ended.err
    assert not (tmp_path / "audit").exists()


def test_a_file_that_is_no_model_is_refused(cloister: Cloister, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no model")
    ended = cloister("privacy", "audit", tmp_path / "model.safetensors", "--job", JOB)
    assert ended.code != 0
    assert "enclave.model_file" in ended.err


def test_a_figure_is_told_with_its_interval_and_its_price(cloister: Cloister, tmp_path: Path) -> None:
    asked = ("privacy", "release", JOB, "--site", "northgate", "-w", tmp_path / "work", "--column")
    ended = cloister(*asked, "diagnosis", "--epsilon", "0.5", "--json")
    assert ended.code == 0, ended.err
    found = ended.json()
    assert (found["kind"], found["unit"], found["about"]) == ("histogram", "record", "records")
    assert set(cast(dict[str, object], found["figures"])) == {"malignant", "benign"}
    assert 0.4 < cast(float, found["epsilon"]) <= 0.5
    told = cloister(*asked, "radius (mean)", "--epsilon", "0.5")
    assert told.code == 0, told.err
    assert "95 % interval" in told.out
    assert "It cost epsilon 0.49" in told.out
    history = cloister("budget", "history", "-w", tmp_path / "work")
    assert history.out.count("gaussian, 1 done") == 2


def test_a_column_that_is_not_there_is_refused_with_those_that_are(
    cloister: Cloister, tmp_path: Path
) -> None:
    ended = cloister(
        "privacy",
        "release",
        JOB,
        "--site",
        "northgate",
        "--column",
        "age",
        "--epsilon",
        "0.5",
        "-w",
        tmp_path,
    )
    assert ended.code == 2
    assert "- radius (mean)" in ended.err
    assert "- diagnosis" in ended.err
