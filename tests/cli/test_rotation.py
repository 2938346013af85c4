"""A party changes its key: what it signed before verifies for who pins its former key, and for none else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from cloister.core.keys import ED25519, EphemeralKeyStore, PublicKey
from cloister.evidence import Role
from cloister.evidence.pki.book import create_authority, create_root
from tests.cli.conftest import Cloister

SITE, HUB = "site/lakeview", "hub/hub"
EVERYTHING = ("--from", "2020-01-01")


@pytest.fixture
def work(lived_in: Path, tmp_path: Path) -> Path:
    """A copy of a workspace with a finished job."""
    return Path(shutil.copytree(lived_in, tmp_path / "work"))


@pytest.fixture
def pins(finished: Path, tmp_path: Path) -> Path:
    """A verifying party's own trust directory, filled before anybody changed a key."""
    return Path(shutil.copytree(finished / "trust", tmp_path / "pins"))


def job_of(finished: Path) -> str:
    return cast(str, json.loads((finished / "receipt.json").read_text())["body"]["job_id"])


def rotate(cloister: Cloister, work: Path, *parties: str) -> dict[str, str]:
    """Give parties new keys; what a party then tells others is its new public key."""
    told = {}
    for party in parties:
        ended = cloister("log", "rotate-key", "-w", work, "--party", party, "--json")
        assert ended.code == 0, ended.err
        told[party] = cast(str, ended.json()["public_key"])
    return told


def pin(pins: Path, told: dict[str, str], *, former: bool) -> None:
    """Pin new keys, and keep the pins of before as those of former keys, or throw them away."""
    for party, pem in told.items():
        place = pins / f"{party}.pem"
        if former:
            kept = pins / "former" / party
            kept.mkdir(parents=True, exist_ok=True)
            place.rename(kept / f"{len(list(kept.iterdir()))}.pem")
        place.write_text(pem)


def verdict(cloister: Cloister, artifact: Path, pins: Path, *words: str) -> tuple[int, list[str]]:
    ended = cloister("verify", artifact, "--trust", pins, "--json", *words)
    return ended.code, cast("list[str]", ended.json()["refused_because"])


def export(cloister: Cloister, work: Path, out: Path, selection: Sequence[str]) -> Path:
    """Export, which has to verify with what the workspace itself knows."""
    ended = cloister("audit", "export", "-w", work, *selection, "--out", out)
    assert ended.code == 0, ended.out + ended.err
    return out


@pytest.mark.parametrize("party", [SITE, HUB])
def test_a_job_from_before_a_change_of_keys_is_exported_after_it(
    cloister: Cloister, work: Path, finished: Path, pins: Path, tmp_path: Path, party: str
) -> None:
    told = rotate(cloister, work, party)
    out = export(cloister, work, tmp_path / "export.json", ["--job", job_of(finished)])
    assert verdict(cloister, out, pins)[0] == 1
    only_new = shutil.copytree(pins, tmp_path / "only-new")
    pin(only_new, told, former=False)
    assert "statement-signature" in verdict(cloister, out, only_new)[1]
    pin(pins, told, former=True)
    assert verdict(cloister, out, pins) == (0, [])


def test_a_period_that_spans_two_changes_of_keys_verifies(
    cloister: Cloister, work: Path, pins: Path, tmp_path: Path
) -> None:
    first = export(cloister, work, tmp_path / "first.json", EVERYTHING)
    for number in range(2):
        pin(pins, rotate(cloister, work, SITE, HUB), former=True)
        export(cloister, work, tmp_path / f"{number}.json", EVERYTHING)
        for party in (SITE, HUB):
            assert cloister("audit", "log", "-w", work, "--party", party).code == 0
    last = export(cloister, work, tmp_path / "last.json", EVERYTHING)
    # An export from before is signed with a key that is a former one by now.
    assert verdict(cloister, first, pins) == (0, [])
    assert verdict(cloister, last, pins) == (0, [])
    chain = cloister("audit", "chain", first, tmp_path / "0.json", tmp_path / "1.json", last, "--trust", pins)
    assert chain.code == 0, chain.out


def test_a_receipt_from_before_a_change_of_keys_verifies_after_it(
    cloister: Cloister, work: Path, finished: Path, pins: Path, tmp_path: Path
) -> None:
    told = rotate(cloister, work, SITE, HUB)
    only_new = shutil.copytree(pins, tmp_path / "only-new")
    pin(only_new, told, former=False)
    receipt = finished / "receipt.json"
    assert verdict(cloister, receipt, only_new)[0] == 1
    pin(pins, told, former=True)
    assert verdict(cloister, receipt, pins) == (0, [])
    shown = cloister("verify", receipt, "--trust", pins)
    assert "by a key that it used before" in shown.out


def test_heads_and_tiles_from_before_and_after_a_change_of_keys_are_one_log(
    cloister: Cloister, work: Path, pins: Path, tmp_path: Path
) -> None:
    at = ("-w", work, "--party", SITE)
    before = tmp_path / "before.note"
    assert cloister("log", "checkpoint", *at, "--out", before).code == 0
    pin(pins, rotate(cloister, work, SITE), former=True)
    assert cloister("log", "tiles", *at, "--out", tmp_path / "tiles").code == 0
    assert verdict(cloister, before, pins) == (0, [])
    assert verdict(cloister, tmp_path / "tiles", pins, "--held", str(before)) == (0, [])


def test_the_former_key_of_one_party_is_nobody_elses(
    cloister: Cloister, work: Path, finished: Path, pins: Path, tmp_path: Path
) -> None:
    told = rotate(cloister, work, SITE)
    out = export(cloister, work, tmp_path / "export.json", ["--job", job_of(finished)])
    pin(pins, told, former=True)
    elsewhere = pins / "former" / "site" / "northgate"
    (pins / "former" / SITE).rename(elsewhere)
    assert "statement-signature" in verdict(cloister, out, pins)[1]
    # Nor is it a party's twice, as what it signs with now and what it signed with before.
    shutil.rmtree(pins / "former")
    (pins / "former" / SITE).mkdir(parents=True)
    shutil.copy(pins / f"{SITE}.pem", pins / "former" / SITE / "0.pem")
    ended = cloister("verify", out, "--trust", pins)
    assert (ended.code, "evidence.trust_conflict" in ended.err) == (2, True)


def test_certificates_of_both_keys_take_the_place_of_both_pins(
    cloister: Cloister, work: Path, finished: Path, pins: Path, tmp_path: Path
) -> None:
    store, begun = EphemeralKeyStore(), datetime.now(UTC) - timedelta(days=1)
    root = create_root(tmp_path / "root", store, "Example root", algorithm=ED25519, at=begun)
    book = create_authority(
        tmp_path / "ca", store, root, "Example issuing", [Role.SITE], algorithm=ED25519, at=begun
    )
    former = (pins / f"{SITE}.pem").read_text()
    for pem in (former, rotate(cloister, work, SITE)[SITE]):
        chain = book.issue(PublicKey.from_pem(pem), Role.SITE, "lakeview", at=begun)
        (tmp_path / "chain.pem").write_text(chain)
        ended = cloister("pki", "install", tmp_path / "chain.pem", "-w", work)
        assert ended.code == 0, ended.err
    out = tmp_path / "export.json"
    export(cloister, work, out, ["--job", job_of(finished)])
    (pins / f"{SITE}.pem").unlink()
    (pins / "authority" / "site").mkdir(parents=True)
    (pins / "authority" / "site" / "example.pem").write_text(root.certificate.pem)
    assert verdict(cloister, out, pins) == (0, [])
