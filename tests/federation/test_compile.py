from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.core.canonical import parse_canonical
from cloister.core.errors import InputError
from cloister.federation import JobError, JobFolder, compile_job
from tests.federation.nodes import a_job


def test_equal_jobs_compile_to_equal_bytes() -> None:
    first, second = compile_job(a_job()), compile_job(a_job())
    assert first.files == second.files
    assert first.sha256 == second.sha256
    assert first.sha256 != compile_job(a_job(rounds=11)).sha256


def test_a_folder_holds_plain_canonical_json_and_no_code() -> None:
    folder = compile_job(a_job())
    assert sorted(folder.files) == [
        "app/config/cloister_job.json",
        "app/config/config_fed_client.json",
        "app/config/config_fed_server.json",
        "meta.json",
    ]
    for data in folder.files.values():
        parse_canonical(data)


def test_a_folder_names_only_classes_of_the_installed_package() -> None:
    folder = compile_job(a_job())
    for path, data in folder.files.items():
        for component in _paths(json.loads(data)):
            assert component.startswith("cloister.federation.flare."), path


def test_the_job_travels_with_its_folder() -> None:
    job = a_job()
    folder = compile_job(job)
    assert folder.files["app/config/cloister_job.json"] == job.canonical()
    assert job.sha256 in folder.files["app/config/config_fed_client.json"].decode()


def test_the_airlock_stands_between_training_and_the_way_out() -> None:
    client = json.loads(compile_job(a_job()).files["app/config/config_fed_client.json"])
    (executor,) = client["executors"]
    (airlock,) = client["task_result_filters"]
    assert airlock["tasks"] == executor["tasks"]


@pytest.mark.parametrize("strategy", ["FED_PROX", "SCAFFOLD"])
def test_a_strategy_without_a_controller_is_refused_by_name(strategy: str) -> None:
    with pytest.raises(JobError, match=strategy) as refusal:
        compile_job(a_job(strategy=strategy))
    assert refusal.value.code == "federation.strategy_unavailable"


def test_a_folder_can_be_written_for_other_back_ends(tmp_path: Path) -> None:
    folder = compile_job(a_job())
    folder.write(tmp_path / "job")
    written = {
        str(path.relative_to(tmp_path / "job")): path.read_bytes()
        for path in (tmp_path / "job").rglob("*")
        if path.is_file()
    }
    assert written == dict(folder.files)
    assert JobFolder.read(tmp_path / "job") == folder


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    compile_job(a_job()).write(tmp_path / "job")
    (tmp_path / "job" / "app" / "more").symlink_to("/etc")
    with pytest.raises(InputError):
        JobFolder.read(tmp_path / "job")


def _paths(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["path"]] if isinstance(value.get("path"), str) else []
        return own + [path for part in value.values() for path in _paths(part)]
    if isinstance(value, list):
        return [path for part in value for path in _paths(part)]
    return []
