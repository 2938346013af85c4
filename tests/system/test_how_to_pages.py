"""The how-to pages are followed to the letter: their files, as printed, make jobs that run and verify."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from cloister.cli.main import main
from cloister.health import load_source

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PAGE = (HOW_TO / "bring-your-own-data.md").read_text()
SITES = {"north": 150, "south": 100, "test": 120}


def patients(count: int, draw: random.Random) -> Iterator[str]:
    """Invented visits in which age and pressure tell the disease."""
    for _ in range(count):
        ill = draw.random() < 0.5
        age = int(min(110, max(18, draw.gauss(65 if ill else 40, 10))))
        pressure = draw.gauss(160 if ill else 120, 12)
        yield f"{age},{pressure:.0f},{draw.choice(['female', 'male'])},{'yes' if ill else 'no'}"


def visits(count: int, draw: random.Random) -> Iterator[str]:
    """As many rows, two of them each patient's."""
    for number, row in enumerate(patients(count, draw)):
        yield f"N-{number // 2:04},{row}"


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """The files that the page on data prints, their hashes still to be put in."""
    folder = tmp_path / "mine"
    (folder / "tables").mkdir(parents=True)
    found = re.findall(r"## \d\. .*?`mine/([\w/.]+)`.*?```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 4
    for name, content in found:
        (folder / name).write_text(content)
    draw = random.Random(1)
    for name, count in SITES.items():
        write_rows(folder, name, header("age"), patients(count, draw))
    return folder


def header(first: str) -> str:
    """The header line on the page that begins with a column."""
    found = re.search(rf"^{first},.*$", PAGE, re.MULTILINE)
    assert found is not None
    return found[0]


def write_rows(folder: Path, name: str, first: str, rows: Iterator[str]) -> None:
    (folder / "tables" / f"{name}.csv").write_text("\n".join([first, *rows]) + "\n")


def filled_in(folder: Path) -> Path:
    """The same folder, with what ``cloister data`` says of its tables put in."""
    with pytest.raises(SystemExit) as ended:
        main(["data", str(folder / "job.yaml"), "--data", str(folder / "tables")])
    assert ended.value.code == 0
    data = load_source("csv", data_dir=folder / "tables")
    for name in ("manifest.yaml", "request.yaml"):
        text = (folder / name).read_text()
        for site, records in data.sites.items():
            text = text.replace(site.upper(), records.dataset_sha256)
        text = text.replace("BOUNDS", data.bounds_sha256).replace("TESTSET", data.test.sha256)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def mine(blank: Path) -> Path:
    """The folder that the page on data builds."""
    return filled_in(blank)


def by_subject(folder: Path) -> None:
    """Follow the section on tables in which a person has several rows."""
    section = PAGE.split("## 7. ")[1]
    (declared,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    says = re.search(r"`(unit: \w+)` instead of `(unit: \w+)`", section)
    assert says is not None
    schema, manifest = folder / "tables" / "schema.yaml", folder / "manifest.yaml"
    schema.write_text(schema.read_text() + declared)
    assert says[2] in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(says[2], says[1]))
    draw = random.Random(1)
    for name in ("north", "south"):
        write_rows(folder, name, header("patient"), visits(SITES[name], draw))


def run(folder: Path) -> int:
    arguments = ["run", str(folder / "job.yaml"), "--data", str(folder / "tables"), "--quiet"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--workspace", str(folder / "work")])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def verified(folder: Path) -> dict[str, object]:
    """The summary in the receipt of the one job, which is verified first."""
    (receipt,) = (folder / "work" / "jobs").glob("*/receipt.json")
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(receipt), "--trust", str(receipt.parent / "trust"), "--quiet"])
    assert ended.value.code == 0
    found: dict[str, object] = json.loads(receipt.read_bytes())["body"]["summary"]
    return found


def test_ones_own_tables_train_a_model_whose_receipt_verifies(mine: Path) -> None:
    assert run(mine) == 0
    verified(mine)


def test_where_patients_have_several_rows_the_receipt_says_that_they_are_protected(
    blank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_subject(blank)
    assert run(filled_in(blank)) == 0
    privacy = verified(blank)["privacy"]
    assert isinstance(privacy, dict)
    assert {site: one["unit"] for site, one in privacy.items()} == {"north": "subject", "south": "subject"}
    assert "subjects" in capsys.readouterr().out


def test_a_table_that_changed_since_the_manifest_is_refused(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = mine / "tables" / "north.csv"
    table.write_text(table.read_text() + "50,130,male,no\n")
    assert run(mine) == 3
    assert not list((mine / "work").glob("jobs/*"))
    assert "north" in capsys.readouterr().err


def test_ones_own_model_is_found_by_its_entry_point(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (HOW_TO / "bring-your-own-model.md").read_text()
    source = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    points = re.search(r'\[project\.entry-points\."(.*?)"\]\n(\S+) = "(.*?)"', page)
    assert source is not None
    assert points is not None
    site_packages = tmp_path / "site-packages"
    (site_packages / "clinicnets").mkdir(parents=True)
    (site_packages / "clinicnets" / "__init__.py").write_text(source[1])
    installed = site_packages / "clinicnets-1.0.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: clinicnets\nVersion: 1.0.0\n")
    (installed / "entry_points.txt").write_text(f"[{points[1]}]\n{points[2]} = {points[3]}\n")
    monkeypatch.syspath_prepend(str(site_packages))
    importlib.invalidate_caches()

    job, request = mine / "job.yaml", mine / "request.yaml"
    named = "{architecture: clinic-net, parameters: {width: 8}}"
    assert named in page
    job.write_text(job.read_text().replace("{architecture: mlp}", named))
    asked = request.read_text().replace("architecture: mlp", "architecture: clinic-net")
    request.write_text(asked.replace("hyperparameters: {}", "hyperparameters: {width: 8}"))
    assert run(mine) == 0


def test_the_section_on_witnesses_is_followed_line_by_line(
    blank: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three jobs under the rule that a witness has seen every log, and a party that changes its key."""
    monkeypatch.chdir(blank.parent)
    manifest, job, request = (blank / name for name in ("manifest.yaml", "job.yaml", "request.yaml"))
    rule = "without_outside_checkpoint: "
    manifest.write_text(manifest.read_text().replace(f"{rule}allow", f"{rule}refuse"))
    job.write_text(job.read_text().replace("target_epsilon: 2.0", "target_epsilon: 1.4"))
    request.write_text(request.read_text().replace("epsilon: 2.0", "epsilon: 1.4"))
    filled_in(blank)
    again = ["run", "mine/job.yaml", "--data", "mine/tables", "--quiet"]
    assert typed(*again) == 0
    section = PAGE.split("## 8. ")[1]
    blocks = re.findall(r"```(sh|toml)\n(.*?)```", section, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "sh", "toml", "sh", "sh", "toml", "sh", "sh"]
    for kind, block in blocks[:2]:
        assert kind == "sh"
        follow(block)
    # Nobody off this machine has seen the logs so far.
    assert typed(*again) == 5
    for kind, block in blocks[2:6]:
        if kind == "toml":
            with Path("cloister.toml").open("a") as settings:
                settings.write(block)
        else:
            follow(block)
    shutil.move(next(Path("cloister-work/jobs").iterdir()), "first-job")
    assert "accepted" in follow(blocks[6][1])
    assert typed("log", "rotate-key", "--party", "site/north") == 0
    capsys.readouterr()
    assert typed(*again) == 1
    assert "cloister witness follow east --log cloister/site/north" in capsys.readouterr().err
    follow(blocks[7][1])
    assert typed(*again) == 0


def test_the_page_on_sealing_tables_is_followed_to_an_accepted_receipt(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    monkeypatch.chdir(mine.parent)
    blocks = re.findall(r"```sh\n(.*?)```", (HOW_TO / "seal-a-table.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    assert "contents       test-data" in follow(blocks[0])
    assert "accepted" in follow(blocks[1])
    assert sorted(path.name for path in Path("node").iterdir()) == [
        "north.sealed",
        "schema.yaml",
        "south.sealed",
        "test.csv",
    ]


@contextmanager
def service(block: str, socket: Path) -> Iterator[None]:
    """A command that serves, in a terminal of its own, until it is asked to stop."""
    words = shlex.split(block)
    assert words.pop(0) == "cloister"
    process = subprocess.Popen([sys.executable, "-m", "cloister.cli.main", *words], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if socket.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        assert socket.exists(), block
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_the_page_on_sealed_packages_is_followed_from_a_model_to_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    (tmp_path / "examples").symlink_to(HOW_TO.parents[1] / "examples")
    monkeypatch.chdir(tmp_path)
    page = (HOW_TO / "serve-a-sealed-package.md").read_text()
    found = re.findall(r"```(sh|text)\n(.*?)```", page, re.DOTALL)
    blocks = [block for kind, block in found if kind == "sh"]
    promised = {before[1]: shown for before, (kind, shown) in pairwise([*found, ("", "")]) if kind == "text"}
    assert len(blocks) == 7
    known: dict[str, str] = {}

    def filled_in(block: str) -> str:
        for name, value in known.items():
            block = block.replace(name, value)
        return block

    def prints(block: str) -> str:
        printed = follow(filled_in(block))
        rest = iter([" ".join(line.split()) for line in printed.splitlines()])
        for line in promised.get(block, "").splitlines():
            pattern = re.compile(re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*"))
            assert any(pattern.fullmatch(one) for one in rest), f"{line}\n---\n{printed}"
        return printed

    def value(printed: str, name: str) -> str:
        (line,) = (line for line in printed.splitlines() if line.startswith(name))
        return line.removeprefix(name).strip()

    sealed = prints(blocks[0])
    known |= {"DATA-KEY": value(sealed, "data key"), "PACKAGE": value(sealed, "package sha256")}
    known["MEASUREMENT"] = value(prints(blocks[1]), "measurement")
    known["POLICY-ID"] = value(prints(blocks[2]), "policy id")
    with service(filled_in(blocks[3]), Path("keys.sock")):
        prints(blocks[4])
        with service(filled_in(blocks[5]), Path("inference.sock")):
            prints(blocks[6])


def typed(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def follow(block: str) -> str:
    """Type a block of commands into a shell; every one has to end well."""
    folder = Path.cwd() / "bin"
    folder.mkdir(exist_ok=True)
    command = folder / "cloister"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cloister.cli.main "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", block],
        env={**os.environ, "PATH": f"{folder}{os.pathsep}{os.defpath}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout
