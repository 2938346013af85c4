"""The page on verifying is followed to the letter, in an environment with the base installation only."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path

import pytest

from cloister.cli.main import main
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.segments import FileSink, OpeningKey, SegmentWriter
from cloister.evidence.verifier import CHECK_IDS
from tests.evidence.authority import Authority, make_authority
from tests.system.bare_environment import ROOT, install
from tests.system.conftest import MainJob

pytestmark = pytest.mark.timeout(300)
"""The whole page is some fifteen commands, each in a process of its own."""

PAGE = ROOT / "docs" / "how-to" / "verify-a-receipt.md"
_BLOCK = re.compile(r"```(sh|text)\n(.*?)```", re.DOTALL)
_ASK = re.compile(r"curl .* --data-binary @(\S+) -o (\S+) https://\S+")
_INSTALL = re.compile(r"(\S+)/bin/pip install (.+)")
_ELLIPSIS = re.compile(r"(?:\\ )*\\\.\\\.\\\.")


def blocks() -> Iterator[tuple[str, str]]:
    """Each block of commands with what the page says they print, empty where it says nothing."""
    found = [(match[1], match[2]) for match in _BLOCK.finditer(PAGE.read_text())]
    for (kind, text), (following, shown) in pairwise([*found, ("sh", "")]):
        if kind == "sh":
            yield text, shown if following == "text" else ""


def follow(block: str, folder: Path, authority: Authority) -> str:
    """Type a block of commands; what would be fetched from elsewhere is linked, or answered here."""
    printed, commands = [], ""
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}", "HOME": str(folder)}

    def type_in() -> None:
        done = subprocess.run(
            ["bash", "-c", commands],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stderr == ""
        printed.append(done.stdout)

    for line in block.splitlines(keepends=True):
        installing, asking = _INSTALL.fullmatch(line.strip()), _ASK.fullmatch(line.strip())
        if not installing and not asking:
            commands += line
            continue
        type_in()
        commands = ""
        if installing:
            install(*(one.removeprefix("./") for one in shlex.split(installing[2])), folder / installing[1])
        if asking:
            (folder / asking[2]).write_bytes(authority.answer((folder / asking[1]).read_bytes()))
    type_in()
    return "".join(printed)


def hand_over_more(main_job: MainJob, folder: Path) -> None:
    """Give the reader a site's tiles, an export of the job, and a segment with what was kept outside."""
    workspace = shutil.copytree(main_job.workspace, folder / "work")
    job = main_job.outcome.job_id
    for words in (
        ["log", "tiles", "--party", "site/lakeview", "--out", folder / "tiles"],
        ["audit", "export", "--job", job, "--recipient", "reader", "--out", folder / "export.json"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, words), "--workspace", str(workspace)])
        assert ended.value.code == 0
    changed = ["log", "rotate-key", "--party", "site/lakeview", "--json", "--workspace", str(workspace)]
    shown = io.StringIO()
    with pytest.raises(SystemExit) as ended, redirect_stdout(shown):
        main(changed)
    assert ended.value.code == 0
    (folder / "lakeview-new.pem").write_text(json.loads(shown.getvalue())["public_key"])
    (folder / "audit").mkdir()
    (folder / "trust" / "enclave").mkdir()
    signer, outside = EphemeralKeyStore().generate("worker"), FileSink(folder / "sink.jsonl")
    (folder / "trust" / "enclave" / "worker.pem").write_text(signer.public_key.pem)
    sealing = OpeningKey.generate().sealing_key
    writer = SegmentWriter(folder / "audit", "immune", signer, sealing, sinks=[outside])
    writer.append({"call": 1})
    writer.close()
    outside.close()


@pytest.fixture(scope="module")
def followed(main_job: MainJob, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Every block of the page: what was typed, what was printed, what the page promises."""
    folder = tmp_path_factory.mktemp("reader")
    given = main_job.outcome.receipt.parent
    for name in ("receipt.json", "model.safetensors"):
        shutil.copy(given / name, folder)
    shutil.copytree(main_job.outcome.trust, folder / "trust")
    hand_over_more(main_job, folder)
    authority = make_authority(folder / "authority")
    (folder / "authority-root.pem").write_bytes(authority.root)
    return [(commands, follow(commands, folder, authority), shown) for commands, shown in blocks()]


def test_every_command_of_the_page_prints_what_the_page_says(followed: list[tuple[str, str, str]]) -> None:
    assert followed
    for commands, printed, promised in followed:
        rest = iter([" ".join(line.split()) for line in printed.splitlines()])
        for line in promised.splitlines():
            pattern = re.compile(_ELLIPSIS.sub(".*", re.escape(" ".join(line.split()))))
            assert any(pattern.fullmatch(one) for one in rest), f"{commands}\n{line}\n---\n{printed}"


def test_only_epsilon_is_not_run_with_the_base_installation(followed: list[tuple[str, str, str]]) -> None:
    printed = next(one for _, one, _ in followed if one)
    words = [line.split()[:2] for line in printed.splitlines()[2:]]
    assert {name: word for name, word in words if name in CHECK_IDS and word != "passed"} == {
        "epsilon": "NOT"
    }
    assert {name for name, _ in words} >= set(CHECK_IDS)


def test_the_page_says_of_every_check_what_it_means_in_its_order() -> None:
    table = PAGE.read_text().partition("| check | passed means")[2].partition("\n\n")[0]
    explained = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert tuple(explained) == CHECK_IDS
