"""Keys in a PKCS#11 token (SoftHSM): they sign, they are known by name, and they can't be taken out."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.core.errors import KeyStoreError, SignatureInvalid
from cloister.core.keys import (
    ALGORITHMS,
    ECDSA_P256,
    FileKeyStore,
    Pkcs11KeyStore,
    open_key_store,
    secret_file,
)
from cloister.core.keys.pkcs11 import OpenToken
from cloister.core.settings import Settings
from tests.core.hsm import Token, software_token
from tests.interrupts import interrupts


@pytest.fixture(scope="module")
def token() -> Token:
    return software_token()


def code_of(use: Callable[[], object]) -> str:
    with pytest.raises(KeyStoreError) as caught:
        use()
    assert "1234" not in str(caught.value) + caught.value.hint
    return caught.value.code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_made_in_the_token_signs_and_is_found_again(token: Token, algorithm: str) -> None:
    store = token.store("sign")
    made = store.generate(f"key-{algorithm}", algorithm)
    assert made.public_key.algorithm == algorithm
    for message in (b"", b"message", b"x" * 100_000):
        made.public_key.verify(made.sign(message), message)
    found = token.store("sign").load(f"key-{algorithm}")
    assert found.public_key == made.public_key
    made.public_key.verify(found.sign(b"again"), b"again")
    with pytest.raises(SignatureInvalid):
        made.public_key.verify(found.sign(b"again"), b"other")


def test_p256_is_what_a_token_makes_unasked(token: Token) -> None:
    assert token.store("default").generate("key").public_key.algorithm == ECDSA_P256


def test_a_key_that_was_brought_into_the_token_is_not_used(token: Token, tmp_path: Path) -> None:
    clear = tmp_path / "clear.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    clear.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    brought = ["--import", str(clear), "--token", token.label, "--pin", "1234", "--id", "0badc0de"]
    subprocess.run(
        ["softhsm2-util", *brought, "--label", "import:key"], check=True, capture_output=True, timeout=30
    )
    assert code_of(lambda: token.store("import").load("key")) == "key.exportable"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_private_half_cannot_be_taken_out(token: Token, algorithm: str) -> None:
    """Asked for its value, and asked to be made extractable, the token refuses both."""
    token.store("export").generate(f"key-{algorithm}", algorithm)
    import pkcs11
    from pkcs11 import Attribute, ObjectClass

    module = pkcs11.lib(str(token.library))
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: f"export:key-{algorithm}"}
    with module.get_token(token_label=token.label).open(rw=True) as session:
        (private,) = session.get_objects(wanted)
        with pytest.raises(pkcs11.AttributeSensitive):
            _ = private[Attribute.VALUE]
        with pytest.raises(pkcs11.PKCS11Error):
            private[Attribute.EXTRACTABLE] = True
        wrapping = session.generate_key(pkcs11.KeyType.AES, 256, store=False)
        with pytest.raises(pkcs11.PKCS11Error):
            wrapping.wrap_key(private)


def test_a_key_that_could_be_taken_out_is_not_used(token: Token) -> None:
    token.store("loose")
    import pkcs11
    from pkcs11 import Attribute

    with pkcs11.lib(str(token.library)).get_token(token_label=token.label).open(rw=True) as session:
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}, local=True
        )
        parameters.generate_keypair(
            store=True, label="loose:key", private_template={Attribute.EXTRACTABLE: True}
        )
    assert code_of(lambda: token.store("loose").load("key")) == "key.exportable"


def test_names_are_given_once_and_kept_apart_by_owner(token: Token) -> None:
    one, two = token.store("site/north"), token.store("site/south")
    first = one.generate("site")
    assert code_of(lambda: one.generate("site")) == "key.exists"
    second = two.generate("site")
    assert first.public_key != second.public_key
    assert one.names() == two.names() == ("site",)
    assert one.load("site").public_key == first.public_key
    assert code_of(lambda: one.load("nobody")) == "key.missing"
    for name in ("", "a/b", "../a", "a b", "a\0"):
        assert code_of(lambda name=name: one.generate(name)) == "key.name"  # type: ignore[misc]
    assert code_of(lambda: one.generate("rsa-key", "rsa")) == "key.algorithm"


def test_what_cannot_be_opened_is_said_without_the_pin(token: Token, tmp_path: Path) -> None:
    good = (token.library, token.label)
    assert code_of(lambda: Pkcs11KeyStore(*good, lambda: b"9999")) == "key.pin"
    assert code_of(lambda: Pkcs11KeyStore(*good, lambda: b"")) == "key.secret"
    assert code_of(lambda: Pkcs11KeyStore(token.library, "no-such-token", lambda: b"1234")) == "key.hardware"
    assert code_of(lambda: Pkcs11KeyStore(tmp_path / "no.so", "t", lambda: b"1234")) == "key.hardware"


def test_a_wrong_pin_is_refused_by_the_token_itself(token: Token) -> None:
    """In a process that has not logged in yet."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom cloister.core.keys import Pkcs11KeyStore\n"
        "from cloister.core.errors import KeyStoreError\n"
        "try: Pkcs11KeyStore(Path(sys.argv[1]), sys.argv[2], lambda: b'9999')\n"
        "except KeyStoreError as error: print(error.code)\n"
    )
    command = [sys.executable, "-c", program, str(token.library), token.label]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "key.pin"


def test_neither_store_nor_signer_shows_the_pin_or_can_be_copied_out(token: Token) -> None:
    store = token.store("shown")
    signer = store.generate("key")
    for shown in (repr(store), repr(signer), str(vars(store))):
        assert "1234" not in shown
    for one in (store, signer):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(one)


def test_threads_share_a_token(token: Token) -> None:
    signer = token.store("threads").generate("key")

    def sign(number: int) -> None:
        message = str(number).encode()
        signer.public_key.verify(signer.sign(message), message)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(sign, range(100)))


def test_a_forked_process_opens_the_token_for_itself(token: Token) -> None:
    signer = token.store("fork").generate("key")
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            refused = False
            try:
                signer.sign(b"m")
            except KeyStoreError as error:
                refused = error.code == "key.hardware"
            again = token.store("fork").load("key")
            again.public_key.verify(again.sign(b"m"), b"m")
            outcome = 0 if refused else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    signer.public_key.verify(signer.sign(b"m"), b"m")


def settings_with(**given: object) -> Settings:
    return Settings.model_construct(**given)  # type: ignore[arg-type]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_settings_choose_the_token(token: Token, tmp_path: Path) -> None:
    pin = written(tmp_path / "pin", b"1234\n")
    settings = settings_with(pkcs11_library=token.library, pkcs11_token=token.label, pkcs11_pin_file=pin)
    store = open_key_store(settings, tmp_path / "keys", owner="site/settings")
    store.generate("site")
    assert isinstance(store, Pkcs11KeyStore)
    assert token.store("site/settings").names() == ("site",)
    assert not (tmp_path / "keys").exists()


def test_settings_choose_files_encrypted_where_a_passphrase_is_named(tmp_path: Path) -> None:
    clear = open_key_store(settings_with(), tmp_path / "clear", owner="site/a")
    assert isinstance(clear, FileKeyStore)
    clear.generate("site")
    assert (tmp_path / "clear" / "site.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    passphrase = written(tmp_path / "passphrase", b"correct\n")
    encrypted = open_key_store(
        settings_with(key_passphrase_file=passphrase), tmp_path / "encrypted", owner="site/a"
    )
    made = encrypted.generate("site")
    again = FileKeyStore(tmp_path / "encrypted", passphrase=secret_file(passphrase))
    assert again.load("site").public_key == made.public_key


@pytest.mark.parametrize(
    "given",
    [
        {"pkcs11_library": Path("/x.so")},
        {"pkcs11_token": "t"},
        {"pkcs11_pin_file": Path("/pin")},
        {"pkcs11_library": Path("/x.so"), "pkcs11_token": "t"},
        {
            "pkcs11_library": Path("/x.so"),
            "pkcs11_token": "t",
            "pkcs11_pin_file": Path("/pin"),
            "key_passphrase_file": Path("/pass"),
        },
    ],
)
def test_settings_that_name_no_one_store_are_refused(given: dict[str, object], tmp_path: Path) -> None:
    assert code_of(lambda: open_key_store(settings_with(**given), tmp_path, owner="a/b")) == "key.settings"


def test_an_interrupt_leaves_the_token_to_other_threads_wherever_it_lands() -> None:
    pytest.importorskip("pkcs11")
    token, seen = OpenToken(object(), os.getpid(), b""), 0  # type: ignore[arg-type]
    taken: list[bool] = []

    def use() -> None:
        with token.use():
            pass

    def take() -> None:
        taken.append(token.lock.acquire(blocking=False))
        if taken[-1]:
            token.lock.release()

    for _ in interrupts(use, "contextlib.py", "core/interrupts.py", "keys/pkcs11.py", "test_keys_pkcs11.py"):
        other = threading.Thread(target=take)
        other.start()
        other.join()
        seen += 1
    assert seen > 50
    assert all(taken)
