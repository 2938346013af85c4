"""Commands around a developer's sealed package: who seals, who checks, who serves, who asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore
from cloister.core.settings import load_settings
from cloister.enclave import encode_model
from cloister.enclave.keyrelease.folder import KeeperFolder
from cloister.privacy.models import build_model, state_arrays
from tests.cli.conftest import Cloister, Ended
from tests.conftest import ROOT

JOB = ROOT / "examples" / "tumour" / "job.yaml"
POLICY = "0" * 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A developer's folder with a model, which the commands are typed in."""
    monkeypatch.chdir(tmp_path)
    model = encode_model(state_arrays(build_model("logistic-regression", 30, 2, 7)))
    Path("model.safetensors").write_bytes(model)
    Path("other.pem").write_text(EphemeralKeyStore().generate("other").public_key.pem)
    Path("garbage").write_bytes(b"garbage")
    np.savetxt("rows.csv", np.zeros((1, 30)), delimiter=",")
    return tmp_path


def seal(cloister: Cloister, **changes: str) -> Ended:
    words = {
        "--keeper": "developer",
        "--job": str(JOB),
        "--features": "30",
        "--name": "tumour",
        "--version": "1",
        "--contents": "test-data",
        "--out": "tumour.package",
        **{f"--{name}": value for name, value in changes.items() if name != "model"},
    }
    typed = [part for pair in words.items() for part in pair]
    return cloister("package", "seal", changes.get("model", "model.safetensors"), *typed, "--json")


def code_of(ended: Ended) -> str:
    return cast(dict[str, str], ended.json()["error"])["code"]


def keys() -> list[str]:
    """What the keys in the developer's book are for."""
    if not Path("developer/keys.db").exists():
        return []
    return [one.dataset for one in KeeperFolder(Path("developer"), load_settings({})).book.all_keys()]


def test_a_package_tells_everybody_what_it_is_and_nobody_its_weights(
    cloister: Cloister, folder: Path
) -> None:
    sealed = seal(cloister).json()
    image, model = Path("tumour.package").read_bytes(), Path("model.safetensors").read_bytes()
    assert sealed["package_sha256"] == sha256_hex(image)
    assert sealed["scope"] == "inference:tumour:1"
    assert model[-16:] not in image
    assert sha256_hex(model) not in json.dumps(sealed) + image.decode("latin-1")
    checked = cloister(
        "package", "check", "tumour.package", "--developer", "developer/developer.pem", "--json"
    )
    told = checked.json()
    assert (told["architecture"], told["features"], told["classes"]) == ("logistic-regression", 30, 2)
    assert (told["package_sha256"], told["data_key"]) == (sealed["package_sha256"], sealed["data_key"])
    assert keys() == ["package/tumour/1"]


def test_a_version_is_sealed_once_and_the_next_has_a_key_of_its_own(cloister: Cloister, folder: Path) -> None:
    first = seal(cloister).json()
    again = seal(cloister, out="again.package")
    assert (code_of(again), again.code) == ("release.exists", 4)
    assert not Path("again.package").exists()
    second = seal(cloister, version="2", out="second.package").json()
    assert first["data_key"] != second["data_key"]
    assert first["developer"] == second["developer"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"features": "31"}, "model.weights_mismatch"),
        ({"model": "garbage"}, "enclave.model_file"),
        ({"model": "absent"}, "input.missing_file"),
        ({"job": "absent"}, "input.missing_file"),
        ({"name": "Tumour Net"}, "package.malformed"),
        ({"version": "../1"}, "package.malformed"),
        ({"out": "developer/tumour.package"}, "release.beside"),
        ({"out": "garbage"}, "storage.exists"),
        ({"out": "absent/tumour.package"}, "storage.failed"),
    ],
)
def test_what_a_developer_gets_wrong_is_said_and_leaves_no_key(
    cloister: Cloister, folder: Path, changes: dict[str, str], code: str
) -> None:
    assert code_of(seal(cloister, **changes)) == code
    assert keys() == []
    assert Path("garbage").read_bytes() == b"garbage"


def test_a_package_of_another_developer_or_one_that_was_changed_is_refused_to_be_checked_or_served(
    cloister: Cloister, folder: Path
) -> None:
    seal(cloister)
    image = bytearray(Path("tumour.package").read_bytes())
    image[-1] ^= 1
    Path("changed").write_bytes(image)
    own = "developer/developer.pem"
    for package, developer, code in (
        ("tumour.package", "other.pem", "package.signature"),
        ("changed", own, "package.tampered"),
        ("garbage", own, "package.malformed"),
        ("tumour.package", "garbage", "key.malformed"),
        ("absent", own, "input.missing_file"),
    ):
        assert code_of(cloister("package", "check", package, "--developer", developer, "--json")) == code
        served = cloister(
            *("serve-inference", "--package", package, "--developer", developer, "--key-policy", POLICY),
            *("--key-service", "./absent.sock", "--listen", "./s.sock", "--simulated-enclave", "--json"),
        )
        assert code_of(served) == code


def test_without_a_key_service_nothing_is_served(cloister: Cloister, folder: Path) -> None:
    seal(cloister)
    served = cloister(
        *("serve-inference", "--package", "tumour.package", "--developer", "developer/developer.pem"),
        *("--key-service", "./absent.sock", "--key-policy", POLICY, "--listen", "./s.sock"),
        *("--simulated-enclave", "--json"),
    )
    assert (code_of(served), served.code) == ("release.unreachable", 4)
    assert not Path("s.sock").exists()


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--model", "model.safetensors"),
        ("--package", "P", "--developer", "D", "--key-policy", POLICY),
        ("--package", "P", "--developer", "D", "--key-service", "./s", "--key-policy", "x"),
        (
            "--package",
            "P",
            "--developer",
            "D",
            "--key-service",
            "./s",
            "--key-policy",
            POLICY,
            "--model",
            "M",
        ),
    ],
)
def test_an_operator_says_what_is_served_once_and_whole(
    cloister: Cloister, folder: Path, words: tuple[str, ...]
) -> None:
    ended = cloister("serve-inference", *words, "--simulated-enclave", "--json")
    assert (code_of(ended), ended.code) == ("input.schema", 2)


@pytest.mark.parametrize(
    "words",
    [
        ("--package-sha256", "x"),
        ("--package-sha256", POLICY, "--model-sha256", POLICY),
        ("--developer", "other.pem", "--model", "model.safetensors"),
    ],
)
def test_a_client_says_which_model_it_has_to_be_once(
    cloister: Cloister, folder: Path, words: tuple[str, ...]
) -> None:
    asked = ("infer", "--input", "rows.csv", "--endpoint", "127.0.0.1:1", "--measurement", "ab" * 32)
    assert code_of(cloister(*asked, *words, "--json")) == "input.schema"
    assert code_of(cloister(*asked, "--developer", "other.pem", "--json")) == "inference.worker"


def test_a_made_up_vendor_is_kept_and_says_what_it_is(cloister: Cloister, folder: Path) -> None:
    first, second = (cloister("enclave", "simulate", "vendor", "--json").json() for _ in range(2))
    assert first == second
    assert "NOT HARDWARE" in str(first["platform"])
    assert Path("vendor/root.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert Path("vendor/simulated-vendor.pem").stat().st_mode & 0o777 == 0o600
    words = ("serve-inference", "--model", "model.safetensors", "--job", JOB, "--features", "30", "--json")
    assert code_of(cloister(*words, "--simulated-vendor", "vendor")) == "input.schema"
