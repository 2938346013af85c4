"""A party's former key in an export: believed for what lies before the next key, for nothing behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence import EvidenceLog, Role, Trust, TrustEntry, log_origin
from cloister.evidence.custody import verify_bundle
from cloister.evidence.custody.verify import BundleVerdict
from tests.evidence.custody.house import JOB, House

ORIGIN = log_origin(Role.SITE, "north")


def change_key(house: House, key: Signer) -> Signer:
    """Let the site north sign with another key from now on; whose the log is, it knows by both."""
    former, place = house.keys["north"], house.folder / "north.sqlite"
    house.logs["north"].close()
    house.keys["north"] = key
    house.logs["north"] = EvidenceLog.open(
        place, origin=ORIGIN, signer=key, accepted_keys=[former.public_key]
    )
    house.writers.clear()
    return former


@contextmanager
def with_key(house: House, key: Signer) -> Iterator[None]:
    """Whoever has that key and the log's file, at work."""
    own = change_key(house, key)
    yield
    change_key(house, own)


def judged(house: House, bundle: bytes, former: Signer, present: Signer | None) -> BundleVerdict:
    entries = [one for one in house.trust_entries if one.party != "north"]
    entries.append(TrustEntry(Role.SITE, "north", former.public_key.pem.encode(), former=True))
    if present is not None:
        entries.append(TrustEntry(Role.SITE, "north", present.public_key.pem.encode()))
    return verify_bundle(bundle, Trust(entries))


def refused(verdict: BundleVerdict) -> dict[str, str]:
    return {check.id: check.detail for check in verdict.failures}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as opened:
        yield opened


def test_what_lies_before_the_new_key_verifies_and_the_verdict_says_by_which_key(house: House) -> None:
    house.job()
    present = EphemeralKeyStore().generate("next")
    former = change_key(house, present)
    verdict = judged(house, house.export(house.of_job()), former, present)
    assert verdict.accepted, verdict.failures
    (told,) = [check.detail for check in verdict.checks if check.id == "statement-signature"]
    assert f"{ORIGIN}, by a key that it used before" in told
    (signature,) = [check.detail for check in verdict.checks if check.id == "export-signature"]
    assert "before" not in signature


def test_an_export_from_before_verifies_by_the_key_that_signed_it(house: House) -> None:
    house.job()
    bundle = house.export(house.of_job(), exporter="north", others=())
    present = EphemeralKeyStore().generate("next")
    former = change_key(house, present)
    verdict = judged(house, bundle, former, present)
    assert verdict.accepted, verdict.failures
    (signature,) = [check.detail for check in verdict.checks if check.id == "export-signature"]
    assert signature == "signed by site north, by a key that it used before"


@pytest.mark.parametrize("dated", [3, 900])
def test_a_stolen_former_key_signs_nothing_behind_the_new_one_whatever_it_dates(
    house: House, dated: float
) -> None:
    house.state("north")
    present = EphemeralKeyStore().generate("next")
    former = change_key(house, present)
    house.state("north", detail="by the new key")
    with with_key(house, former):
        house.forge("north", dated, detail="by the thief")
    bundle = house.export(house.of_job(), exporter="north", others=())
    told = refused(judged(house, bundle, former, present))["statement-signature"]
    assert "entry 2 is signed with a key that its owner had given up by entry 1" in told


def test_a_stolen_former_key_neither_heads_nor_exports_a_log_with_the_new_ones_entries(
    house: House,
) -> None:
    house.job()
    present = EphemeralKeyStore().generate("next")
    former = change_key(house, present)
    house.state("north", "99999999-2222-4333-8444-555555555555")
    with with_key(house, former):
        bundle = house.export(house.of_period(0, house.seconds), exporter="north", others=())
    told = refused(judged(house, bundle, former, present))["statement-signature"]
    assert "the head of" in told
    assert "the export is signed with a key that its owner had given up" in told


def test_keys_that_took_turns_are_refused_though_each_is_known(house: House) -> None:
    first, second, third = (EphemeralKeyStore().generate(str(number)) for number in range(3))
    house.logs["north"].close()
    (house.folder / "north.sqlite").unlink()
    house.keys["north"] = first
    house.logs["north"] = EvidenceLog.create(house.folder / "north.sqlite", origin=ORIGIN, signer=first)
    house.state("north")
    for key in (second, first, third):
        change_key(house, key)
        house.state("north")
    house.close("north")
    bundle = house.export(house.of_job(JOB), exporter="north", others=())
    entries = [one for one in house.trust_entries if one.party == "north"]
    entries += [
        TrustEntry(Role.SITE, "north", one.public_key.pem.encode(), former=True) for one in (first, second)
    ]
    told = refused(verify_bundle(bundle, Trust(entries)))["statement-signature"]
    assert "entry 2 is signed with a key that its owner had given up by entry 1" in told
