"""Pages for operators are followed to the letter: every command is typed, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from cloister.cli.main import main
from cloister.core.settings import load_settings
from cloister.enclave.keyrelease.folder import KeeperFolder
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(300)

PAGES: Final = {"keys-and-audits": 11, "release-a-figure": 4, "release-keys": 5, "secure-inference": 3}
"""Each page with how many blocks of commands it has at least."""
_BLOCK = re.compile(r"```(sh|text)\n(.*?)```", re.DOTALL)
_ASKING: Final = '; echo "exit code $?"'


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Each block of commands with what the page says they print, empty where it says nothing."""
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    found = [(match[1], match[2]) for match in _BLOCK.finditer(text)]
    for (kind, text), (following, shown) in pairwise([*found, ("sh", "")]):
        if kind == "sh":
            yield text, shown if following == "text" else ""


def type_in(line: str) -> str:
    """Type one command; those of cloister run in this process. One that fails has to say so on the page."""
    command, asking, _ = line.partition(_ASKING)
    if Path("receipt.json").exists():
        command = command.replace("JOB-ID", json.loads(Path("receipt.json").read_bytes())["body"]["job_id"])
    if Path("keeper").exists() and "DATA-KEY" in command:
        known = KeeperFolder(Path("keeper"), load_settings({})).book.all_keys()
        command = command.replace("DATA-KEY", known[0].data_key)
    if not command.startswith("cloister "):
        shell = ["bash", "-c", command]
        return subprocess.run(shell, capture_output=True, text=True, check=True, timeout=60).stdout
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as ended:
        main(shlex.split(command)[1:])
    shown = printed.getvalue()
    assert asking or ended.value.code == 0, shown
    return shown + (f"exit code {ended.value.code}\n" if asking else "")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_prints_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    followed = [(typed, "".join(map(type_in, typed.splitlines())), shown) for typed, shown in blocks(page)]
    assert len(followed) >= PAGES[page]
    for typed, printed, promised in followed:
        rest = iter([" ".join(line.split()) for line in printed.splitlines()])
        for line in promised.splitlines():
            pattern = re.compile(re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*"))
            assert any(pattern.fullmatch(one) for one in rest), f"{typed}\n{line}\n---\n{printed}"


def test_the_page_goes_from_a_root_to_a_revocation_and_from_an_export_to_a_report() -> None:
    typed = " ".join(commands for commands, _ in blocks("keys-and-audits"))
    order = re.findall(r"cloister ((?:pki|audit) \w+)", typed)
    assert list(dict.fromkeys(order)) == [
        *("pki root", "pki ca", "pki key", "pki issue", "pki install"),
        *("audit export", "audit chain", "audit report", "audit log", "pki revoke", "pki crl"),
    ]
