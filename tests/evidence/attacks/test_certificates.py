"""Receipts whose signers nobody pinned: certificates that don't hold are refused, end to end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.pki.issuing import (
    Reason,
    Revocation,
    issue_authority,
    issue_crl,
    issue_root,
    issue_signer,
)
from cloister.evidence.predicates import Role
from cloister.evidence.trust import AuthorityEntry, Trust, TrustEntry
from cloister.evidence.verifier import COSTLY
from tests.evidence.synthetic import HUB, START, SyntheticJob, failing, verify

DAY = timedelta(days=1)
BEFORE = START - DAY
SIGNED = {"receipt-signature", "checkpoint-signature", "log-consistency", "statement-signature", *COSTLY}
OF_ONE_SITE = SIGNED - {"receipt-signature"}
"""What fails where a key isn't believed: the signatures, and what is computed only from what is signed."""


@dataclass
class House:
    """A job whose hub and sites are certified; the documents' signers are pinned."""

    job: SyntheticJob

    def __post_init__(self) -> None:
        store = EphemeralKeyStore()
        self.root_key, self.ca_key = store.generate("root"), store.generate("ca")
        self.root = issue_root(self.root_key, "Example root", at=BEFORE - DAY)
        self.ca = issue_authority(
            self.root_key,
            self.root,
            self.ca_key.public_key,
            "Example issuing",
            (Role.SITE, Role.HUB),
            at=BEFORE - DAY,
        )

    def chain(
        self, role: Role, party: str, key: Signer, at: datetime = BEFORE, lifetime: timedelta = 30 * DAY
    ) -> str:
        leaf = issue_signer(self.ca_key, self.ca, key.public_key, role, party, at=at, lifetime=lifetime)
        self.serial = leaf.x509.serial_number
        return leaf.pem + self.ca.pem

    def credentials(self) -> dict[str, list[str]]:
        found = {
            f"site/{site}": [self.chain(Role.SITE, site, self.job.keys[f"site-{site}"])]
            for site in self.job.sites
        }
        return {**found, f"hub/{HUB}": [self.chain(Role.HUB, HUB, self.job.keys["hub"])]}

    def trust(
        self,
        roles: Iterable[Role] = (Role.SITE, Role.HUB),
        revocations: Iterable[bytes] = (),
        pinned: Iterable[TrustEntry] = (),
    ) -> Trust:
        entries = [
            TrustEntry(Role.HOSPITAL, site, self.job.keys[f"hospital-{site}"].public_key.pem.encode())
            for site in self.job.sites
        ]
        developer = self.job.keys["developer"].public_key.pem.encode()
        return Trust(
            [*entries, TrustEntry(Role.DEVELOPER, "lab", developer), *pinned],
            authorities=[AuthorityEntry(role, "example", self.root.pem.encode()) for role in roles],
            revocations=revocations,
        )

    def crls(self, serial: int, at: datetime, reason: Reason) -> list[bytes]:
        """The newest lists of root and authority; one certificate is on the authority's."""
        until = START + 7 * DAY
        ours = [Revocation(serial, at, reason)]
        return [
            issue_crl(self.root_key, self.root, [], number=1, at=BEFORE, next_update=until),
            issue_crl(self.ca_key, self.ca, ours, number=1, at=BEFORE, next_update=until),
        ]

    def refused(self, credentials: dict[str, list[str]], trust: Trust | None = None) -> set[str]:
        receipt = self.job.receipt(credentials=credentials)
        return failing(verify(self.job, receipt, trust=trust or self.trust()))


@pytest.fixture(scope="module")
def house(honest_job: SyntheticJob) -> House:
    return House(honest_job)


def test_a_receipt_of_certified_parties_passes_under_pinned_roots_alone(house: House) -> None:
    assert house.refused(house.credentials()) == set()


def test_without_its_certificates_or_without_the_root_nothing_signed_is_believed(house: House) -> None:
    assert house.refused({}) >= SIGNED | {"trust"}
    assert house.refused(house.credentials(), house.trust(roles=())) >= SIGNED
    stranger = House(house.job)
    assert house.refused(house.credentials(), stranger.trust()) >= SIGNED


def test_a_root_pinned_for_sites_vouches_for_no_hub(house: House) -> None:
    failures = house.refused(house.credentials(), house.trust(roles=(Role.SITE,)))
    assert failures >= SIGNED
    assert "trust" not in failures


def test_an_expired_certificate_is_refused(house: House) -> None:
    late = house.chain(Role.SITE, "north", house.job.keys["site-north"], at=BEFORE, lifetime=DAY / 2)
    failures = house.refused({**house.credentials(), "site/north": [late]})
    assert failures == OF_ONE_SITE


def test_a_certificate_that_was_not_valid_yet_when_its_key_signed_is_refused(house: House) -> None:
    early = house.chain(Role.HUB, HUB, house.job.keys["hub"], at=START + DAY)
    assert house.refused({**house.credentials(), f"hub/{HUB}": [early]}) == SIGNED


@pytest.mark.parametrize(
    ("when", "reason", "accepted"),
    [
        (START - timedelta(hours=1), Reason.SUPERSEDED, False),
        (START + timedelta(days=2), Reason.SUPERSEDED, True),
        (START + timedelta(days=2), Reason.KEY_COMPROMISE, False),
    ],
)
def test_a_revoked_certificate_is_refused_from_then_on_and_a_stolen_key_always(
    house: House, when: datetime, reason: Reason, accepted: bool
) -> None:
    credentials = house.credentials()
    credentials["site/north"] = [house.chain(Role.SITE, "north", house.job.keys["site-north"])]
    trust = house.trust(revocations=house.crls(house.serial, when, reason))
    failures = house.refused(credentials, trust)
    assert failures == (set() if accepted else OF_ONE_SITE)


def test_a_sites_certificate_does_not_serve_for_the_hub(house: House) -> None:
    as_site = house.chain(Role.SITE, HUB, house.job.keys["hub"])
    assert "trust" in house.refused({**house.credentials(), f"hub/{HUB}": [as_site]})


def test_one_sites_certificate_does_not_serve_for_another(house: House) -> None:
    of_south = house.chain(Role.SITE, "south", house.job.keys["site-north"])
    failures = house.refused({**house.credentials(), "site/north": [of_south]})
    assert failures >= {"trust", "statement-signature"}


def test_a_key_certified_for_two_parties_is_a_conflict(house: House) -> None:
    both = house.chain(Role.SITE, "south", house.job.keys["site-north"])
    assert "trust" in house.refused({**house.credentials(), "site/south": [both]})


def test_a_key_that_is_pinned_as_somebody_elses_is_a_conflict(house: House) -> None:
    borrowed = house.chain(Role.SITE, "north", house.job.keys["developer"])
    assert "trust" in house.refused({**house.credentials(), "site/north": [borrowed]})


def test_a_certificate_of_a_party_outside_the_job_is_refused(house: House) -> None:
    west = EphemeralKeyStore().generate("west")
    stray = house.chain(Role.SITE, "west", west)
    assert house.refused({**house.credentials(), "site/west": [stray]}) == {"trust"}


def test_what_is_no_certificate_gets_a_verdict(house: House) -> None:
    assert "trust" in house.refused({**house.credentials(), "site/north": ["-----BEGIN CERTIFICATE-----"]})


def test_certificates_do_not_replace_a_pinned_key(house: House) -> None:
    """Whoever holds the authority's key can't step in for a party that the verifier pinned."""
    impostor = EphemeralKeyStore().generate("impostor")
    chain = house.chain(Role.SITE, "north", impostor)
    receipt = house.job.receipt(credentials={"site/north": [chain]})
    assert verify(house.job, receipt).accepted
    assert house.job.trust.with_credentials([chain]).key(Role.SITE, "north", at=START) == (
        house.job.keys["site-north"].public_key
    )
