"""Exports of parties whose keys nobody pinned: a pinned authority vouches for each in its role."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cloister.core.keys import EphemeralKeyStore
from cloister.evidence import Role, Trust
from cloister.evidence.custody import verify_bundle
from cloister.evidence.pki.issuing import issue_authority, issue_crl, issue_root, issue_signer
from cloister.evidence.trust import AuthorityEntry
from tests.evidence.custody.house import PARTIES, START, House

DAY = timedelta(days=1)
BEFORE = START - DAY
ROLES = (Role.HUB, Role.SITE)


class Authority:
    """An offline root and an issuing authority for hubs and sites."""

    def __init__(self) -> None:
        store = EphemeralKeyStore()
        self.root_key, self.key = store.generate("root"), store.generate("ca")
        self.root = issue_root(self.root_key, "Example root", at=BEFORE)
        self.ca = issue_authority(
            self.root_key, self.root, self.key.public_key, "Example issuing", ROLES, at=BEFORE
        )

    def credentials(self, house: House, lifetime: timedelta = 30 * DAY) -> dict[str, list[str]]:
        """A chain for each party."""
        chains = {}
        for role, name in PARTIES:
            key = house.keys[name].public_key
            leaf = issue_signer(self.key, self.ca, key, Role(role), name, at=BEFORE, lifetime=lifetime)
            chains[f"{role}/{name}"] = [leaf.pem + self.ca.pem]
        return chains

    @property
    def trust(self) -> Trust:
        """The root pinned for both roles, with revocation lists on which nobody is."""
        until = START + 7 * DAY
        return Trust(
            [],
            authorities=[AuthorityEntry(role, "example", self.root.pem.encode()) for role in ROLES],
            revocations=[
                issue_crl(self.root_key, self.root, [], number=1, at=BEFORE, next_update=until),
                issue_crl(self.key, self.ca, [], number=1, at=BEFORE, next_update=until),
            ],
        )


def refused(bundle: bytes, trust: Trust) -> set[str]:
    """The checks that a bundle doesn't pass."""
    return {one.id for one in verify_bundle(bundle, trust).failures}


def test_certified_parties_export_without_a_pinned_key(house: House) -> None:
    authority = Authority()
    house.job()
    bundle = house.export(house.of_job(), credentials=authority.credentials(house))
    assert refused(bundle, authority.trust) == set()


def test_without_certificates_or_under_another_root_nothing_is_believed(house: House) -> None:
    authority = Authority()
    house.job()
    assert "export-signature" in refused(house.export(house.of_job()), authority.trust)
    bundle = house.export(house.of_job(), credentials=authority.credentials(house))
    assert {"export-signature", "checkpoint-signature", "statement-signature"} <= refused(
        bundle, Authority().trust
    )


def test_a_certificate_that_has_expired_vouches_for_nothing(house: House) -> None:
    authority = Authority()
    house.job()
    bundle = house.export(house.of_job(), credentials=authority.credentials(house, DAY / 2))
    assert {"export-signature", "statement-signature"} <= refused(bundle, authority.trust)


@pytest.mark.parametrize("place", ["site/south", "site/elsewhere"])
def test_a_certificate_under_another_partys_name_is_refused(house: House, place: str) -> None:
    authority = Authority()
    house.job()
    credentials = authority.credentials(house)
    credentials[place] = credentials["site/north"]
    assert refused(house.export(house.of_job(), credentials=credentials), authority.trust) >= {"trust"}


def test_what_is_no_certificate_is_refused(house: House) -> None:
    house.job()
    bundle = house.export(house.of_job(), credentials={"site/north": ["no certificate"]})
    assert "trust" in refused(bundle, house.trust)
