"""What ``cloister verify`` and ``cloister-verify`` print for people and machines, with which exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from cloister.cli import standalone
from cloister.cli.verdict import Paint, verdict_lines
from cloister.core.canonical import b64decode
from cloister.core.clock import system_clock
from cloister.enclave import SimulatedVendor
from cloister.enclave.measure import code_measurement
from cloister.evidence.artifacts import ArtifactKind, ArtifactVerdict
from cloister.evidence.checks import failed, passed
from cloister.evidence.predicates import AttestationVerdict
from cloister.evidence.receipt import parse_receipt, receipt_from_json, record_of
from cloister.evidence.verifier import CHECK_IDS
from tests.cli.conftest import Cloister


def test_verify_prints_a_table_of_every_check_with_its_verdict(cloister: Cloister, finished: Path) -> None:
    ended = cloister("verify", finished / "receipt.json", "--trust", finished / "trust")
    assert ended.code == 0
    assert ended.err == ""
    assert "SIMULATED" in ended.out
    for check in CHECK_IDS:
        assert any(line.split()[:2] == [check, "passed"] for line in ended.out.splitlines())
    assert "accepted receipt.json" in ended.out


def test_verify_answers_a_machine_with_one_object(cloister: Cloister, finished: Path) -> None:
    ended = cloister("verify", finished / "receipt.json", "--trust", finished / "trust", "--json")
    answer = ended.json()
    assert ended.code == 0
    assert answer.keys() == {
        "kind",
        "facts",
        "accepted",
        "refused_because",
        "simulated",
        "test_randomness",
        "owners_word",
        "production_required",
        "measurements",
        "checks",
    }
    assert answer["refused_because"] == []
    assert answer["measurements"] == [code_measurement().hex()]
    assert answer["accepted"] is True
    checks = cast(list[dict[str, str]], answer["checks"])
    assert [(check["id"], check["outcome"]) for check in checks] == [(name, "passed") for name in CHECK_IDS]


def test_quiet_verify_says_nothing_and_answers_with_its_exit_code(
    cloister: Cloister, finished: Path, tmp_path: Path
) -> None:
    ended = cloister("verify", finished / "receipt.json", "--trust", finished / "trust", "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another model")
    ended = cloister(
        "verify", finished / "receipt.json", "--trust", finished / "trust", "--model", other, "--quiet"
    )
    assert (ended.code, ended.out, ended.err) == (1, "", "")


def test_verify_in_production_says_why_it_refuses(cloister: Cloister, finished: Path) -> None:
    ended = cloister("verify", finished / "receipt.json", "--trust", finished / "trust", "--production")
    assert ended.code == 1
    assert "--production accepts no simulated attestation" in ended.out


@pytest.mark.parametrize("measurement", ["0" * 96, "", "not a measurement"])
def test_verify_refuses_other_code_than_the_one_demanded(
    measurement: str, cloister: Cloister, finished: Path
) -> None:
    place = (finished / "receipt.json", "--trust", finished / "trust")
    ended = cloister("verify", *place, "--measurement", measurement)
    assert ended.code == 1
    assert "--measurement names other code than was attested" in ended.out
    assert cloister("verify", *place, "--measurement", code_measurement().hex()).code == 0


@pytest.mark.parametrize(
    ("receipt", "trust", "model", "code", "exit_code"),
    [
        ("nowhere.json", "trust", None, "input.missing_file", 2),
        ("receipt.json", "nowhere", None, "evidence.trust_malformed", 2),
        ("receipt.json", "receipt.json", None, "evidence.trust_malformed", 2),
        ("receipt.json", "trust", "nowhere.safetensors", "input.missing_file", 2),
        ("receipt.json", "trust", "trust", "input.missing_file", 2),
    ],
)
def test_verify_names_what_it_lacks(
    receipt: str, trust: str, model: str | None, code: str, exit_code: int, cloister: Cloister, finished: Path
) -> None:
    words: list[str | Path] = ["verify", finished / receipt, "--trust", finished / trust]
    if model is not None:
        words += ["--model", finished / model]
    ended = cloister(*words)
    assert ended.code == exit_code
    assert ended.err.splitlines()[0].endswith(f"[{code}]")
    assert "hint: " in ended.err


@pytest.mark.parametrize("something", ["report.html", "trust"])
def test_what_is_no_evidence_is_refused_by_name(something: str, cloister: Cloister, finished: Path) -> None:
    ended = cloister("verify", finished / something, "--trust", finished / "trust", "--json")
    answer = ended.json()
    (check,) = cast(list[dict[str, str]], answer["checks"])
    assert ended.code == 1
    assert answer["kind"] is None
    assert (check["id"], check["outcome"]) == ("artifact-kind", "failed")


def test_a_kind_that_is_named_decides_what_is_checked(cloister: Cloister, finished: Path) -> None:
    words = ("verify", finished / "report.html", "--trust", finished / "trust", "--kind", "receipt", "--json")
    checks = cast(list[dict[str, str]], cloister(*words).json()["checks"])
    assert [check["id"] for check in checks] == list(CHECK_IDS)
    assert checks[0]["outcome"] == "failed"
    assert {check["outcome"] for check in checks[1:]} == {"not_run"}


def test_a_kind_that_does_not_exist_is_wrong_input(cloister: Cloister, finished: Path) -> None:
    ended = cloister("verify", finished / "receipt.json", "--trust", finished / "trust", "--kind", "rumour")
    assert ended.code == 2
    assert "checkpoint" in ended.err


@pytest.fixture
def note(finished: Path, tmp_path: Path) -> Path:
    """The head of a site's log, as a file."""
    checkpoints = json.loads((finished / "receipt.json").read_bytes())["body"]["checkpoints"]
    path = tmp_path / "lakeview.note"
    path.write_text(checkpoints["cloister/site/lakeview"])
    return path


def test_a_checkpoint_is_recognised_and_verified(cloister: Cloister, finished: Path, note: Path) -> None:
    answer = cloister("verify", note, "--trust", finished / "trust", "--json").json()
    assert answer["kind"] == "checkpoint"
    assert answer["accepted"] is True
    assert cast(dict[str, str], answer["facts"])["log"] == "cloister/site/lakeview"


def test_machines_are_judged_by_todays_documents_too_where_some_are_named(
    cloister: Cloister, finished: Path, tmp_path: Path
) -> None:
    data = (finished / "receipt.json").read_bytes()
    verdicts = record_of(receipt_from_json(parse_receipt(data), data).body).of(AttestationVerdict)
    (tmp_path / "list.crl").write_bytes(b64decode(verdicts[0].collateral[0].data))
    line = ("verify", finished / "receipt.json", "--trust", finished / "trust")
    ended = cloister(*line, "--collateral", tmp_path, "--json")
    assert ended.code == 0
    last = cast(list[dict[str, str]], ended.json()["checks"])[-1]
    assert (last["id"], last["outcome"]) == ("attestation-today", "passed")
    assert "still so by what is known today" in last["detail"]
    (tmp_path / "empty").mkdir()
    assert cloister(*line, "--collateral", tmp_path / "empty").code == 2


def test_documents_of_today_have_no_meaning_for_a_checkpoint(
    cloister: Cloister, finished: Path, note: Path, tmp_path: Path
) -> None:
    made = SimulatedVendor.create(system_clock)
    (tmp_path / "list.crl").write_bytes(made.crl_der)
    named = ("--collateral", tmp_path / "list.crl")
    ended = cloister("verify", note, "--trust", finished / "trust", *named)
    assert ended.code == 2
    assert "vendors' documents of today" in ended.err


def test_what_has_no_meaning_for_an_artifact_is_refused_and_not_dropped(
    cloister: Cloister, finished: Path, note: Path
) -> None:
    ended = cloister("verify", note, "--trust", finished / "trust", "--production")
    assert ended.code == 2
    assert ended.err.splitlines()[0].endswith("[evidence.demand_foreign]")


@pytest.mark.parametrize("time", ["yesterday", "2026-11-21T14:00:00", "0001-01-01T00:00:00+14:00"])
def test_a_time_without_its_zone_is_wrong_input(
    time: str, cloister: Cloister, finished: Path, note: Path
) -> None:
    ended = cloister("verify", note, "--trust", finished / "trust", "--at", time)
    assert ended.code == 2
    assert ended.err.splitlines()[0].endswith("[input.syntax]")


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("shown", [["--json"], []])
def test_the_command_that_stands_alone_says_the_same(
    broken: bool,
    shown: list[str],
    cloister: Cloister,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    receipt = finished / "receipt.json"
    if broken:
        receipt = tmp_path / "receipt.json"
        receipt.write_bytes((finished / "receipt.json").read_bytes().replace(b'"rounds":2', b'"rounds":3'))
    words = [receipt, "--trust", finished / "trust", "--model", finished / "model.safetensors", *shown]
    one = cloister("verify", *words)
    with pytest.raises(SystemExit) as ended:
        standalone.main([str(word) for word in words])
    assert ended.value.code == one.code == (1 if broken else 0)
    assert capsys.readouterr().out == one.out


@pytest.mark.parametrize(
    "words", [[], ["receipt.json"], ["receipt.json", "--trust", "t", "--fly"], ["--witnesses", "many"]]
)
def test_wrong_usage_of_the_command_that_stands_alone_is_exit_code_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for as_json in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            standalone.main([*words, *as_json])
        assert ended.value.code == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0].endswith("[usage.wrong]")
    assert json.loads(shown.out)["error"]["code"] == "usage.wrong"


def test_long_details_are_folded_to_the_width_of_a_terminal() -> None:
    verdict = ArtifactVerdict(ArtifactKind.RECEIPT, (failed("schema", "a word and " * 20),))
    lines = list(verdict_lines(verdict, "receipt.json", width=60, paint=Paint.PLAIN))
    assert len(lines) > 4
    assert max(map(len, lines)) <= 60


def test_nothing_an_artifact_says_steers_a_terminal() -> None:
    verdict = ArtifactVerdict(
        ArtifactKind.CHECKPOINT, (passed("schema", "a\x1b[2J"),), facts={"log": "north\x1b]0;x\x07\u202e"}
    )
    shown = "".join(verdict_lines(verdict, "re\x1b[2Jceipt", width=None, paint=Paint.PLAIN))
    assert shown.isprintable()
