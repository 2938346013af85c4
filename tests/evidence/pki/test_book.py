"""An authority's book: what is issued and revoked stays written down, and is never taken back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cloister.core.errors import CloisterError
from cloister.core.keys import ALGORITHMS, ED25519, EphemeralKeyStore, FileKeyStore, PublicKey
from cloister.evidence.errors import TrustError
from cloister.evidence.pki import load_crl
from cloister.evidence.pki.book import AuthorityBook, create_authority, create_root, open_book
from cloister.evidence.pki.issuing import Reason
from cloister.evidence.predicates import Role
from cloister.evidence.trust import AuthorityEntry, Trust
from tests.conftest import START
from tests.core.hsm import software_token

DAY = timedelta(days=1)
STORE = EphemeralKeyStore()


@pytest.fixture
def root(tmp_path: Path) -> AuthorityBook:
    return create_root(tmp_path / "root", STORE, "Example root", algorithm=ED25519, at=START)


@pytest.fixture
def sites(tmp_path: Path, root: AuthorityBook) -> AuthorityBook:
    return create_authority(
        tmp_path / "sites", STORE, root, "Example sites", [Role.SITE], algorithm=ED25519, at=START
    )


def code_of(use: Callable[[], object]) -> str:
    with pytest.raises(CloisterError) as caught:
        use()
    return caught.value.code


def new_key() -> PublicKey:
    return EphemeralKeyStore().generate("party").public_key


def trusting(root: AuthorityBook, *lists: bytes) -> Trust:
    pem = root.certificate.pem.encode()
    return Trust([], authorities=[AuthorityEntry(Role.SITE, "example", pem)], revocations=lists)


def test_from_a_root_to_a_verdict_and_back_by_revocation(root: AuthorityBook, sites: AuthorityBook) -> None:
    key = new_key()
    chain = sites.issue(key, Role.SITE, "north", at=START)
    assert trusting(root).with_credentials([chain]).key(Role.SITE, "north", at=START + DAY) == key
    (issued,) = sites.issued()
    sites.revoke(issued.x509.serial_number, Reason.KEY_COMPROMISE, at=START + 2 * DAY)
    lists = (root.crl(at=START, lifetime=30 * DAY), sites.crl(at=START + 2 * DAY))
    with pytest.raises(TrustError) as caught:
        trusting(root, *lists).with_credentials([chain]).key(Role.SITE, "north", at=START + DAY)
    assert caught.value.code == "evidence.certificate_revoked"


def test_a_root_revokes_an_authority(root: AuthorityBook, sites: AuthorityBook) -> None:
    key = new_key()
    chain = sites.issue(key, Role.SITE, "north", at=START)
    root.revoke(sites.certificate.x509.serial_number, Reason.CA_COMPROMISE, at=START)
    trust = trusting(root, root.crl(at=START), sites.crl(at=START)).with_credentials([chain])
    assert code_of(lambda: trust.key(Role.SITE, "north", at=START + DAY)) == "evidence.certificate_revoked"


@pytest.mark.parametrize("kind", ["file", "encrypted", "token"])
def test_a_book_opens_again_with_its_key_in_any_store(kind: str, tmp_path: Path) -> None:
    if kind == "token":
        store = software_token().store(f"authority-{tmp_path.name}")
    else:
        passphrase = (lambda: b"correct") if kind == "encrypted" else None
        store = FileKeyStore(tmp_path / "keys", passphrase=passphrase)
    for algorithm in ALGORITHMS:
        made = create_root(tmp_path / algorithm, store, "root", algorithm=algorithm, at=START)
        again = open_book(tmp_path / algorithm, store)
        assert again.certificate == again.root == made.certificate
        assert load_crl(again.crl(at=START)).issuer == made.certificate.subject


def test_revocations_stay_and_lists_are_numbered(tmp_path: Path, sites: AuthorityBook) -> None:
    for name in ("a", "b"):
        sites.issue(new_key(), Role.SITE, name, at=START)
    serials = [one.x509.serial_number for one in sites.issued()]
    sites.revoke(serials[0], Reason.SUPERSEDED, at=START)
    again = open_book(tmp_path / "sites", STORE)
    again.revoke(serials[1], Reason.CESSATION, at=START + DAY)
    assert [one.serial for one in sites.revoked()] == serials
    lists = [load_crl(sites.crl(at=START + n * DAY)) for n in (1, 2)]
    numbers = [
        next(one.value.crl_number for one in made.x509.extensions if one.oid.dotted_string == "2.5.29.20")
        for made in lists
    ]
    assert numbers == [1, 2]
    assert [len(made.x509) for made in lists] == [2, 2]


def test_a_revocation_is_only_ever_made_stricter(sites: AuthorityBook) -> None:
    sites.issue(new_key(), Role.SITE, "a", at=START)
    serial = sites.issued()[0].x509.serial_number
    sites.revoke(serial, Reason.SUPERSEDED, at=START + DAY)
    assert code_of(lambda: sites.revoke(serial, Reason.CESSATION, at=START)) == "evidence.pki_refused"
    sites.revoke(serial, Reason.KEY_COMPROMISE, at=START + 2 * DAY)
    (kept,) = sites.revoked()
    assert (kept.reason, kept.revoked_at) == (Reason.KEY_COMPROMISE, START + DAY)
    assert code_of(lambda: sites.revoke(serial, Reason.KEY_COMPROMISE, at=START)) == "evidence.pki_refused"


def test_only_what_was_issued_is_revoked(root: AuthorityBook, sites: AuthorityBook) -> None:
    for serial in (1, root.certificate.x509.serial_number):
        assert code_of(lambda serial=serial: sites.revoke(serial, Reason.SUPERSEDED, at=START)) == (  # type: ignore[misc]
            "evidence.pki_refused"
        )


@pytest.mark.parametrize(
    ("role", "party", "lifetime"),
    [
        (Role.HUB, "hub", DAY),
        (Role.TEE_ROOT, "vendor", DAY),
        (Role.SITE, "a b", DAY),
        (Role.SITE, "", DAY),
        (Role.SITE, "x" * 64, DAY),
        (Role.SITE, "north", 400 * DAY),
        (Role.SITE, "north", timedelta(0)),
        (Role.SITE, "north", -DAY),
    ],
)
def test_what_an_authority_may_not_issue_it_refuses(
    sites: AuthorityBook, role: Role, party: str, lifetime: timedelta
) -> None:
    key = new_key()
    assert (
        code_of(lambda: sites.issue(key, role, party, at=START, lifetime=lifetime)) == "evidence.pki_refused"
    )
    assert sites.issued() == ()


def test_nothing_outlives_or_precedes_its_authority(sites: AuthorityBook) -> None:
    key = new_key()
    for at in (START - timedelta(seconds=1), START + 729 * DAY):
        assert code_of(lambda at=at: sites.issue(key, Role.SITE, "north", at=at)) == "evidence.pki_refused"  # type: ignore[misc]


def test_a_key_is_certified_for_one_party_only(root: AuthorityBook, sites: AuthorityBook) -> None:
    key = new_key()
    sites.issue(key, Role.SITE, "north", at=START)
    sites.issue(key, Role.SITE, "north", at=START + 20 * DAY)
    for other in (key, sites.certificate.key):
        assert code_of(lambda other=other: sites.issue(other, Role.SITE, "south", at=START)) == (  # type: ignore[misc]
            "evidence.pki_refused"
        )


def test_only_a_root_makes_authorities(tmp_path: Path, sites: AuthorityBook) -> None:
    below = tmp_path / "below"
    assert (
        code_of(
            lambda: create_authority(below, STORE, sites, "Below", [Role.SITE], algorithm=ED25519, at=START)
        )
        == "evidence.pki_refused"
    )
    assert not (below / "chain.pem").exists()


@pytest.mark.parametrize("roles", [[], [Role.TEE_ROOT], [Role.SITE, Role.TSA]])
def test_an_authority_is_for_parties_roles(tmp_path: Path, root: AuthorityBook, roles: list[Role]) -> None:
    place = tmp_path / "other"
    assert (
        code_of(lambda: create_authority(place, STORE, root, "Other", roles, algorithm=ED25519, at=START))
        == "evidence.pki_refused"
    )


def test_an_authority_in_the_place_of_another_is_refused(tmp_path: Path, root: AuthorityBook) -> None:
    code = code_of(lambda: create_root(tmp_path / "root", STORE, "Again", algorithm=ED25519, at=START))
    assert code == "evidence.pki_refused"
    assert open_book(tmp_path / "root", STORE).certificate == root.certificate


def test_a_book_with_another_key_or_damaged_pages_is_refused(
    tmp_path: Path, root: AuthorityBook, sites: AuthorityBook
) -> None:
    (tmp_path / "sites" / "revoked.json").write_text("{}\n")
    assert code_of(sites.revoked) == "evidence.pki_refused"
    (tmp_path / "sites" / "key").write_bytes((tmp_path / "root" / "key").read_bytes())
    assert code_of(lambda: open_book(tmp_path / "sites", STORE)) == "evidence.pki_refused"
    (tmp_path / "sites" / "key").write_text("../x")
    assert code_of(lambda: open_book(tmp_path / "sites", STORE)) == "key.name"
    (tmp_path / "sites" / "chain.pem").write_text("x")
    assert code_of(lambda: open_book(tmp_path / "sites", STORE)) == "evidence.certificate_malformed"
