"""``cloister pki``: from a root to a revocation list, as a person would do it."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister.cli.main import main
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.errors import TrustError
from cloister.evidence.predicates import Role
from cloister.evidence.trust import AuthorityEntry, Trust
from cloister.workflow.credentials import credentials_of
from cloister.workflow.workspace import open_workspace


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CLOISTER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class Shell:
    """Types commands and reads what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["pki", *words])
        return int(left.value.code or 0), self._capsys.readouterr().out

    def json(self, *words: str) -> dict[str, object]:
        code, out = self(*words, "--json")
        assert code == 0, out
        loaded = json.loads(out)
        assert isinstance(loaded, dict)
        return loaded


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def set_up(shell: Shell, algorithm: str = "ed25519") -> EphemeralKeyStore:
    store = EphemeralKeyStore()
    Path("north.pem").write_text(store.generate("north").public_key.pem)
    shell.json("root", "root", "--name", "Example root", "--algorithm", algorithm)
    shell.json("ca", "sites", "--root", "root", "--name", "Example sites", "--role", "site")
    return store


ISSUE = ("issue", "sites", "--role", "site", "--party", "north", "--key", "north.pem", "--out", "chain.pem")


def trusting(*lists: str) -> Trust:
    pem = Path("root/chain.pem").read_bytes()
    return Trust(
        [],
        authorities=[AuthorityEntry(Role.SITE, "example", pem)],
        revocations=[Path(name).read_bytes() for name in lists],
    ).with_credentials([Path("chain.pem").read_text()])


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384"])
def test_a_party_is_certified_believed_and_revoked(shell: Shell, algorithm: str) -> None:
    store = set_up(shell, algorithm)
    issued = shell.json(*ISSUE, "--days", "10")
    assert (issued["role"], issued["party"]) == ("site", "north")
    now = datetime.now(UTC) + timedelta(seconds=1)
    assert trusting().key(Role.SITE, "north", at=now) == store.load("north").public_key
    revoked = shell.json("revoke", "sites", "chain.pem", "--reason", "key-compromise")
    assert revoked["serial"] == issued["serial"]
    shell.json("crl", "root", "--out", "root.crl")
    made = shell.json("crl", "sites", "--out", "sites.crl", "--days", "3")
    assert made["revoked"] == [issued["serial"]]
    with pytest.raises(TrustError) as caught:
        trusting("root.crl", "sites.crl").key(Role.SITE, "north", at=now)
    assert caught.value.code == "evidence.certificate_revoked"


def test_show_tells_what_a_file_or_folder_is(shell: Shell) -> None:
    set_up(shell)
    issued = shell.json(*ISSUE)
    shell.json("crl", "sites", "--out", "sites.crl")
    chain = shell.json("show", "chain.pem")
    assert [one.get("party", one.get("may_issue_for")) for one in chain["certificates"]] == [  # type: ignore[attr-defined]
        "north",
        ["site"],
    ]
    assert shell.json("show", "sites.crl")["revoked"] == []
    assert [one["serial"] for one in shell.json("show", "sites")["issued"]] == [issued["serial"]]  # type: ignore[attr-defined]
    for path in ("chain.pem", "sites.crl", "sites", "root"):
        code, out = shell("show", path)
        assert code == 0
        assert "Example" in out


def test_an_authority_issues_for_its_roles_only_and_nothing_is_written(shell: Shell) -> None:
    set_up(shell)
    code, out = shell(*(word if word != "site" else "hub" for word in ISSUE), "--json")
    assert code == 1
    assert json.loads(out)["error"]["code"] == "evidence.pki_refused"
    assert not Path("chain.pem").exists()


def test_nothing_is_overwritten(shell: Shell) -> None:
    set_up(shell)
    shell.json(*ISSUE)
    before = Path("chain.pem").read_bytes()
    assert shell(*ISSUE)[0] == 5
    assert shell("root", "root", "--name", "Again")[0] == 1
    assert Path("chain.pem").read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("show", "nowhere"),
        ("show", "north.pem"),
        ("crl", "nowhere", "--out", "x.crl"),
        ("revoke", "sites", "no hex", "--reason", "superseded"),
        ("issue", "sites", "--role", "tee-root", "--party", "x", "--key", "north.pem", "--out", "x.pem"),
    ],
)
def test_what_cannot_be_done_is_said_and_ends_in_an_exit_code(shell: Shell, words: tuple[str, ...]) -> None:
    set_up(shell)
    assert shell(*words)[0] in {1, 2}


def test_authorities_keys_are_encrypted_where_the_settings_ask_for_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct\n")
    passphrase.chmod(0o600)
    monkeypatch.setenv("CLOISTER_KEY_PASSPHRASE_FILE", str(passphrase))
    set_up(shell)
    for key in Path().glob("*/keys/*.pem"):
        assert b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in key.read_bytes()
    shell.json(*ISSUE)
    monkeypatch.delenv("CLOISTER_KEY_PASSPHRASE_FILE")
    code, out = shell("crl", "sites", "--out", "sites.crl", "--json")
    assert code == 2
    assert json.loads(out)["error"]["code"] == "key.passphrase"


def test_a_party_of_a_workspace_gets_its_key_certified_and_shows_it(shell: Shell) -> None:
    set_up(shell)
    Path("north.pem").unlink()
    made = shell.json("key", "--role", "site", "--party", "north", "-w", "work", "--out", "north.pem")
    issued = shell.json(*ISSUE)
    assert issued["key_id"] == made["key_id"]
    shell.json("install", "chain.pem", "-w", "work")
    with open_workspace(Path("work")) as workspace:
        party = workspace.party("site", "north")
        assert credentials_of([party]) == {"site/north": (Path("chain.pem").read_text(),)}
        assert credentials_of([workspace.party("site", "south")]) == {}
    assert shell("install", "chain.pem", "-w", "work")[0] == 5
    assert shell("install", "chain.pem", "-w", "another")[0] == 1


def test_every_command_has_help_with_an_example(shell: Shell) -> None:
    for command in ("root", "ca", "issue", "revoke", "crl", "key", "install", "show"):
        code, out = shell(command, "--help")
        assert code == 0
        assert "cloister pki" in out
