"""Commands for a keeper's data keys, and for predictions from an enclave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from cloister.core.canonical import JSON
from cloister.core.sealing import open_stream
from cloister.core.settings import load_settings
from cloister.enclave import AppraisalPolicy
from cloister.enclave.attestation import Tee
from cloister.enclave.keyrelease import open_release_policy
from cloister.enclave.keyrelease.folder import KeeperFolder
from tests.cli.conftest import Cloister
from tests.conftest import ROOT

JOB = ROOT / "examples" / "tumour" / "job.yaml"
MEASUREMENT = "ab" * 48
ASKED: JSON = {
    "measurements": [MEASUREMENT],
    "amd_lines": ["Milan"],
    "minimum_tcb": {"Milan": {"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219}},
    "maximum_collateral_age_days": 90,
    "gpus": "allowed",
}


@pytest.fixture
def keeper(tmp_path: Path) -> Path:
    return tmp_path / "keeper"


def made(cloister: Cloister, keeper: Path, *more: str) -> str:
    words = ("keys", "data-key", "create", keeper, "--dataset", "heart-disease", "--json", *more)
    return cast(str, cloister(*words).json()["data_key"])


def test_a_hospital_makes_a_key_seals_its_records_and_signs_who_may_have_it(
    cloister: Cloister, keeper: Path, tmp_path: Path
) -> None:
    key = made(cloister, keeper)
    (tmp_path / "heart.csv").write_bytes(b"63,1,145\n" * 1000)
    sealed = cloister(
        "keys",
        "data-key",
        "seal",
        keeper,
        key,
        tmp_path / "heart.csv",
        "--out",
        tmp_path / "h.sealed",
        "--json",
    )
    assert sealed.code == 0
    assert (tmp_path / "h.sealed").stat().st_mode & 0o777 == 0o600
    folder = KeeperFolder(keeper, load_settings({}))
    found = folder.book.key(key)
    secret = folder.book.unwrap(found, folder.wrapping(found.wrapping_id))
    with (tmp_path / "h.sealed").open("rb") as source:
        opened = b"".join(bytes(one) for one in open_stream(source, secret, context="heart-disease"))
    assert opened == b"63,1,145\n" * 1000
    (tmp_path / "policy.json").write_text(json.dumps(ASKED))
    allowed = cloister(
        *("keys", "data-key", "allow", keeper, key, "--scope", "study:HEART"),
        *("--policy", tmp_path / "policy.json", "--releases", "3", "--json"),
    ).json()
    policy = folder.book.policy(cast(str, allowed["policy_id"]))
    signed = open_release_policy(policy.envelope, folder.signer().public_key)
    assert signed.releases == 3
    assert signed.tees == (Tee.AMD_SEV_SNP,)
    assert signed.appraisal == AppraisalPolicy.from_json(ASKED)
    shown = cloister("keys", "data-key", "status", keeper, "--json").json()
    assert [one["released"] for one in cast(list[dict[str, object]], shown["policies"])] == [0]
    assert secret.hex() not in json.dumps(shown)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--measurement", MEASUREMENT), "This allows no machine"),
        (("--policy", "code.json"), "This allows no machine"),
        ((), "--policy, or by --measurement"),
        (("--policy", "asked.json", "--measurement", MEASUREMENT), "--policy, or by --measurement"),
        (("--policy", "asked.json", "--without-revocation"), "--policy, or by --measurement"),
        (("--policy", "old.json"), "minimum_tcb.Milan.boot_loader: missing"),
        (("--policy", "debug.json"), "debug: unknown field"),
    ],
)
def test_a_release_policy_that_no_machine_meets_or_that_says_two_things_is_not_signed(
    words: tuple[str, ...], told: str, cloister: Cloister, keeper: Path, tmp_path: Path
) -> None:
    assert isinstance(ASKED, dict)
    for name, asked in {
        "asked": ASKED,
        "code": {"measurements": [MEASUREMENT]},
        "old": {**ASKED, "minimum_tcb": {"Milan": {"snp": 24}}},
        "debug": {**ASKED, "debug": True},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(asked))
    key = made(cloister, keeper)
    given = [tmp_path / one if one.endswith(".json") else one for one in words]
    ended = cloister("keys", "data-key", "allow", keeper, key, "--scope", "study:HEART", *given)
    assert ended.code == 2
    assert told in " ".join(ended.err.split())
    assert "0 release policies" in cloister("keys", "data-key", "status", keeper).out


def test_a_revoked_key_seals_nothing_more_and_says_so(
    cloister: Cloister, keeper: Path, tmp_path: Path
) -> None:
    key = made(cloister, keeper)
    assert cloister("keys", "data-key", "revoke", keeper, key).code == 0
    (tmp_path / "x").write_bytes(b"x")
    ended = cloister("keys", "data-key", "seal", keeper, key, tmp_path / "x", "--out", tmp_path / "y")
    assert ended.code == 4
    assert "[release.revoked]" in ended.err
    assert not (tmp_path / "y").exists()
    assert "revoked at" in cloister("keys", "data-key", "status", keeper).out


def test_sealed_data_is_not_put_beside_its_keys(cloister: Cloister, keeper: Path, tmp_path: Path) -> None:
    key = made(cloister, keeper)
    (tmp_path / "x").write_bytes(b"x")
    ended = cloister("keys", "data-key", "seal", keeper, key, tmp_path / "x", "--out", keeper / "y")
    assert "[release.beside]" in ended.err


def test_a_key_in_use_is_taken_in_from_its_owners_file_only(
    cloister: Cloister, keeper: Path, tmp_path: Path
) -> None:
    path = tmp_path / "old.key"
    path.write_bytes(bytes(32))
    path.chmod(0o644)
    words = ("keys", "data-key", "wrap", keeper, path, "--dataset", "x-rays", "--json")
    assert cast(dict[str, str], cloister(*words).json()["error"])["code"] == "key.permissions"
    path.chmod(0o600)
    assert str(cloister(*words).json()["data_key"]).startswith("dk-")
    path.write_bytes(bytes(31))
    assert cast(dict[str, str], cloister(*words).json()["error"])["code"] == "key.malformed"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("allow", "dk-" + "0" * 32, "--scope", "s", "--measurement", MEASUREMENT), "release.unknown"),
        (("revoke", "dk-" + "0" * 32), "release.unknown"),
        (("revoke", "0" * 64), "release.unknown"),
        (("create", "--dataset", "heart disease"), "input.schema"),
        (("create", "--dataset", "h", "--kms-key", "my-key"), "key.service"),
    ],
)
def test_what_a_keeper_gets_wrong_is_said(
    cloister: Cloister, keeper: Path, words: tuple[str, ...], code: str
) -> None:
    ended = cloister("keys", "data-key", words[0], keeper, *words[1:], "--json")
    assert cast(dict[str, str], ended.json()["error"])["code"] == code


def test_simulated_enclaves_are_allowed_for_test_data_only(cloister: Cloister, keeper: Path) -> None:
    records, tests = made(cloister, keeper), made(cloister, keeper, "--purpose", "test-data")
    words = ("--scope", "s", "--measurement", MEASUREMENT, "--allow-simulated", "--json")
    refused = cloister("keys", "data-key", "allow", keeper, records, *words)
    assert cast(dict[str, str], refused.json()["error"])["code"] == "release.test_data"
    assert cloister("keys", "data-key", "allow", keeper, tests, *words).code == 0


def test_a_lost_book_is_noticed_and_not_begun_anew(cloister: Cloister, keeper: Path) -> None:
    made(cloister, keeper)
    for path in keeper.glob("keys.db*"):
        path.unlink()
    ended = cloister("keys", "data-key", "create", keeper, "--dataset", "heart-disease")
    assert "[key.exists]" in ended.err
