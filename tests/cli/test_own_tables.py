"""Tables of one's own with something wrong in them: named by file and column, never by a value."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cloister.health import load_source, prepare_source
from tests.cli.conftest import Cloister
from tests.system.example_job import FAST, Edits, ExampleJob, finished_jobs

HEADER = "age,pressure,ill"
SECRET = "97.53"
SCHEMA = {
    "document": "cloister.table/v1",
    "sites": ["east", "west"],
    "test_set": "ward-holdout",
    "citation": "Invented for a test.",
    "table": {
        "name": "wards",
        "basis": "invented before the records were",
        "columns": [
            {"name": "age", "kind": "number", "lower": 0.0, "upper": 120.0},
            {"name": "pressure", "kind": "number", "lower": 50.0, "upper": 250.0},
        ],
        "label": {"name": "ill", "classes": ["no", "yes"]},
    },
}
JOB = {
    **FAST,
    "with_data": None,
    "data.source": "csv",
    "data.sites": ["east", "west"],
    "federation.min_clients": 2,
    "privacy.delta": 0.001,
}
REQUEST = {"privacy.delta": 0.001}


def rows(count: int) -> list[str]:
    draw = random.Random(count)
    return [
        f"{draw.uniform(20, 90):.2f},{draw.uniform(90, 190):.2f},{draw.choice(['no', 'yes'])}"
        for _ in range(count)
    ]


def write_tables(folder: Path, west: list[str] | None = None) -> Path:
    folder.mkdir()
    (folder / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    for name, lines in (("east", rows(40)), ("west", rows(30) if west is None else west), ("test", rows(50))):
        (folder / f"{name}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    prepare_source("csv", data_dir=folder)
    return folder


def write_job(folder: Path, tables: Path, job: Edits = JOB, terms: Edits | None = None) -> Path:
    """A job over the tables, with a manifest for them as they are, and with these terms."""
    data = load_source("csv", data_dir=tables)
    hospitals = [
        {
            "id": name,
            "name": f"Ward {name}",
            "dataset_sha256": site.dataset_sha256,
            "sample_size": site.records,
        }
        for name, site in data.sites.items()
    ]
    manifest = {
        "hospitals": hospitals,
        "dataset_scope.name": "wards",
        "dataset_scope.bounds_sha256": data.bounds_sha256,
        "success_metrics.threshold": 0.01,
        "success_metrics.evaluation_method.test_set": "ward-holdout",
        "success_metrics.evaluation_method.test_set_sha256": data.test.sha256,
        "success_metrics.evaluation_method.test_set_records": data.test.records,
        "privacy_guardrails.delta_budget": 0.001,
        **(terms or {}),
    }
    sites = [{"site": one["id"], "dataset_sha256": one["dataset_sha256"]} for one in hospitals]
    return ExampleJob(job=job, manifest=manifest, request={**REQUEST, "sites": sites}).write(folder)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Two wards' tables, as declared."""
    return write_tables(tmp_path / "tables")


def test_tables_as_declared_train_a_model(tables: Path, cloister: Cloister, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", tables)
    assert cloister("run", job, "--data", tables, "--workspace", tmp_path / "w", "--quiet").code == 0


def test_data_makes_the_salts_that_are_missing_and_says_so(
    tables: Path, cloister: Cloister, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job", tables)
    (tables / "west.salt").unlink()
    kept = (tables / "east.salt").read_text()
    first = cloister("data", job, "--data", tables, "--json")
    assert (first.code, [site["name"] for site in first.json()["sites"]]) == (0, ["east", "west"])
    assert "made west.salt" in first.err
    assert "east.salt" not in first.err
    made = (tables / "west.salt").read_text()
    again = cloister("data", job, "--data", tables)
    assert (again.code, again.err) == (0, "")
    assert ((tables / "east.salt").read_text(), (tables / "west.salt").read_text()) == (kept, made)
    for salt in (kept, made):
        assert salt.strip() not in first.out + first.err + again.out


def test_a_run_without_a_salt_is_refused_and_makes_none(
    tables: Path, cloister: Cloister, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job", tables)
    (tables / "west.salt").unlink()
    ended = cloister("run", job, "--data", tables, "--workspace", tmp_path / "w", "--quiet")
    assert ended.code == 2
    assert "health.salt_missing" in ended.err
    assert "cloister data" in ended.err
    assert not (tables / "west.salt").exists()
    assert finished_jobs(tmp_path / "w") == []


def test_no_salt_is_written_anywhere_by_a_run(tables: Path, cloister: Cloister, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", tables)
    assert cloister("run", job, "--data", tables, "--workspace", tmp_path / "w", "--quiet").code == 0
    for site in ("east", "west"):
        salt = (tables / f"{site}.salt").read_text().strip()
        for path in (tmp_path / "w").rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert salt.encode() not in content
            assert bytes.fromhex(salt) not in content


def line(number: int, text: str) -> Callable[[Path], None]:
    def spoil(tables: Path) -> None:
        lines = (tables / "west.csv").read_text().splitlines()
        lines[number] = text
        (tables / "west.csv").write_text("\n".join(lines) + "\n")

    return spoil


def only(*lines: str) -> Callable[[Path], None]:
    return lambda tables: (tables / "west.csv").write_text("".join(f"{one}\n" for one in lines)) and None


def outside(tables: Path) -> None:
    (tables / "west.csv").unlink()
    (tables / "west.csv").symlink_to("/etc/hostname")


MISTAKES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "NaN": (line(3, f"nan,{SECRET},yes"), "health.not_finite", "age"),
    "empty cell": (line(3, f",{SECRET},yes"), "health.not_finite", "age"),
    "text for a number": (line(3, f"old,{SECRET},yes"), "health.type", "age"),
    "value outside its bounds": (line(3, f"{SECRET},900.0,yes"), "health.out_of_range", "pressure"),
    "unknown class": (line(3, f"50.0,{SECRET},maybe"), "health.label", "ill"),
    "missing cell": (line(3, f"{SECRET},yes"), "health.columns", "west.csv"),
    "another header": (line(0, "age,weight,ill"), "health.columns", "missing column: pressure"),
    "empty site": (only(HEADER), "health.empty", ""),
    "empty file": (only(), "health.columns", "west.csv"),
    "no file": (lambda tables: (tables / "west.csv").unlink(), "input.missing_file", "west.csv"),
    "no test set": (lambda tables: (tables / "test.csv").unlink(), "input.missing_file", "test.csv"),
    "no declaration": (lambda tables: (tables / "schema.yaml").unlink(), "input.missing_file", "schema.yaml"),
    "binary file": (
        lambda tables: (tables / "west.csv").write_bytes(b"\xff\xfe\x00") and None,
        "input.syntax",
        "west.csv",
    ),
    "link out of the folder": (outside, "input.path_escapes", ""),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_table_is_refused_before_anything_is_spent_and_no_value_is_shown(
    name: str, tables: Path, cloister: Cloister, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job", tables)
    spoil, code, says = MISTAKES[name]
    spoil(tables)
    ended = cloister("run", job, "--data", tables, "--workspace", tmp_path / "w", "--quiet")
    assert ended.code == 2
    assert f"[{code}]" in ended.err.splitlines()[0]
    assert says in ended.err
    assert "hint: " in ended.err
    assert "Traceback" not in ended.err
    assert SECRET not in ended.err
    assert finished_jobs(tmp_path / "w") == []
    assert not list((tmp_path / "w").rglob("budget/*"))


def test_no_value_of_a_wrong_table_reaches_the_log(tables: Path, cloister: Cloister, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", tables)
    line(3, f"old,{SECRET},yes")(tables)
    cloister("run", job, "--data", tables, "--workspace", tmp_path / "w", "--quiet")
    (log,) = (tmp_path / "w" / "logs").iterdir()
    assert SECRET not in log.read_text()
    assert "health.type" in log.read_text()


def test_one_changed_value_is_another_dataset_and_refused(
    tables: Path, cloister: Cloister, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job", tables)
    line(3, f"50.0,{SECRET},yes")(tables)
    ended = cloister("run", job, "--data", tables, "--workspace", tmp_path / "w", "--quiet")
    assert ended.code == 3
    assert "west: dataset-unchanged" in ended.err
    assert SECRET not in ended.err


def test_a_site_below_the_minimum_group_size_is_refused_without_its_count(
    cloister: Cloister, tmp_path: Path
) -> None:
    tables = write_tables(tmp_path / "tables", west=rows(19))
    ended = cloister(
        "run", write_job(tmp_path / "job", tables), "--data", tables, "--workspace", tmp_path / "w", "--quiet"
    )
    assert ended.code == 3
    assert "west: group-size: the dataset holds fewer records than the minimum group size of 20" in ended.err
    assert "19" not in ended.err


def test_a_data_folder_that_is_missing_is_named(cloister: Cloister, tmp_path: Path) -> None:
    job = ExampleJob(job=JOB).write(tmp_path / "job")
    for folder in (tmp_path / "nowhere", job):
        ended = cloister("run", job, "--data", folder, "--workspace", tmp_path / "w", "--quiet")
        assert ended.code == 2
        assert str(folder) in ended.err
    ended = cloister("run", job, "--workspace", tmp_path / "w", "--quiet")
    assert ended.code == 2
    assert "--data" in ended.err
