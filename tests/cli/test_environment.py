"""When the machine gets in the way: no space, no permission, something in use, something damaged."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloister.privacy import BudgetLedger
from cloister.workflow.workspace import open_workspace
from tests.cli.conftest import Cloister, Ended, content
from tests.system.example_job import FAST, ExampleJob, finished_jobs

SMALL = {**FAST, "privacy.target_epsilon": 0.3}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A small job."""
    return ExampleJob(job=SMALL).write(tmp_path / "job")


@pytest.fixture
def used(lived_in: Path, tmp_path: Path) -> Path:
    """A copy of a workspace with one finished job, to spoil."""
    return Path(shutil.copytree(lived_in, tmp_path / "used"))


def spent(workspace: Path) -> dict[str, float]:
    """Epsilon by site, as the ledgers say; 0 where none was made."""
    found = {}
    for path in sorted(workspace.glob("parties/site/*/budget/*.sqlite")):
        with BudgetLedger.open(path, path.stem) as ledger:
            found[path.parent.parent.name] = ledger.epsilon()
    return found


def assert_refused(ended: Ended, code: str, exit_code: int) -> None:
    first, *others = [line for line in ended.err.splitlines() if "the log has stopped" not in line]
    assert ended.code == exit_code
    assert first.startswith("cloister: ")
    assert first.endswith(f"[{code}]")
    assert others[-1].startswith("  hint: ")
    assert "Traceback" not in ended.err
    assert ended.out == ""


# No space


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond a size: what a full disk does, at a chosen moment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1_000, 20_000, 60_000, 90_000, 120_000])
def test_a_full_disk_at_any_moment_leaves_no_half_job_and_the_next_run_works(
    size: int, job: Path, cloister: Cloister, tmp_path: Path
) -> None:
    workspace = tmp_path / "work"
    with largest_file(size):
        ended = cloister("run", job, "--workspace", workspace, "--quiet")
    assert ended.code == 5
    assert "[storage." in ended.err
    assert "hint: " in ended.err
    assert "Traceback" not in ended.err
    assert finished_jobs(workspace) == []
    before = spent(workspace)
    assert cloister("run", job, "--workspace", workspace, "--quiet").code == 0
    assert len(finished_jobs(workspace)) == 1
    after = spent(workspace)
    assert all(after[site] > before[site] for site in before)
    assert not list(workspace.rglob("*unfinished*"))


@pytest.mark.parametrize("name", ["receipt.json", "model.safetensors", "report.html"])
def test_a_disk_that_fills_up_while_an_artifact_is_written_leaves_earlier_jobs_alone(
    name: str, job: Path, used: Path, cloister: Cloister, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = content(used / "jobs"), os.write

    def full(descriptor: int, data: bytes) -> int:
        if name in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    ended = cloister("run", job, "--workspace", used, "--quiet")
    assert_refused(ended, "storage.no_space", 5)
    assert content(used / "jobs") == before


# Something in the way, or in use


def test_a_workspace_in_use_is_not_shared(job: Path, used: Path, cloister: Cloister) -> None:
    before = content(used)
    with open_workspace(used):
        ended = cloister("run", job, "--workspace", used, "--quiet")
    assert_refused(ended, "storage.in_use", 5)
    assert content(used) == before


def test_a_workspace_that_is_a_file_is_refused_and_kept(
    job: Path, cloister: Cloister, tmp_path: Path
) -> None:
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    assert_refused(cloister("run", job, "--workspace", taken, "--quiet"), "storage.permission", 5)
    assert taken.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_one_may_not_write_to_is_refused(job: Path, cloister: Cloister, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert_refused(cloister("run", job, "--workspace", locked / "w", "--quiet"), "storage.permission", 5)


def test_a_job_id_that_was_used_before_is_refused_and_the_earlier_job_kept(
    cloister: Cloister, tmp_path: Path
) -> None:
    fixed = {**SMALL, "job_id": "11111111-1111-4111-8111-111111111111"}
    job, workspace = ExampleJob(job=fixed).write(tmp_path), tmp_path / "work"
    assert cloister("run", job, "--workspace", workspace, "--quiet").code == 0
    before, budget = content(workspace / "jobs"), spent(workspace)
    assert_refused(cloister("run", job, "--workspace", workspace, "--quiet"), "storage.exists", 5)
    assert content(workspace / "jobs") == before
    shutil.rmtree(workspace / "jobs")
    assert_refused(cloister("run", job, "--workspace", workspace, "--quiet"), "storage.exists", 5)
    assert spent(workspace) == budget


def test_a_log_file_that_cannot_be_opened_stops_the_run_before_it_begins(
    job: Path, cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOISTER_LOG_FILE", str(tmp_path / "nowhere" / "run.jsonl"))
    assert_refused(cloister("run", job, "--workspace", tmp_path / "w", "--quiet"), "storage.failed", 5)
    assert finished_jobs(tmp_path / "w") == []


# Something damaged: refused, never made anew


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 2000)


def one_bit(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def gone(path: Path) -> None:
    path.unlink()


def readable_by_all(path: Path) -> None:
    path.chmod(0o644)


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str, int]] = {
    "log of a site overwritten": ("site/lakeview/log.sqlite", garbage, "storage.corrupt", 5),
    "log of a site gone": ("site/lakeview/log.sqlite", gone, "evidence.log_missing", 5),
    "log of the hub overwritten": ("hub/hub/log.sqlite", garbage, "storage.corrupt", 5),
    "log of the hub gone": ("hub/hub/log.sqlite", gone, "evidence.log_missing", 5),
    "ledger overwritten": ("site/lakeview/budget/*.sqlite", garbage, "ledger.corrupt", 5),
    "ledger with a flipped bit": ("site/lakeview/budget/*.sqlite", one_bit, "ledger.corrupt", 5),
    "ledger gone": ("site/lakeview/budget/*.sqlite", gone, "ledger.missing", 5),
    "key overwritten": ("site/lakeview/keys/site.pem", garbage, "key.malformed", 2),
    "key readable by all": ("site/lakeview/keys/site.pem", readable_by_all, "key.permissions", 2),
    "key gone": ("site/lakeview/keys/site.pem", gone, "evidence.log_mismatch", 5),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused_and_not_begun_anew(
    name: str, job: Path, used: Path, cloister: Cloister
) -> None:
    pattern, damage, code, exit_code = DAMAGE[name]
    (path,) = (used / "parties").glob(pattern)
    damage(path)
    before = content(used / "jobs")
    for _ in range(2):
        assert_refused(cloister("run", job, "--workspace", used, "--quiet"), code, exit_code)
    assert content(used / "jobs") == before


def test_what_a_killed_run_left_half_built_is_cleared_by_the_next_one(
    job: Path, used: Path, cloister: Cloister
) -> None:
    left = used / "jobs" / ".unfinished-tumour-1"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    before = set(finished_jobs(used)) - {left.name}
    assert cloister("run", job, "--workspace", used, "--quiet").code == 0
    assert not left.exists()
    assert before < set(finished_jobs(used))
