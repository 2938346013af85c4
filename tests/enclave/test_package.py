"""A developer's package: hub and hospital know which it is and can't read it; an attested worker can."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore
from cloister.core.sealing import seal
from cloister.enclave.errors import PackageError, ReleaseError
from cloister.enclave.keyrelease import DataKey, KeyPurpose, KeyRequest
from cloister.enclave.package import (
    CheckedPackage,
    PackageManifest,
    check_package,
    open_package,
    package_dataset,
    seal_package,
)
from tests.enclave.attestation_scene import JOB, MEASUREMENT, NOW, vendor
from tests.enclave.keyrelease.scene import SEAL, Hospital

FILES = {
    "model/weights.safetensors": bytes(range(256)) * 40,
    "train.py": b"SECRET_RECIPE = 'what the developer does not show'\n",
}
DATASET = package_dataset("tumour-net", "1.2.0")


class Developer(Hospital):
    """A developer keeps keys the way a hospital does."""

    def package_key(self) -> DataKey:
        return self.book.create_key(DATASET, KeyPurpose.TEST_DATA, self.wrapping, NOW)

    def image(self, made: DataKey) -> bytes:
        return seal_package(
            FILES,
            name="tumour-net",
            version="1.2.0",
            data_key=made.data_key,
            key=self.book.unwrap(made, self.wrapping),
            developer=self.owner,
        )


@pytest.fixture
def developer(tmp_path: Path) -> Developer:
    return Developer(tmp_path)


def test_hub_and_hospital_learn_which_package_it_is_and_can_read_nothing_of_it(developer: Developer) -> None:
    made = developer.package_key()
    image = developer.image(made)
    checked = check_package(image, developer.owner.public_key)
    assert (checked.manifest.name, checked.manifest.version) == ("tumour-net", "1.2.0")
    assert checked.manifest.data_key == made.data_key
    for plain in (b"SECRET_RECIPE", b"train.py", b"weights", bytes(range(256))):
        assert plain not in image


def test_an_attested_worker_gets_the_key_and_opens_it(developer: Developer) -> None:
    made = developer.package_key()
    policy_id = developer.admitted(data_key=made.data_key, dataset=DATASET)
    checked = check_package(developer.image(made), developer.owner.public_key)
    asking, request = developer.request(policy_id)
    key = asking.open(developer.service.release(request), dataset=checked.manifest.dataset)
    assert open_package(checked, key) == FILES


def test_a_worker_that_runs_other_code_gets_no_key(developer: Developer) -> None:
    made = developer.package_key()
    policy_id = developer.admitted(data_key=made.data_key, dataset=DATASET)
    developer.platform = vendor().platform("north", bytes([1]) + MEASUREMENT[1:])
    asking, request = developer.request(policy_id)
    with pytest.raises(ReleaseError) as caught:
        asking.open(developer.service.release(request), dataset=DATASET)
    assert caught.value.code == "release.refused"
    assert developer.statements()[-1].code == "attestation.measurement"


def test_a_controller_that_asks_without_evidence_gets_no_key(developer: Developer) -> None:
    made = developer.package_key()
    policy_id = developer.admitted(data_key=made.data_key, dataset=DATASET)
    asking = KeyRequest(JOB, policy_id, SEAL)
    other = vendor().platform("controller", bytes(48))
    request = asking.answer(developer.service.challenge(asking.ask()), other.quote)
    with pytest.raises(ReleaseError):
        asking.open(developer.service.release(request), dataset=DATASET)


def test_a_package_of_another_developer_is_refused(developer: Developer) -> None:
    image = developer.image(developer.package_key())
    with pytest.raises(PackageError) as caught:
        check_package(image, EphemeralKeyStore().generate("other").public_key)
    assert caught.value.code == "package.signature"


@settings(max_examples=150)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_changed_bit_of_an_image_is_accepted(
    place: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image, developer = _shared(tmp_path_factory)
    changed = bytearray(image)
    changed[place % len(changed)] ^= 1 << bit
    with pytest.raises(PackageError):
        check_package(bytes(changed), developer.owner.public_key)


@given(st.binary(max_size=200))
def test_garbage_is_no_package(data: bytes) -> None:
    key = EphemeralKeyStore().generate("key").public_key
    for image in (data, b"CLPKG1\n\x00" + data):
        with pytest.raises(PackageError):
            check_package(image, key)


def test_an_image_cut_off_or_made_longer_is_refused(developer: Developer) -> None:
    image = developer.image(developer.package_key())
    for changed in (image[:-1], image + b"\x00", image[:100], image[:11]):
        with pytest.raises(PackageError):
            check_package(changed, developer.owner.public_key)


def test_the_key_of_another_package_opens_nothing(developer: Developer) -> None:
    checked = check_package(developer.image(developer.package_key()), developer.owner.public_key)
    with pytest.raises(PackageError) as caught:
        open_package(checked, bytes(32))
    assert caught.value.code == "package.tampered"


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a\\b", "a b", ".hidden", "a/", "a\n", "é"]
)
def test_a_path_that_could_leave_its_folder_is_never_packed(developer: Developer, path: str) -> None:
    with pytest.raises(PackageError):
        _packed(developer, {path: b""})


def test_a_package_has_files_and_a_name(developer: Developer) -> None:
    with pytest.raises(PackageError):
        _packed(developer, {})
    with pytest.raises(PackageError):
        _packed(developer, FILES, name="Tumour Net")


@settings(max_examples=80)
@given(content=st.binary(max_size=60))
@example(content=b"\x00\x00\x00\x02\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00")
def test_a_developer_who_seals_anything_else_than_files_is_refused(content: bytes) -> None:
    for plain in (content, b"\x00\x00\x00\x01" + content):
        sealed = seal(plain, bytes(32), context=DATASET)
        manifest = PackageManifest(
            name="tumour-net",
            version="1.2.0",
            data_key="dk-" + "0" * 32,
            sealed_sha256=sha256_hex(sealed),
            sealed_bytes=len(sealed),
            description={},
        )
        with pytest.raises(CloisterError):
            open_package(CheckedPackage(manifest, "", sealed), bytes(32))


def _packed(developer: Developer, files: dict[str, bytes], name: str = "tumour-net") -> bytes:
    return seal_package(
        files,
        name=name,
        version="1.2.0",
        data_key="dk-" + "0" * 32,
        key=bytes(32),
        developer=developer.owner,
    )


_SHARED: list[tuple[bytes, Developer]] = []


def _shared(factory: pytest.TempPathFactory) -> tuple[bytes, Developer]:
    if not _SHARED:
        developer = Developer(factory.mktemp("developer"))
        _SHARED.append((developer.image(developer.package_key()), developer))
    return _SHARED[0]
