"""The command as a person or a program meets it: what was typed, what came back, what is left on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from cloister.cli.main import main
from tests.system.example_job import FAST, ExampleJob


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Exit code.
        out: What it wrote on stdout.
        err: What it wrote on stderr.
    """

    code: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        """The only JSON object on stdout."""
        return cast(dict[str, object], json.loads(self.out))


Cloister = Callable[..., Ended]


@pytest.fixture
def cloister(capsys: pytest.CaptureFixture[str]) -> Cloister:
    """Runs a command in this process."""

    def run(*words: str | Path) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        return Ended(cast(int, ended.value.code), shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which a small job was finished before."""
    folder = tmp_path_factory.mktemp("lived-in")
    job = ExampleJob(job={**FAST, "privacy.target_epsilon": 0.5}).write(folder)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(job), "--workspace", str(folder / "work"), "--quiet"])
    assert ended.value.code == 0
    return folder / "work"


@pytest.fixture
def finished(lived_in: Path) -> Path:
    """The folder of that job."""
    (folder,) = (lived_in / "jobs").iterdir()
    return folder


def content(folder: Path) -> Mapping[str, str]:
    """Every file below a folder, with the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
