"""The package itself: light to import, and its verifier's half stands on two libraries."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cloister

ROOT = Path(__file__).resolve().parents[2]


def run(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    return ended.stdout.strip()


def test_the_version_is_the_distributions() -> None:
    assert cloister.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_importing_the_package_takes_under_50_ms_and_loads_no_room() -> None:
    program = (
        "import sys, time; start = time.process_time(); import cloister; took = time.process_time() - start\n"
        "print(took, *[name for name in sys.modules if name.startswith('cloister.')])"
    )
    runs = [run(program).split() for _ in range(3)]
    assert min(float(words[0]) for words in runs) < 0.050
    assert all(len(words) == 1 for words in runs)


def test_core_stands_on_cryptography_and_pydantic_alone() -> None:
    heavy = [
        "sqlalchemy",
        "structlog",
        "pydantic_settings",
        "yaml",
        "numpy",
        "torch",
        "nvflare",
        "dp_accounting",
    ]
    program = (
        "import sys\n"
        f"for name in {heavy!r}: sys.modules[name] = None\n"
        "import cloister.core; print(cloister.core.canonicalize({'a': 1}))"
    )
    assert run(program) == "b'{\"a\":1}'"


def test_a_name_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        cloister.absent  # noqa: B018
    assert "orchestrate" in dir(cloister)
