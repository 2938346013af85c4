"""A workspace's parties keep their keys where the settings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.core.errors import KeyStoreError
from cloister.core.keys import ECDSA_P256
from cloister.core.settings import Settings
from cloister.workflow.workspace import open_workspace
from tests.core.hsm import software_token


def secret(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def settings_with(**given: object) -> Settings:
    return Settings.model_construct(**given)  # type: ignore[arg-type]


def test_every_party_has_a_key_of_its_own_in_one_token_and_its_log_opens_again(tmp_path: Path) -> None:
    token = software_token()
    settings = settings_with(
        pkcs11_library=token.library,
        pkcs11_token=token.label,
        pkcs11_pin_file=secret(tmp_path / "pin", token.pin),
    )
    for _ in range(2):
        with open_workspace(tmp_path / "work", settings=settings) as workspace:
            parties = [
                workspace.party(role, name) for role, name in (("hub", "hub"), ("site", "a"), ("site", "b"))
            ]
            assert {one.signer.public_key.algorithm for one in parties} == {ECDSA_P256}
            assert len({one.signer.public_key.key_id for one in parties}) == 3
            with parties[1].open_log() as log:
                assert log.size == 0
    assert list((tmp_path / "work").rglob("*.pem")) == []


def test_a_workspace_with_encrypted_keys_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    settings = settings_with(key_passphrase_file=secret(tmp_path / "passphrase", b"correct"))
    with open_workspace(tmp_path / "work", settings=settings) as workspace:
        made = workspace.party("site", "a").signer.public_key
    with open_workspace(tmp_path / "work", settings=settings) as workspace:
        assert workspace.party("site", "a").signer.public_key == made
    with open_workspace(tmp_path / "work") as workspace, pytest.raises(KeyStoreError) as refused:
        workspace.party("site", "a")
    assert refused.value.code == "key.passphrase"
