"""``cloister witness``: from a new witness to a log whose older copy is refused by what the witness holds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cloister.core.keys import EphemeralKeyStore, PublicKey
from cloister.evidence.checkpoint import parse_checkpoint, verify_cosignature
from cloister.evidence.witness.book import CheckpointBook
from tests.cli.conftest import Cloister
from tests.evidence.witness.forest import ORIGIN, Tree

TREE = Tree()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CLOISTER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def east(cloister: Cloister) -> Path:
    Path("north.pem").write_text(TREE.signer.public_key.pem)
    assert cloister("witness", "init", "east", "--name", "east").code == 0
    assert cloister("witness", "follow", "east", "--log", ORIGIN, "--key", "north.pem").code == 0
    return Path("east")


def request(old: int, new: int, tree: Tree = TREE) -> str:
    Path("request").write_text(tree.request(old, new).encode())
    return "request"


def test_a_growing_log_is_cosigned_into_a_file_and_on_the_screen(cloister: Cloister, east: Path) -> None:
    assert cloister("witness", "cosign", east, request(0, 4), "--out", "north.note").code == 0
    printed = cloister("witness", "cosign", east, request(4, 9))
    assert printed.code == 0
    key = PublicKey.from_pem((east / "witness.pem").read_text())
    for text, size in ((Path("north.note").read_text(), 4), (printed.out, 9)):
        checkpoint = parse_checkpoint(text)
        assert checkpoint.size == size
        verify_cosignature(checkpoint, "east", key)
    shown = cloister("witness", "show", east, "--json").json()
    assert shown == {
        "name": "east",
        "logs": [
            {
                "log": ORIGIN,
                "size": 9,
                "keys": [TREE.signer.public_key.key_id],
                "contradictions": 0,
                "unproven": 0,
            }
        ],
    }


def test_a_note_that_could_not_be_written_can_be_asked_for_again(cloister: Cloister, east: Path) -> None:
    ended = cloister("witness", "cosign", east, request(0, 4), "--out", "published/north.note")
    assert (ended.code, "published" in ended.err) == (5, True)
    assert cloister("witness", "show", east, "--json").json()["logs"][0]["size"] == 0  # type: ignore[index]
    Path("published").mkdir()
    key = PublicKey.from_pem((east / "witness.pem").read_text())
    for _ in range(2):
        # The same request: the first note may have been lost on its way.
        ended = cloister("witness", "cosign", east, "request", "--out", "published/north.note")
        assert ended.code == 0, ended.err
        verify_cosignature(parse_checkpoint(Path("published/north.note").read_text()), "east", key)
        Path("published/north.note").unlink()
    assert cloister("witness", "cosign", east, "request", "--out", "published").code == 5


def test_a_contradiction_ends_with_1_and_is_shown(cloister: Cloister, east: Path) -> None:
    cloister("witness", "cosign", east, request(0, 9))
    for size in (12, 9):
        ended = cloister("witness", "cosign", east, request(9, size, TREE.forked(3)), "--json")
        assert ended.code == 1
        assert "evidence.log_inconsistent" in ended.out + ended.err
    assert cloister("witness", "show", east).out.splitlines()[-1].split()[-2:] == ["1", "1"]
    assert len(CheckpointBook(east / "held").conflicts(ORIGIN)) == 1
    assert len(CheckpointBook(east / "held").unproven(ORIGIN)) == 1


def test_a_request_from_another_size_says_which_one_is_needed(cloister: Cloister, east: Path) -> None:
    cloister("witness", "cosign", east, request(0, 9))
    ended = cloister("witness", "cosign", east, request(4, 12))
    assert ended.code == 1
    assert "from size 9" in ended.err


def test_a_log_that_is_not_followed_is_refused(cloister: Cloister, east: Path) -> None:
    ended = cloister("witness", "cosign", east, request(0, 3, Tree(origin="cloister/site/south")))
    assert ended.code == 1
    assert "doesn't follow" in ended.err


def test_a_witness_is_not_made_twice(cloister: Cloister, east: Path) -> None:
    before = (east / "witness.pem").read_bytes()
    ended = cloister("witness", "init", east, "--name", "east")
    assert ended.code == 5
    assert (east / "witness.pem").read_bytes() == before


def test_a_witness_whose_key_store_was_not_to_be_used_is_made_on_the_next_try(cloister: Cloister) -> None:
    Path("cloister.toml").write_text('key_passphrase_file = "absent"\n')
    assert cloister("witness", "init", "east", "--name", "east").code != 0
    assert "cloister witness init" in cloister("witness", "show", "east").err
    Path("cloister.toml").unlink()
    assert cloister("witness", "init", "east", "--name", "east").code == 0


@pytest.mark.parametrize("name", ["", "two words", "../up", "a/b"])
def test_a_witness_needs_a_partys_name(cloister: Cloister, name: str) -> None:
    assert cloister("witness", "init", "east", "--name", name).code == 1
    assert not Path("east").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("follow", "nobody", "--log", ORIGIN, "--key", "north.pem"),
        ("cosign", "nobody", "request"),
        ("show", "nobody"),
    ],
)
def test_where_there_is_no_witness_one_is_told_how_to_make_it(
    cloister: Cloister, words: tuple[str, ...]
) -> None:
    Path("north.pem").write_text(TREE.signer.public_key.pem)
    request(0, 3)
    ended = cloister("witness", *words)
    assert ended.code == 1
    assert "cloister witness init" in ended.err


def test_a_log_needs_a_logs_name_and_a_public_key(cloister: Cloister, east: Path) -> None:
    assert cloister("witness", "follow", east, "--log", "elsewhere", "--key", "north.pem").code == 1
    Path("no.pem").write_text("no key")
    assert cloister("witness", "follow", east, "--log", ORIGIN, "--key", "no.pem").code == 2


def test_what_is_no_request_is_refused(cloister: Cloister, east: Path) -> None:
    for content in (b"", b"\xff\xfe", TREE.head(3).encode().encode()):
        Path("request").write_bytes(content)
        assert cloister("witness", "cosign", east, "request").code == 1
    assert cloister("witness", "cosign", east, "absent").code == 2


def test_an_owner_who_changed_its_key_is_followed_by_both(cloister: Cloister, east: Path) -> None:
    newer = Tree(leaves=TREE.leaves, signer=EphemeralKeyStore().generate("newer"))
    Path("newer.pem").write_text(newer.signer.public_key.pem)
    cloister("witness", "cosign", east, request(0, 4))
    assert cloister("witness", "cosign", east, request(4, 9, newer)).code == 1
    assert cloister("witness", "follow", east, "--log", ORIGIN, "--key", "newer.pem").code == 0
    assert cloister("witness", "cosign", east, request(4, 9, newer)).code == 0


def test_what_a_witness_holds_refuses_the_older_copy_of_a_real_log(
    cloister: Cloister, lived_in: Path, finished: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(lived_in, work)
    site = next((work / "parties" / "site").iterdir())
    assert cloister("witness", "init", "east", "--name", "east", "--trust", finished / "trust").code == 0
    origin = f"cloister/site/{site.name}"
    followed = cloister("witness", "show", "east", "--json").json()["logs"]
    assert origin in {one["log"] for one in followed}  # type: ignore[attr-defined]
    of_site = ("--party", f"site/{site.name}", "--workspace", work)
    asked = ("log", "proof", *of_site)
    assert cloister(*asked, "--from", "0", "--out", "north.request").code == 0
    assert cloister("witness", "cosign", "east", "north.request", "--out", tmp_path / "north.note").code == 0
    shutil.copy(site / "log.sqlite", "backup")
    (tmp_path / "outside").mkdir()
    shutil.copy("north.note", tmp_path / "outside")
    assert cloister("log", "tiles", *of_site, "--out", "tiles").code == 0
    held = parse_checkpoint((tmp_path / "north.note").read_text()).size
    assert cloister(*asked, "--from", str(held), "--out", "north.request").code == 0
    published = tmp_path / "outside" / "north.note"
    assert cloister("witness", "cosign", "east", "north.request", "--out", published).code == 0
    assert parse_checkpoint(published.read_text()).size > held
    for file in site.glob("log.sqlite*"):
        file.unlink()
    shutil.copy("backup", site / "log.sqlite")
    Path("cloister.toml").write_text('held_checkpoints = "outside"\n')
    ended = cloister(*asked, "--from", "0")
    assert ended.code == 5
    assert "older copy" in ended.err
