"""``docs/tutorial/protect-a-service.md`` works as written: over real HTTP, with real processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs/tutorial/protect-a-service.md").read_text()
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
LATE = 300.0


class Service:
    """The tutorial's service, and a shell beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "records.py", "0"],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[-1])

    def run(self, line: str) -> str:
        """What a line of the tutorial prints in a shell, with the real port for the tutorial's."""
        done = subprocess.run(
            ["bash", "-c", line.replace("8080", str(self.port))],
            cwd=self.folder,
            env={**self.environment, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=LATE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        # Not an interrupt: whoever runs this in a shell's background has those ignored.
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "bin").mkdir()
    for name, words in {"pic": "-m cloister.cli.pic", "python": ""}.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        program.chmod(0o700)
    running = Service(tmp_path)
    yield running
    running.close()


def test_the_tutorial_has_the_files_that_it_speaks_of() -> None:
    assert set(FILES) == {"records.py", "store.py", "pic.yaml", "traffic.py"}


@pytest.mark.timeout(600)
def test_a_service_with_one_import_line_learns_flags_and_blocks_an_attack_over_http(service: Service) -> None:
    """The text's own lines, each once, in the text's order."""
    said = {line: service.run(line) for line in LINES}
    assert counted(said["python traffic.py ordinary 8080 3000"]) == {"200": 3000}
    assert counted(said["python traffic.py attack 8080 300"]) == {"200": 300}
    assert re.search(r"size \S+x median, p=", re.sub(r"\s+", " ", said["pic detectors list"]))
    blocked = counted(said["python traffic.py attack 8080 600"]).get("403", 0)
    assert blocked > 300, said
    assert said["pic logs export decisions.jsonl"].startswith("accepted: ")
    entries = [json.loads(line) for line in (service.folder / "decisions.jsonl").read_text().splitlines()]
    assert sum(one["action"] == "block" for one in entries) >= blocked
    assert {"promotion", "approve"} <= {one["event_type"] for one in entries}
    service.run("pic off")
    time.sleep(0.4)
    assert counted(service.run("python traffic.py attack 8080 20")) == {"200": 20}


def counted(said: str) -> dict[str, int]:
    """How many answers of each status some traffic got."""
    return {status: int(number) for status, number in re.findall(r"(\d+): (\d+)", said)}


def test_it_says_nothing_that_the_shell_does_not_know() -> None:
    assert {line.split()[0] for line in LINES} == {"python", "pic", "until"}
    assert len(set(LINES)) == len(LINES), "each line is run once"
