"""Where a keeper wraps its data keys: as the settings say, and old keys open where they were wrapped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.core.errors import KeyStoreError
from cloister.core.settings import Settings
from cloister.enclave.keyrelease import DataKey, KeyPurpose
from cloister.enclave.keyrelease.folder import KeeperFolder
from tests.core.hsm import software_token
from tests.enclave.attestation_scene import NOW


@pytest.fixture
def arn(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A key of a key management service in this process; nothing leaves the machine."""
    moto = pytest.importorskip("moto", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (cloister[kms])")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield boto3.client("kms", region_name="eu-central-1").create_key()["KeyMetadata"]["Arn"]


def in_token(folder: Path) -> Settings:
    token = software_token()
    (folder / "pin").write_bytes(token.pin)
    (folder / "pin").chmod(0o600)
    return Settings(pkcs11_library=token.library, pkcs11_token=token.label, pkcs11_pin_file=folder / "pin")


def keeper(folder: Path, settings: Settings) -> KeeperFolder:
    return KeeperFolder(folder / "keeper", settings, owner=f"keeper/{folder.name}")


def make(of: KeeperFolder, kms_arn: str | None = None) -> DataKey:
    return of.create_key("heart", KeyPurpose.TEST_DATA, NOW, kms_arn)


def test_settings_that_name_a_key_of_the_service_wrap_there_without_being_told_again(
    tmp_path: Path, arn: str
) -> None:
    of = keeper(tmp_path, Settings(kms_key=arn))
    made = make(of)
    assert made.wrapping_id == f"kms:{arn}"
    assert len(of.book.unwrap(made, of.wrapping(made.wrapping_id))) == 32
    assert list(tmp_path.rglob("*.kek")) == []


def test_settings_that_name_a_token_wrap_in_it_and_leave_no_key_in_a_file(tmp_path: Path) -> None:
    of = keeper(tmp_path, in_token(tmp_path))
    first, second = make(of), make(of)
    assert first.wrapping_id == second.wrapping_id
    assert first.wrapping_id.startswith("token:")
    assert list(tmp_path.rglob("*.kek")) == []


def test_keys_follow_the_settings_and_old_ones_open_where_they_were_wrapped(tmp_path: Path, arn: str) -> None:
    token = in_token(tmp_path)
    made = [
        make(keeper(tmp_path, settings)) for settings in (Settings(), token, Settings(kms_key=arn), token)
    ]
    assert [one.wrapping_id.partition(":")[0] for one in made] == ["file", "token", "kms", "token"]
    assert made[1].wrapping_id == made[3].wrapping_id
    of = keeper(tmp_path, token)
    for one in made:
        assert len(of.book.unwrap(one, of.wrapping(one.wrapping_id))) == 32


def test_a_key_in_a_token_is_missed_where_the_settings_name_none(tmp_path: Path) -> None:
    made = make(keeper(tmp_path, in_token(tmp_path)))
    with pytest.raises(KeyStoreError) as refused:
        keeper(tmp_path, Settings()).wrapping(made.wrapping_id)
    assert refused.value.code == "key.missing"


def test_what_is_no_key_of_the_service_is_refused_when_a_key_is_made(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError) as refused:
        make(keeper(tmp_path, Settings(kms_key="my-key")))
    assert refused.value.code == "key.service"
