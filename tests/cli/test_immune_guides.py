"""The guides for who runs a watched service are followed to the letter, on a service's state (PIC-R28.1)."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
import yaml

from cloister.cli.pic import main
from cloister.immune import CallBlocked, ImmuneSettings, monitor
from cloister.immune.operating import Operator
from cloister.immune.protection import Protection
from tests.conftest import ROOT
from tests.immune.scene import SteppingClock

pytestmark = pytest.mark.timeout(300)

GUIDES: Final = {"respond-to-an-incident": 10, "harden-immune": 6, "upgrade-immune": 7}
"""Each guide with how many blocks of commands it has at least."""
NAME: Final = "ward:export"
_BLOCK: Final = re.compile(r"```(sh|text)\n(.*?)```", re.DOTALL)


@monitor(name=NAME)
def export(ids: list[int]) -> int:
    return sum(ids)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the state of a service that was attacked, had a detector promoted and stopped the second
    attack; another candidate is left."""
    monkeypatch.chdir(tmp_path)
    Path("state").mkdir(mode=0o700)
    settings = {
        "cellagent": {"sampling": "every-call"},
        "effector": {"enforcing": [NAME], "contain_seconds": 0.5},
        "storage": {"directory": "state"},
        "egress": {"enabled": False},
    }
    Path("pic.yaml").write_text(yaml.safe_dump(settings))
    chance, clock = random.Random(5), SteppingClock()
    given = ImmuneSettings.model_validate(settings)
    with Protection(given, monotonic=clock).start() as protection, Operator(Path("state"), "x") as operator:
        operator.approve(NAME)
        protection.brain.anchors.refresh(NAME)
        for _ in range(500):
            export([chance.randrange(1000) for _ in range(chance.randint(1, 6))])
        for _ in range(60):
            export(list(range(400)))
        promoted = operator.promote_passed(NAME)
        protection.brain.effector.release(NAME, clock())
        blocked = 0
        for _ in range(60):
            with contextlib.suppress(CallBlocked):
                export(list(range(400)))
                continue
            blocked += 1
        assert promoted
        assert blocked
        for one in promoted[1:]:
            operator.reject(one.detector, "one is enough for this page")
    with Operator(Path("state"), "tester") as operator:
        from cloister.immune.keeping import pattern_of
        from cloister.immune.observation import Entered, Observed, Score

        score = Score(96.0, 1e-6, "errors", 9.0)
        left, _ = operator.registry.store_detector(NAME, pattern_of(NAME, score), 80.0, score.reason)
        ordinary = [Observed(Entered(float(one), 1, "a:b", 1, 0, True), 0.01, False) for one in range(100)]
        operator.registry.validate(left.id, ordinary, lambda _: Score(1.0, 0.5, "errors"))
    return tmp_path


def type_in(line: str) -> str:
    """Type one command; `pic` runs in this process."""
    if not re.match(r"pic\b", line):
        python = Path(sys.executable).parent
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "PATH": f"{python}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stdout
    words, into, file = line.partition(" > ")
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        main(shlex.split(words)[1:])
    assert ended.value.code == 0, f"{line}\n{printed.getvalue()}"
    if into:
        Path(file).write_text(printed.getvalue())
    return printed.getvalue()


def commands(block: str) -> list[str]:
    """The commands of a block; what stands between ``<<'END'`` and ``END`` belongs to its command."""
    joined = re.sub(
        r"[^\n]*<<'END'\n.*?\nEND", lambda one: one[0].replace("\n", "\0"), block, flags=re.DOTALL
    )
    return [one.replace("\0", "\n") for one in joined.splitlines()]


@pytest.mark.parametrize("guide", GUIDES)
def test_every_command_of_a_guide_does_what_the_guide_says(service: Path, guide: str) -> None:
    text = (ROOT / "docs" / "how-to" / f"{guide}.md").read_text(encoding="utf-8")
    blocks = [(found[1], found[2]) for found in _BLOCK.finditer(text)]
    assert sum(kind == "sh" for kind, _ in blocks) >= GUIDES[guide]
    for (kind, typed), (following, shown) in pairwise([*blocks, ("sh", "")]):
        if kind != "sh":
            continue
        printed = "".join(map(type_in, commands(typed)))
        for line in shown.splitlines() if following == "text" else ():
            wanted = re.escape(line).replace(r"\.\.\.", ".*")
            assert re.search(f"^{wanted}$", printed, re.MULTILINE), f"{typed}\n{line}\n---\n{printed}"


@pytest.mark.parametrize("guide", GUIDES)
def test_what_a_guide_points_to_is_there(guide: str) -> None:
    page = ROOT / "docs" / "how-to" / f"{guide}.md"
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


def test_the_readme_points_to_the_guides() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/how-to/{guide}.md" in text for guide in GUIDES)


def test_new_releases_of_what_is_pinned_are_proposed() -> None:
    """PIC-R25.3: as far as a file of the project can have it."""
    said = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))
    places = {(one["package-ecosystem"], one["directory"]) for one in said["updates"]}
    assert places == {("pip", "/requirements"), ("github-actions", "/")}
