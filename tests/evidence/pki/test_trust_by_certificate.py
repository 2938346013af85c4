"""A key that nobody pinned is believed where a pinned authority vouches for it: in its role, at its time."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.keys import ALGORITHMS
from cloister.evidence.errors import TrustError
from cloister.evidence.pki.issuing import Reason, Revocation
from cloister.evidence.predicates import Role
from cloister.evidence.trust import AuthorityEntry, Trust, TrustEntry, write_trust
from tests.conftest import START
from tests.evidence.pki.scene import DAY, LATER, Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def refused(trust: Trust, role: Role = Role.SITE, party: str = "north", at: datetime | None = LATER) -> str:
    with pytest.raises(TrustError) as caught:
        trust.key(role, party, at=at)
    return caught.value.code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_certified_key_is_given_for_its_role_party_and_time(algorithm: str) -> None:
    scene = Scene(algorithm)
    trust = scene.trust().with_credentials([scene.chain()])
    key = scene.site_key.public_key
    assert trust.key(Role.SITE, "north", at=LATER) == key
    assert trust.key(Role.SITE, "north", at=LATER, key_id=key.key_id) == key
    assert trust.keys(Role.SITE, "north", at=LATER) == (key,)
    key.verify(scene.site_key.sign(b"m"), b"m")
    for role, party in ((Role.HUB, "north"), (Role.SITE, "south")):
        assert refused(trust, role, party) == "evidence.trust_unknown"
    with pytest.raises(TrustError) as caught:
        trust.key(Role.SITE, "north", at=LATER, key_id="sha256:" + "0" * 64)
    assert caught.value.code == "evidence.trust_unknown"


def test_the_root_may_come_along_or_stay_away(scene: Scene) -> None:
    for chain in (scene.chain(), scene.chain(scene.site, scene.ca, scene.root)):
        trust = scene.trust().with_credentials([chain])
        assert trust.key(Role.SITE, "north", at=LATER) == scene.site_key.public_key


def test_without_a_time_or_without_the_chain_no_certified_key_is_given(scene: Scene) -> None:
    assert refused(scene.trust()) == "evidence.trust_unknown"
    assert refused(scene.trust().with_credentials([scene.chain()]), at=None) == "evidence.trust_unknown"


def test_trust_itself_is_unchanged_by_what_an_artifact_brings(scene: Scene) -> None:
    trust = scene.trust()
    trust.with_credentials([scene.chain()])
    assert refused(trust) == "evidence.trust_unknown"


def test_validity_is_held_to_the_second_with_no_tolerance(scene: Scene) -> None:
    trust = scene.trust().with_credentials([scene.chain()])
    second = timedelta(seconds=1)
    for good in (START, START + 30 * DAY):
        assert trust.key(Role.SITE, "north", at=good)
    assert refused(trust, at=START - second) == "evidence.certificate_not_yet_valid"
    assert refused(trust, at=START + 30 * DAY + second) == "evidence.certificate_expired"


def test_a_root_vouches_only_for_the_role_it_is_pinned_for(scene: Scene) -> None:
    trust = scene.trust(roles=[Role.HUB]).with_credentials([scene.chain()])
    assert refused(trust) == "evidence.certificate_untrusted"


def test_a_root_of_the_same_name_is_not_the_pinned_one(scene: Scene) -> None:
    stranger = Scene()
    trust = scene.trust().with_credentials([stranger.chain()])
    assert refused(trust) == "evidence.certificate_untrusted"
    trust = scene.trust().with_credentials([stranger.chain(stranger.site, stranger.ca, stranger.root)])
    assert refused(trust) == "evidence.certificate_untrusted"
    trust = scene.trust().with_credentials([stranger.chain(stranger.site, scene.ca)])
    assert refused(trust) == "evidence.certificate_signature"


def test_a_pinned_key_counts_and_no_certificate_beside_it(scene: Scene) -> None:
    pinned = scene.store.generate("pinned").public_key
    trust = Trust(
        [TrustEntry(Role.SITE, "north", pinned.pem.encode())],
        authorities=[AuthorityEntry(Role.SITE, "example", scene.root.pem.encode())],
    ).with_credentials([scene.chain()])
    certified = scene.site_key.public_key.key_id
    assert trust.key(Role.SITE, "north", key_id=certified, at=LATER) == pinned
    assert trust.keys(Role.SITE, "north", at=LATER) == (pinned,)


def test_rotation_old_and_new_key_each_hold_in_their_own_time(scene: Scene) -> None:
    new_key = scene.store.generate("rotated")
    renewed = scene.issue("north", new_key, at=START + 20 * DAY)
    trust = scene.trust().with_credentials([scene.chain(), scene.chain(renewed, scene.ca)])
    old, new = scene.site_key.public_key, new_key.public_key
    assert trust.key(Role.SITE, "north", at=LATER) == old
    assert trust.key(Role.SITE, "north", at=START + 40 * DAY) == new
    overlap = START + 25 * DAY
    assert set(trust.keys(Role.SITE, "north", at=overlap)) == {old, new}
    assert trust.key(Role.SITE, "north", at=overlap, key_id=new.key_id) == new
    assert refused(trust, at=overlap) == "evidence.trust_conflict"


def test_a_key_renewed_under_a_new_certificate_stays_one_key(scene: Scene) -> None:
    renewed = scene.issue("north", scene.site_key, at=START + 20 * DAY)
    trust = scene.trust().with_credentials([scene.chain(), scene.chain(renewed, scene.ca)])
    for at in (LATER, START + 25 * DAY, START + 40 * DAY):
        assert trust.key(Role.SITE, "north", at=at) == scene.site_key.public_key


def test_no_key_is_certified_for_two_parties_or_roles() -> None:
    scene = Scene(roles=(Role.SITE, Role.HUB))
    south = scene.issue("south", scene.site_key)
    hub = scene.issue("north", scene.site_key, Role.HUB)
    for other in (south, hub):
        with pytest.raises(TrustError) as caught:
            scene.trust().with_credentials([scene.chain(), scene.chain(other, scene.ca)])
        assert caught.value.code == "evidence.trust_conflict"


def test_no_certified_key_is_one_pinned_for_somebody_else(scene: Scene) -> None:
    pem = scene.site_key.public_key.pem.encode()
    root = AuthorityEntry(Role.SITE, "example", scene.root.pem.encode())
    for entry in (TrustEntry(Role.HUB, "hub", pem), TrustEntry(Role.SITE, "south", pem)):
        with pytest.raises(TrustError) as caught:
            Trust([entry], authorities=[root]).with_credentials([scene.chain()])
        assert caught.value.code == "evidence.trust_conflict"


def test_an_authority_signs_no_evidence_under_its_own_key(scene: Scene) -> None:
    root = AuthorityEntry(Role.SITE, "example", scene.root.pem.encode())
    for key in (scene.root_key, scene.ca_key):
        pinned = TrustEntry(Role.SITE, "north", key.public_key.pem.encode())
        with pytest.raises(TrustError) as caught:
            Trust([pinned], authorities=[root]).with_credentials([scene.chain()])
        assert caught.value.code == "evidence.trust_conflict"


def test_more_chains_than_any_job_has_are_refused(scene: Scene) -> None:
    with pytest.raises(TrustError) as caught:
        scene.trust().with_credentials(scene.chain() for _ in range(300))
    assert caught.value.code == "evidence.trust_malformed"


def test_authorities_and_revocations_are_read_from_a_trust_directory(tmp_path: Path, scene: Scene) -> None:
    revoked = scene.crl(Revocation(scene.site.x509.serial_number, START + 2 * DAY, Reason.SUPERSEDED))
    write_trust(
        tmp_path / "trust",
        [TrustEntry(Role.HUB, "hub", scene.store.generate("hub").public_key.pem.encode())],
        authorities=[AuthorityEntry(Role.SITE, "example", scene.root.pem.encode())],
        revocations={"issuing": revoked, "root": scene.root_crl()},
    )
    trust = Trust.load(tmp_path / "trust")
    assert trust.parties(Role.HUB) == ("hub",)
    assert trust.authorities(Role.SITE) == ("example",)
    assert trust.authorities(Role.HUB) == ()
    trust = trust.with_credentials([scene.chain()])
    assert trust.key(Role.SITE, "north", at=LATER) == scene.site_key.public_key
    assert refused(trust, at=START + 2 * DAY) == "evidence.certificate_revoked"


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        ("authority/site/bad.pem", b"x", "evidence.certificate_malformed"),
        ("authority/tee-root/example.pem", None, "evidence.trust_malformed"),
        ("authority/admin/example.pem", None, "evidence.trust_malformed"),
        ("authority/example.pem", None, "evidence.trust_malformed"),
        ("authority/site/a b.pem", None, "evidence.trust_malformed"),
        ("revoked/list.pem", b"x", "evidence.trust_malformed"),
        ("revoked/list.crl", b"x", "evidence.crl_malformed"),
    ],
)
def test_a_directory_with_anything_else_among_authorities_is_refused(
    tmp_path: Path, scene: Scene, path: str, content: bytes | None, code: str
) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_bytes(scene.root.pem.encode() if content is None else content)
    with pytest.raises(TrustError) as caught:
        Trust.load(tmp_path)
    assert caught.value.code == code


def test_only_a_root_is_pinned_as_an_authority(scene: Scene) -> None:
    for certificate in (scene.ca, scene.site):
        with pytest.raises(TrustError) as caught:
            Trust([], authorities=[AuthorityEntry(Role.SITE, "example", certificate.pem.encode())])
        assert caught.value.code == "evidence.certificate_usage"
