"""What the project says about itself is so: links, targets, locks, codes, and the tools around the tests."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import cloister
from cloister.core.errors import EXIT_MEANINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
LOCKS = ("torch-cpu.txt", "base.txt", "cuda.txt", "light.txt", "peers.txt", "immune-peers.txt")


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def pins(lock: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    return dict(
        re.match(r"([a-z0-9._-]+)==([^ ;\\]+)", line).groups() for line in lines if line[:1].isalnum()
    )  # type: ignore[union-attr]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [
        link
        for link in targets
        if not link.startswith(("http:", "https:")) and not (page.parent / link).exists()
    ]
    assert missing == []


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert "demo" in named
    assert named <= targets


def test_every_error_code_is_in_the_reference() -> None:
    written = (ROOT / "docs" / "reference" / "errors.md").read_text()
    assert written == tool("write_error_reference").catalogue(), "run tools/write_error_reference.py"


def test_the_readme_lists_every_exit_code() -> None:
    table = (ROOT / "README.md").read_text().split("### Exit codes")[1].split("##")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert listed >= set(EXIT_MEANINGS)


def test_the_licence_is_the_one_the_package_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "LICENSE").read_text()
    assert declared["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert declared == cloister.__version__
    assert f"## [{declared}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_a_hash_and_none_a_place(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    packages = re.split(r"\n(?=[a-zA-Z0-9])", text.strip())
    assert len(packages) == len(pins(lock))
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []
    assert "://" not in text
    assert "--find-links" not in text


def test_all_locks_hold_one_version_of_each_package() -> None:
    base, cuda, light = pins("base.txt"), pins("cuda.txt"), pins("light.txt")
    torch = pins("torch-cpu.txt")["torch"].removesuffix("+cpu")
    assert "torch" not in base
    assert torch == cuda["torch"]
    assert {name: cuda[name] for name in base} == base
    for other in (light, pins("immune-peers.txt")):
        assert {
            name: version for name, version in other.items() if name in base and base[name] != version
        } == {}


def test_the_direct_dependencies_are_in_the_locks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    names = {re.split(r"[\[<>=~]", one)[0].lower() for one in wanted} - {"cloister"}
    assert names <= set(pins("cuda.txt"))


def fake_python(folder: Path, script: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "Python 3.11 or newer is needed"),
        ('case "$2" in *ensurepip*) exit 1;; esac; exit 0', "has no venv module"),
    ],
    ids=["too old", "without venv"],
)
def test_an_unfit_python_is_refused_with_what_to_do_and_nothing_made(
    tmp_path: Path, script: str, said: str
) -> None:
    (tmp_path / "tools").mkdir()
    install = tmp_path / "tools" / "install"
    install.write_bytes((ROOT / "tools" / "install").read_bytes())
    environment = {**os.environ, "PYTHON": fake_python(tmp_path, script)}
    done = subprocess.run(
        ["bash", str(install)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "apt install python3" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("pip_says", "code", "said"),
    [
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", 0, "downloads about 2.9 GB"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", 1, "torch could not be installed"),
    ],
    ids=["not offered", "another hash"],
)
def test_the_cuda_build_is_taken_only_where_the_cpu_build_is_not_offered(
    tmp_path: Path, pip_says: str, code: int, said: str
) -> None:
    for name in ("tools", "requirements", ".venv/bin", "src"):
        (tmp_path / name).mkdir(parents=True)
    install = tmp_path / "tools" / "install"
    install.write_bytes((ROOT / "tools" / "install").read_bytes())
    refuse = f'case "$*" in *torch-cpu*) echo "{pip_says}" >&2; exit 1;; esac'
    stub = f'echo "$@" >> "{tmp_path}/calls"\n{refuse}\nexit 0'
    fake_python(tmp_path / ".venv" / "bin", stub)
    (tmp_path / ".venv" / "bin" / "fake-python").rename(tmp_path / ".venv" / "bin" / "python")
    done = subprocess.run(["bash", str(install)], capture_output=True, text=True, check=False)
    calls = (tmp_path / "calls").read_text()
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert ("cuda.txt" in calls) == (code == 0)


def junit(folder: Path, cases: str) -> Path:
    path = folder / "report.xml"
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    return path


@pytest.mark.parametrize(
    ("cases", "passed"),
    [
        ("", 0),
        ('<testcase name="a"><skipped/></testcase>', 0),
        (
            '<testcase name="a"/><testcase name="b"><failure/></testcase>'
            '<testcase name="c"><skipped/></testcase>',
            1,
        ),
    ],
)
def test_only_a_test_that_ran_and_passed_counts(tmp_path: Path, cases: str, passed: int) -> None:
    assert tool("count_passed").count_passed(junit(tmp_path, cases)) == passed


def test_the_closing_lines_of_a_nightly_run_name_every_failure_with_its_seed(tmp_path: Path) -> None:
    nightly = tool("nightly")
    soak = '<testcase classname="tests.x" name="soak"/>'
    kill = '<testcase classname="tests.x" name="kill"><failure/></testcase>'
    rounds = [
        nightly.read_round(junit(tmp_path, soak), 7, 60.0),
        nightly.read_round(junit(tmp_path, soak + kill), 8, 61.0),
    ]
    lines = nightly.closing_lines(rounds, tests=2, given=300.0)
    assert lines[0].endswith("2 rounds (seeds 7 to 8), 2 passed, 1 failed, 0 skipped, 121 s of 300 s")
    assert lines[1:] == ["  failed with seed 8: tests.x::kill"]


def audit_report(*packages: dict[str, object]) -> str:
    return json.dumps({"dependencies": list(packages), "fixes": []})


CLEAN = {"name": "a", "version": "1", "vulns": []}
UNKNOWN = {"name": "b", "skip_reason": "not found"}
WEAK = {"name": "c", "version": "2", "vulns": [{"id": "CVE-0000-1", "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([CLEAN], 0, "1 packages, no known vulnerability"),
        ([CLEAN, WEAK], 1, "c 2: CVE-0000-1, fixed in 3"),
        ([WEAK, UNKNOWN], 1, "c 2: CVE-0000-1, fixed in 3"),
        ([CLEAN, UNKNOWN], 1, "not looked up"),
        ([UNKNOWN], 0, "nothing was audited"),
    ],
)
def test_an_audit_never_calls_a_package_clean_that_nobody_looked_up(
    packages: list[dict[str, object]], code: int, said: str
) -> None:
    audit = tool("audit")
    given, lines = audit.verdict([audit.parse(audit_report(*packages))])
    assert given == code
    assert any(said in line for line in lines)
