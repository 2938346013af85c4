"""What each command prints for people and for machines, with which exit code, and how soon."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import cloister as package
from cloister.evidence.verifier import CHECK_IDS
from cloister.health import load_source
from tests.cli.conftest import Cloister, content
from tests.console import CLOISTER
from tests.system.example_job import FAST, TUMOUR, ExampleJob, finished_jobs
from tests.timing import shortest

COMMANDS = ("run", "verify", "compare", "data", "infer", "serve-inference")
HEAVY = ("torch", "opacus", "nvflare", "sklearn", "numpy", "matplotlib", "sqlalchemy", "dp_accounting")


def python(*words: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder,
        timeout=100,
    )


def cpu_seconds(code: str) -> tuple[float, set[str]]:
    """CPU time of a piece of code in a fresh interpreter, and the heavy libraries it loaded."""
    done = python(
        "-c",
        "import sys, time\n"
        "began = time.process_time()\n"
        f"{code}\n"
        "print(time.process_time() - began)\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))",
    )
    assert done.returncode == 0, done.stderr
    seconds, loaded = done.stdout.splitlines()[-2:]
    return float(seconds), set(loaded.split())


# run


def test_run_answers_a_machine_with_one_object_and_nothing_else(cloister: Cloister, tmp_path: Path) -> None:
    job = ExampleJob().write(tmp_path)
    ended = cloister("run", job, "--workspace", tmp_path / "work", "--json")
    answer = ended.json()
    assert ended.code == 0
    assert ended.err == ""
    assert answer.keys() == {
        "job_id",
        "name",
        "source",
        "architecture",
        "strategy",
        "simulated",
        "protection",
        "randomness",
        "normalisation",
        "performance",
        "sites",
        "refused_sites",
        "incidents",
        "rounds",
        "training_seconds",
        "receipt_accepted",
        "accepted_with",
        "checks",
        "files",
    }
    assert answer["simulated"] is True
    assert answer["receipt_accepted"] is True
    assert answer["refused_sites"] == {}
    performance = cast(dict[str, object], answer["performance"])
    assert performance.keys() == {
        "test_set",
        "test_records",
        "metric",
        "value",
        "interval_95",
        "baseline",
        "improvement_score",
        "threshold",
        "passed",
    }
    assert [check["id"] for check in cast(list[dict[str, str]], answer["checks"])] == list(CHECK_IDS)
    assert [one["number"] for one in cast(list[dict[str, object]], answer["rounds"])] == [1, 2]
    sites = cast(list[dict[str, object]], answer["sites"])
    assert {cast(str, site["site"]) for site in sites} == {"lakeview", "northgate", "riverside"}
    assert all(0 < cast(float, site["epsilon"]) <= 1.0 for site in sites)
    for path in cast(dict[str, str], answer["files"]).values():
        assert Path(path).exists()


def test_run_shows_progress_on_stderr_and_a_summary_on_stdout(cloister: Cloister, tmp_path: Path) -> None:
    ended = cloister("run", ExampleJob().write(tmp_path), "--workspace", tmp_path / "work")
    assert ended.code == 0
    assert "rounds" in ended.err
    assert "2/2" in ended.err
    assert "epsilon" in ended.err
    for site in ("lakeview", "northgate", "riverside"):
        assert site in ended.err
        assert site in ended.out
    assert "accuracy" in ended.out
    assert "wisconsin-holdout" in ended.out
    assert "SIMULATED" in ended.out
    assert f"all {len(CHECK_IDS)} checks passed" in ended.out
    (folder,) = (tmp_path / "work" / "jobs").iterdir()
    assert f"cloister verify {folder / 'receipt.json'} --trust {folder / 'trust'}" in ended.out


def test_the_command_that_run_suggests_verifies(cloister: Cloister, finished: Path) -> None:
    ended = cloister("verify", finished / "receipt.json", "--trust", finished / "trust")
    assert ended.code == 0


def test_a_missed_threshold_is_exit_code_1_with_all_files_written(cloister: Cloister, tmp_path: Path) -> None:
    job = ExampleJob(manifest={"success_metrics.threshold": 1.0}).write(tmp_path)
    ended = cloister("run", job, "--workspace", tmp_path / "work", "--json")
    assert ended.code == 1
    answer = ended.json()
    assert cast(dict[str, object], answer["performance"])["passed"] is False
    assert answer["receipt_accepted"] is True
    assert "did not reach its threshold" in Path(cast(dict[str, str], answer["files"])["report"]).read_text()


def test_a_seeded_run_is_labelled_in_its_summary(cloister: Cloister, tmp_path: Path) -> None:
    job = ExampleJob().write(tmp_path)
    ended = cloister("run", job, "--workspace", tmp_path / "work", "--test-seed", "5")
    assert "TEST RANDOMNESS" in ended.out


def test_a_quiet_run_in_a_fresh_process_writes_nothing_anywhere_but_in_its_workspace(tmp_path: Path) -> None:
    """The whole way a person goes: entry point, imports, run, exit; with a temporary folder to watch."""
    scratch, home = tmp_path / "scratch", tmp_path / "home"
    scratch.mkdir()
    home.mkdir()
    job = ExampleJob(job={**FAST, "federation.rounds": 1}).write(tmp_path / "job")
    before = content(tmp_path / "job")
    done = subprocess.run(
        [*CLOISTER, "run", job, "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env=os.environ
        | {"TMPDIR": str(scratch), "HOME": str(home), "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": ""},
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(scratch.iterdir()) == []
    assert content(tmp_path / "job") == before
    assert len(finished_jobs(home / "cloister-work")) == 1
    assert {path.name for path in home.iterdir()} <= {"cloister-work", ".cache", ".config"}


# compare and data


def test_compare_marks_every_baseline_as_not_part_of_the_private_run(cloister: Cloister) -> None:
    ended = cloister("compare", TUMOUR, "--json")
    answer = ended.json()
    assert ended.code == 0
    assert answer["mark"] == "not part of the private run"
    baselines = cast(list[dict[str, object]], answer["baselines"])
    assert [one["name"] for one in baselines] == [
        "pooled, no privacy",
        "federated averaging, no privacy",
        "lakeview alone, no privacy",
        "northgate alone, no privacy",
        "riverside alone, no privacy",
    ]
    assert all(cast(float, one["accuracy"]) > 0.9 for one in baselines)


def test_compare_shows_people_the_same_mark(cloister: Cloister) -> None:
    ended = cloister("compare", TUMOUR)
    assert ended.code == 0
    assert "not part of the private run" in ended.out


def test_compare_refuses_data_that_is_not_public(cloister: Cloister, tmp_path: Path) -> None:
    ended = cloister("compare", ExampleJob(job={"data.source": "csv"}).write(tmp_path))
    assert ended.code == 2
    assert "public" in ended.err


def test_data_prints_what_a_manifest_needs_and_no_count_by_class(cloister: Cloister) -> None:
    ended = cloister("data", TUMOUR, "--json")
    answer = ended.json()
    truth = load_source("breast-cancer-wisconsin")
    assert ended.code == 0
    assert {
        site["name"]: (site["records"], site["dataset_sha256"])
        for site in cast(list[dict[str, object]], answer["sites"])
    } == {name: (site.records, site.dataset_sha256) for name, site in truth.sites.items()}
    for site in cast(list[dict[str, object]], answer["sites"]):
        assert site.keys() == {"name", "records", "subjects", "features", "dataset_sha256"}


def test_data_prints_whole_hashes_into_a_file(cloister: Cloister) -> None:
    shown = cloister("data", TUMOUR).out
    for site in load_source("breast-cancer-wisconsin").sites.values():
        assert site.dataset_sha256 in shown


# The command itself


def test_version_is_the_packages(cloister: Cloister) -> None:
    ended = cloister("--version")
    assert (ended.code, ended.out.strip(), ended.err) == (0, package.__version__, "")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["fly"], "cloister"),
        (["run"], "cloister run"),
        (["run", "job.yaml", "--fly"], "cloister run"),
        (["run", "job.yaml", "--test-seed", "five"], "cloister run"),
        (["verify"], "cloister verify"),
        (["verify", "receipt.json"], "cloister verify"),
        (["audit", "fly"], "cloister audit"),
        (["audit", "export"], "cloister audit export"),
        (["audit", "export", "--out", "new.json"], "cloister audit export"),
        (["witness", "cosign", "east", "request", "--fly"], "cloister witness cosign"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_points_to_the_help(
    words: list[str], command: str, cloister: Cloister
) -> None:
    ended = cloister(*words)
    assert ended.code == 2
    assert ended.err.splitlines()[0].endswith("[usage.wrong]")
    assert ended.err.splitlines()[-1] == f"  hint: See: {command} --help"
    assert cast(dict[str, str], cloister(*words, "--json").json()["error"])["code"] == "usage.wrong"


def test_without_words_the_command_shows_its_help(cloister: Cloister) -> None:
    ended = cloister()
    assert ended.code == 2
    assert ended.err == ""
    for command in COMMANDS:
        assert command in ended.out


@pytest.mark.parametrize(
    "group", ["audit", "collateral", "keys", "log", "budget", "privacy", "pki", "table", "witness"]
)
def test_every_group_has_help_with_an_example_that_is_one_of_its_commands(
    group: str, cloister: Cloister
) -> None:
    shown = cloister(group, "--help").out
    example = re.search(rf"cloister {group} ([\w-]+)", shown.partition("Start with:")[2])
    assert example is not None
    assert "Example" in cloister(group, example[1], "--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, cloister: Cloister) -> None:
    ended = cloister(command, "--help")
    assert ended.code == 0
    assert f"cloister {command}" in ended.out
    assert "Example" in ended.out


@pytest.mark.timed
@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_is_quick_and_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import contextlib\n"
        "from cloister.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main({words!r})"
    )

    def seconds() -> float:
        seconds, loaded = cpu_seconds(code)
        assert loaded == set()
        return seconds

    assert shortest(seconds, 0.4) < 0.4


@pytest.mark.timed
def test_importing_the_package_costs_less_than_50_milliseconds() -> None:
    def seconds() -> float:
        seconds, loaded = cpu_seconds("import cloister")
        assert loaded == set()
        return seconds

    assert shortest(seconds, 0.05) < 0.05


def test_verifying_loads_no_machine_learning_library(finished: Path) -> None:
    words = ["verify", str(finished / "receipt.json"), "--trust", str(finished / "trust"), "--quiet"]
    code = (
        "import contextlib\n"
        "from cloister.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main({words!r})"
    )
    _, loaded = cpu_seconds(code)
    assert not loaded & {"torch", "opacus", "nvflare", "sklearn", "matplotlib"}


def test_an_unexpected_error_is_a_defect_without_its_message(
    cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("record 17 says 42")

    monkeypatch.setattr("cloister.workflow.run.load_data", broken)
    job = ExampleJob().write(tmp_path)
    ended = cloister("run", job, "--workspace", tmp_path / "work", "--quiet")
    assert ended.code == 70
    assert "[internal.defect]" in ended.err
    assert "RuntimeError" in ended.err
    assert "record 17" not in ended.err
    assert "Traceback" not in ended.err
    assert finished_jobs(tmp_path / "work") == []
    (log,) = (tmp_path / "work" / "logs").iterdir()
    assert "record 17" not in log.read_text()
    assert "RuntimeError" in log.read_text()


def test_an_interrupted_run_leaves_nothing_half_written(
    cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloister.workflow.run.encode_model", interrupted)
    job = ExampleJob().write(tmp_path)
    ended = cloister("run", job, "--workspace", tmp_path / "work", "--quiet")
    assert ended.code == 130
    assert "nothing half-written" in ended.err
    assert finished_jobs(tmp_path / "work") == []
