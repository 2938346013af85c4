"""Keys that wrap data keys, in a file, in a token, in a service: one contract, and what each adds."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.core.errors import KeyStoreError
from cloister.core.keys import (
    FileWrappingKey,
    KmsWrappingKey,
    TokenWrappingKey,
    WrappingKey,
    create_wrapping_key,
    open_wrapping_key,
)
from cloister.core.settings import Settings
from tests.core.hsm import software_token

DATA_KEY = bytes(range(32))
CONTEXT = b'["dk","heart","records"]'


def in_file(folder: Path) -> tuple[WrappingKey, WrappingKey]:
    return FileWrappingKey.create(folder, "hospital"), FileWrappingKey.create(folder, "other")


def in_token(folder: Path) -> tuple[WrappingKey, WrappingKey]:
    token = software_token()
    first, second = (
        TokenWrappingKey.create(token.library, token.label, lambda: token.pin, name, owner=folder.name)
        for name in ("hospital", "other")
    )
    return first, second


def in_kms(folder: Path) -> tuple[WrappingKey, WrappingKey]:
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (cloister[kms])")
    client = boto3.client("kms", region_name="eu-central-1")
    first, second = (KmsWrappingKey(client, client.create_key()["KeyMetadata"]["Arn"]) for _ in range(2))
    return first, second


@pytest.fixture(autouse=True)
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A key management service in this process, for what asks for one; nothing leaves the machine."""
    if "kms" not in request.node.name:
        yield
        return
    moto = pytest.importorskip("moto", reason="moto is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield


EACH = pytest.mark.parametrize("made", [in_file, in_token, in_kms])
Made = Callable[[Path], tuple[WrappingKey, WrappingKey]]


def refused(use: Callable[[], object]) -> str:
    with pytest.raises(KeyStoreError) as caught:
        use()
    return caught.value.code


@EACH
def test_a_key_comes_back_from_its_wrapping_and_never_lies_open_in_it(made: Made, tmp_path: Path) -> None:
    key, _ = made(tmp_path)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    assert DATA_KEY not in wrapped
    assert key.wrap(DATA_KEY, CONTEXT) != wrapped
    unwrapped = key.unwrap(wrapped, CONTEXT)
    assert isinstance(unwrapped, bytearray)
    assert unwrapped == DATA_KEY


@EACH
def test_another_key_another_context_or_a_changed_byte_unwraps_nothing(made: Made, tmp_path: Path) -> None:
    key, other = made(tmp_path)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    changed = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    assert refused(lambda: key.unwrap(wrapped, CONTEXT + b"!")) == "key.wrapped"
    assert refused(lambda: key.unwrap(changed, CONTEXT)) == "key.wrapped"
    assert refused(lambda: key.unwrap(b"", CONTEXT)) == "key.wrapped"
    # moto says AccessDenied where the service says IncorrectKey (tried below); both refuse.
    assert refused(lambda: other.unwrap(wrapped, CONTEXT)) in ("key.wrapped", "key.service")


@EACH
def test_only_keys_of_32_bytes_are_wrapped(made: Made, tmp_path: Path) -> None:
    key, _ = made(tmp_path)
    assert refused(lambda: key.wrap(bytes(31), CONTEXT)) == "key.malformed"


@EACH
def test_each_key_has_an_id_of_its_own(made: Made, tmp_path: Path) -> None:
    first, second = made(tmp_path)
    assert first.wrapping_id != second.wrapping_id
    assert first.wrapping_id.partition(":")[0] == made.__name__.removeprefix("in_")


def test_a_key_in_a_file_is_its_owners_alone_and_found_again(tmp_path: Path) -> None:
    made = FileWrappingKey.create(tmp_path, "hospital")
    path = tmp_path / "hospital.kek"
    assert path.stat().st_mode & 0o777 == 0o600
    found = FileWrappingKey.load(tmp_path, "hospital")
    assert found.wrapping_id == made.wrapping_id
    assert found.unwrap(made.wrap(DATA_KEY, CONTEXT), CONTEXT) == DATA_KEY
    assert refused(lambda: FileWrappingKey.create(tmp_path, "hospital")) == "key.exists"
    assert refused(lambda: FileWrappingKey.load(tmp_path, "absent")) == "key.missing"
    assert refused(lambda: FileWrappingKey.load(tmp_path, "../hospital")) == "key.name"
    path.chmod(0o640)
    assert refused(lambda: FileWrappingKey.load(tmp_path, "hospital")) == "key.permissions"


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"cloister-key-encryption-key-v1 AAAA\n", b"x" * 2000, bytes(32)]
)
def test_a_file_with_something_else_in_it_is_no_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hospital.kek"
    path.write_bytes(content)
    path.chmod(0o600)
    assert refused(lambda: FileWrappingKey.load(tmp_path, "hospital")) == "key.malformed"


def test_a_key_in_a_file_may_be_encrypted_and_is_then_never_read_or_written_clear(tmp_path: Path) -> None:
    def right() -> bytes:
        return b"correct horse"

    made = FileWrappingKey.create(tmp_path, "hospital", passphrase=right)
    found = FileWrappingKey.load(tmp_path, "hospital", passphrase=right)
    assert found.unwrap(made.wrap(DATA_KEY, CONTEXT), CONTEXT) == DATA_KEY
    wrong = [None, lambda: b"wrong"]
    for secret in wrong:
        use = lambda secret=secret: FileWrappingKey.load(tmp_path, "hospital", passphrase=secret)  # noqa: E731
        assert refused(use) == "key.passphrase"
    FileWrappingKey.create(tmp_path, "clear")
    assert refused(lambda: FileWrappingKey.load(tmp_path, "clear", passphrase=right)) == "key.passphrase"


def test_the_settings_choose_where_a_wrapping_key_is_and_another_one_is_not_taken_for_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    (tmp_path / "secret").chmod(0o600)
    plain = Settings()
    encrypted = Settings(key_passphrase_file=tmp_path / "secret")
    folder = tmp_path / "kek"
    made = create_wrapping_key(encrypted, folder, "dk", owner="keeper")
    assert b"scrypt" in (folder / "dk.kek").read_bytes()
    opened = open_wrapping_key(encrypted, folder, made.wrapping_id, "dk", owner="keeper")
    assert opened.wrapping_id == made.wrapping_id
    other = made.wrapping_id[:-1] + ("0" if made.wrapping_id[-1] != "0" else "1")
    assert refused(lambda: open_wrapping_key(encrypted, folder, other, "dk", owner="k")) == "key.missing"
    assert (
        refused(lambda: open_wrapping_key(plain, folder, made.wrapping_id, "dk", owner="k"))
        == "key.passphrase"
    )
    assert refused(lambda: open_wrapping_key(plain, folder, "kms:no-arn", "dk", owner="k")) == "key.service"
    half = Settings(pkcs11_token="t")
    assert refused(lambda: create_wrapping_key(half, folder, "x", owner="k")) == "key.settings"


def test_a_key_shows_nothing_of_itself_and_is_not_copied_away(tmp_path: Path) -> None:
    key = FileWrappingKey.create(tmp_path, "hospital")
    secret = (tmp_path / "hospital.kek").read_text().split()[1]
    assert secret not in repr(key)
    assert secret not in key.wrapping_id
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_key_in_a_token_is_found_again_and_cannot_be_taken_out(tmp_path: Path) -> None:
    token = software_token()
    owner = f"found-{os.getpid()}"
    made = TokenWrappingKey.create(token.library, token.label, lambda: token.pin, "kek", owner=owner)
    found = TokenWrappingKey.load(token.library, token.label, lambda: token.pin, "kek", owner=owner)
    assert found.unwrap(made.wrap(DATA_KEY, CONTEXT), CONTEXT) == DATA_KEY
    import pkcs11

    with pytest.raises(pkcs11.AttributeSensitive):
        found._key[pkcs11.Attribute.VALUE]

    def again() -> object:
        return TokenWrappingKey.create(token.library, token.label, lambda: token.pin, "kek", owner=owner)

    assert refused(again) == "key.exists"
    absent = lambda: TokenWrappingKey.load(token.library, token.label, lambda: token.pin, "no", owner=owner)  # noqa: E731
    assert refused(absent) == "key.missing"


def test_a_key_that_was_brought_into_the_token_is_not_used() -> None:
    token = software_token()
    from pkcs11 import Attribute, KeyType, ObjectClass

    store = token.store("brought")
    with store._token.use() as session:
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.AES,
                Attribute.VALUE: bytes(32),
                Attribute.LABEL: "brought:kek:kek",
                Attribute.TOKEN: True,
            }
        )
    use = lambda: TokenWrappingKey.load(  # noqa: E731
        token.library, token.label, lambda: token.pin, "kek", owner="brought"
    )
    assert refused(use) == "key.exportable"


def test_a_kms_key_that_is_disabled_or_gone_says_so_without_the_content(tmp_path: Path) -> None:
    key, _ = in_kms(tmp_path)
    assert isinstance(key, KmsWrappingKey)
    absent = KmsWrappingKey(key._client, key.wrapping_id.removeprefix("kms:")[:-12] + "0" * 12)
    assert refused(lambda: absent.wrap(DATA_KEY, CONTEXT)) == "key.service"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("IncorrectKeyException", "key.wrapped"),
        ("InvalidCiphertextException", "key.wrapped"),
        ("AccessDeniedException", "key.service"),
        ("KMSInternalException", "key.service"),
    ],
)
def test_what_the_kms_service_answers_becomes_the_right_code(said: str, code: str) -> None:
    exceptions = pytest.importorskip("botocore.exceptions", reason="boto3 is not installed (cloister[kms])")

    class Client:
        def encrypt(self, **asked: object) -> dict[str, object]:
            raise exceptions.ClientError({"Error": {"Code": said, "Message": "x"}}, "Encrypt")

        decrypt = encrypt

    key = KmsWrappingKey(Client(), "arn:example")
    assert refused(lambda: key.unwrap(b"wrapped", CONTEXT)) == code
    assert refused(lambda: key.wrap(DATA_KEY, CONTEXT)) == code


def test_the_kms_audit_log_sees_a_hash_of_the_context_and_not_the_context(tmp_path: Path) -> None:
    seen: list[object] = []

    class Client:
        def encrypt(self, **asked: object) -> dict[str, object]:
            seen.append(asked["EncryptionContext"])
            return {"CiphertextBlob": b"wrapped"}

        def decrypt(self, **asked: object) -> dict[str, object]:
            return {"Plaintext": bytes(31)}

    key = KmsWrappingKey(Client(), "arn:example")
    key.wrap(DATA_KEY, CONTEXT)
    assert "heart" not in str(seen)
    assert refused(lambda: key.unwrap(b"wrapped", CONTEXT)) == "key.wrapped"
