"""Revocation: from its date on, always where the key was stolen, and only on the word of the authority."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.core.keys import ALGORITHMS, ECDSA_P256, EphemeralKeyStore, PublicKey
from cloister.evidence.errors import CertificateError, TrustError
from cloister.evidence.pki import Certificate, load_crl
from cloister.evidence.pki.issuing import Reason, Revocation, issue_crl
from cloister.evidence.pki.revocation import require_unrevoked
from cloister.evidence.predicates import Role
from tests.conftest import START
from tests.evidence.pki.scene import DAY, LATER, Scene, Shape, authority_shape

SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def revoked(scene: Scene, reason: Reason = Reason.SUPERSEDED, at: datetime = LATER) -> Revocation:
    return Revocation(scene.site.x509.serial_number, at, reason)


def outcome(scene: Scene, *lists: bytes, at: datetime = LATER) -> str:
    try:
        scene.trust(lists).with_credentials([scene.chain()]).key(Role.SITE, "north", at=at)
    except TrustError as error:
        return error.code
    return "given"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_revoked_certificate_is_refused_from_its_date_on(algorithm: str) -> None:
    scene = Scene(algorithm)
    lists = (scene.root_crl(), scene.crl(revoked(scene)))
    assert outcome(scene, *lists, at=LATER - SECOND) == "given"
    assert outcome(scene, *lists, at=LATER) == "evidence.certificate_revoked"
    assert outcome(scene, *lists, at=LATER + DAY) == "evidence.certificate_revoked"


@pytest.mark.parametrize("reason", [Reason.KEY_COMPROMISE, Reason.CA_COMPROMISE])
def test_a_stolen_key_is_refused_for_all_times(scene: Scene, reason: Reason) -> None:
    lists = (scene.root_crl(), scene.crl(revoked(scene, reason)))
    for at in (START, LATER - SECOND, LATER):
        assert outcome(scene, *lists, at=at) == "evidence.certificate_revoked"


def test_other_certificates_of_the_authority_stay_good(scene: Scene) -> None:
    other = Revocation(scene.site.x509.serial_number + 1, START, Reason.KEY_COMPROMISE)
    assert outcome(scene, scene.root_crl(), scene.crl(other)) == "given"


def test_a_revoked_authority_vouches_for_nobody(scene: Scene) -> None:
    entry = Revocation(scene.ca.x509.serial_number, START, Reason.UNSPECIFIED)
    assert outcome(scene, scene.root_crl(entry), scene.crl()) == "evidence.certificate_revoked"


def test_a_list_is_used_until_its_next_update(scene: Scene) -> None:
    lists = (scene.root_crl(until=START + 20 * DAY), scene.crl(until=START + 7 * DAY))
    assert outcome(scene, *lists, at=START + 7 * DAY) == "given"
    assert outcome(scene, *lists, at=START + 7 * DAY + SECOND) == "evidence.crl_expired"
    newer = scene.crl(at=START + 6 * DAY, until=START + 14 * DAY, number=2)
    assert outcome(scene, *lists, newer, at=START + 8 * DAY) == "given"


def test_an_old_list_still_revokes(scene: Scene) -> None:
    old, new = scene.crl(revoked(scene)), scene.crl(at=LATER, number=2)
    assert outcome(scene, scene.root_crl(), old, new) == "evidence.certificate_revoked"


def test_whoever_holds_lists_holds_one_of_each_authority(scene: Scene) -> None:
    assert outcome(scene, scene.crl()) == "evidence.crl_missing"
    assert outcome(scene, scene.root_crl()) == "evidence.crl_missing"
    assert outcome(scene) == "given"


def test_a_list_of_another_authority_does_not_serve(scene: Scene) -> None:
    other = Scene(name="Other")
    assert outcome(scene, scene.root_crl(), other.crl()) == "evidence.crl_missing"
    namesake = Scene()
    assert outcome(scene, scene.root_crl(), namesake.crl()) == "evidence.crl_missing"


def forged(scene: Scene, identifier: bytes | None) -> bytes:
    """A list in the authority's name, signed by somebody else."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(scene.ca.x509.subject)
        .last_update(START)
        .next_update(START + 7 * DAY)
    )
    if identifier is not None:
        value = x509.AuthorityKeyIdentifier(identifier, None, None)
        builder = builder.add_extension(value, critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_forged_list_is_refused(algorithm: str) -> None:
    scene = Scene(algorithm)
    lists = (scene.root_crl(), scene.crl(), forged(scene, scene.ca.key_identifier))
    assert outcome(scene, *lists) == "evidence.crl_untrusted"
    assert outcome(scene, lists[0], forged(scene, None)) == "evidence.crl_malformed"


def test_every_changed_byte_of_a_list_is_refused() -> None:
    scene = Scene(ECDSA_P256)
    good = scene.crl(revoked(scene, at=START + 5 * DAY))
    root = scene.root_crl()
    accepted = []
    for position in range(len(good)):
        changed = bytearray(good)
        changed[position] ^= 1
        if outcome(scene, root, bytes(changed)) == "given":
            accepted.append(position)
    assert accepted == []


def test_a_list_is_read_as_der_and_as_pem(scene: Scene) -> None:
    der = scene.crl(revoked(scene))
    pem = x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
    assert load_crl(der) == load_crl(pem)
    for other in (b"", der + b"\0", der[:-1], pem[:50], b"x" * 2_000_000):
        with pytest.raises(CertificateError) as caught:
            load_crl(other)
        assert caught.value.code == "evidence.crl_malformed"


@pytest.mark.parametrize(
    "extension",
    [
        x509.IssuingDistributionPoint(None, None, True, False, None, False, False),
        x509.DeltaCRLIndicator(1),
    ],
)
def test_partial_lists_are_refused(scene: Scene, extension: x509.ExtensionType) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(scene.ca.x509.subject)
        .last_update(START)
        .next_update(START + DAY)
        .add_extension(x509.AuthorityKeyIdentifier(b"id", None, None), critical=False)
        .add_extension(extension, critical=True)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(CertificateError) as caught:
        load_crl(made.public_bytes(serialization.Encoding.DER))
    assert caught.value.code == "evidence.crl_malformed"


def test_only_the_authority_makes_its_list_and_for_a_time_to_come(scene: Scene) -> None:
    for signer, until in ((scene.root_key, START + DAY), (scene.ca_key, START)):
        with pytest.raises(CertificateError) as caught:
            issue_crl(signer, scene.ca, [], number=1, at=START, next_update=until)
        assert caught.value.code == "evidence.pki_refused"


KEY = ec.generate_private_key(ec.SECP256R1())
NAME = authority_shape().subject


def self_made(authority: Certificate, *extensions: x509.ExtensionType, serial: int = 7) -> bytes:
    """A list with one entry, signed by the authority's key, as another program might write it."""
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(LATER)
    for one in extensions:
        entry = entry.add_extension(one, critical=False)
    assert authority.key_identifier is not None
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.x509.subject)
        .last_update(START)
        .next_update(START + 30 * DAY)
        .add_extension(x509.AuthorityKeyIdentifier(authority.key_identifier, None, None), critical=False)
        .add_revoked_certificate(entry.build())
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def test_an_authority_whose_key_is_not_for_lists_revokes_nothing() -> None:
    key = PublicKey.of(KEY.public_key())
    for usages, good in ((("key_cert_sign", "crl_sign"), True), (("key_cert_sign",), False)):
        authority = authority_shape(usages=usages).signed_by(KEY, key, NAME)
        made = load_crl(self_made(authority))
        if good:
            made.verify(authority)
        else:
            with pytest.raises(CertificateError) as caught:
                made.verify(authority)
            assert caught.value.code == "evidence.crl_untrusted"


def test_a_certificate_known_to_be_bad_earlier_is_refused_from_then_on() -> None:
    """Invalidity date, RFC 5280 section 5.3.2: the key was in doubt before anybody revoked it."""
    key = PublicKey.of(KEY.public_key())
    authority = authority_shape().signed_by(KEY, key, NAME)
    site = Shape().signed_by(KEY, EphemeralKeyStore().generate("site").public_key, NAME)
    doubted = x509.InvalidityDate((LATER - DAY / 2).replace(tzinfo=None))
    lists = (load_crl(self_made(authority, doubted, serial=site.x509.serial_number)),)
    require_unrevoked(site, lists, LATER - DAY / 2 - SECOND)
    with pytest.raises(CertificateError) as caught:
        require_unrevoked(site, lists, LATER - DAY / 2)
    assert caught.value.code == "evidence.certificate_revoked"


def test_a_list_that_takes_a_revocation_back_is_refused() -> None:
    authority = authority_shape().signed_by(KEY, PublicKey.of(KEY.public_key()), NAME)
    with pytest.raises(CertificateError) as caught:
        load_crl(self_made(authority, x509.CRLReason(x509.ReasonFlags.remove_from_crl)))
    assert caught.value.code == "evidence.crl_malformed"
