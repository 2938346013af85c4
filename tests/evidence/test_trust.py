"""Trust directories: pinned keys, explicit roles, no key twice, nothing that isn't asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.core.errors import StorageError
from cloister.core.keys import Signer
from cloister.evidence.errors import EvidenceError
from cloister.evidence.pki.issuing import issue_root
from cloister.evidence.predicates import Role
from cloister.evidence.trust import Trust, TrustEntry, write_trust


def entry(role: Role, party: str, signer: Signer) -> TrustEntry:
    return TrustEntry(role, party, signer.public_key.pem.encode())


def root_of(signer: Signer) -> bytes:
    return issue_root(signer, "a vendor", at=datetime(2026, 1, 1, tzinfo=UTC)).pem.encode()


def test_a_root_of_a_vendor_is_one_certificate_whose_key_serves_nothing_else(
    signer: Signer, other_signer: Signer
) -> None:
    root = root_of(signer)
    for pem in (b"garbage", root + root_of(other_signer), b""):
        with pytest.raises(EvidenceError) as caught:
            Trust([TrustEntry(Role.TSA, "clock", pem)])
        assert caught.value.code == "evidence.trust_malformed"
    for other in (entry(Role.HUB, "hub", signer), TrustEntry(Role.TEE_ROOT, "vendor", root)):
        with pytest.raises(EvidenceError) as caught:
            Trust([TrustEntry(Role.TSA, "clock", root), other])
        assert caught.value.code == "evidence.trust_conflict"


def test_what_was_written_is_what_is_pinned(tmp_path: Path, new_signer: Callable[[str], Signer]) -> None:
    roles = (Role.HUB, Role.SITE, Role.DEVELOPER, Role.HOSPITAL)
    signers = {role: new_signer(role.value) for role in roles}
    root = TrustEntry(Role.TEE_ROOT, "vendor", root_of(new_signer("vendor")))
    write_trust(tmp_path / "trust", [*(entry(role, "north", signers[role]) for role in roles), root])
    trust = Trust.load(tmp_path / "trust")
    for role in roles:
        assert trust.key(role, "north") == signers[role].public_key
        assert trust.parties(role) == ("north",)
    assert dict(trust.tee_roots) == {"vendor": root.pem}
    assert trust.parties(Role.TEE_ROOT) == ("vendor",)


def test_what_is_not_pinned_is_not_trusted(signer: Signer) -> None:
    trust = Trust([entry(Role.SITE, "north", signer)])
    for role, party in ((Role.HUB, "north"), (Role.SITE, "south")):
        with pytest.raises(EvidenceError) as caught:
            trust.key(role, party)
        assert caught.value.code == "evidence.trust_unknown"


@pytest.mark.parametrize("other", [(Role.HUB, "north"), (Role.SITE, "south"), (Role.SITE, "north")])
def test_no_key_serves_two_roles_or_two_parties(
    tmp_path: Path, signer: Signer, other: tuple[Role, str]
) -> None:
    entries = [entry(Role.SITE, "north", signer), entry(*other, signer)]
    with pytest.raises(EvidenceError) as caught:
        write_trust(tmp_path / "trust", entries)
    assert caught.value.code == "evidence.trust_conflict"
    assert not (tmp_path / "trust").exists()


def test_a_party_has_one_key_in_a_role(signer: Signer, other_signer: Signer) -> None:
    with pytest.raises(EvidenceError):
        Trust([entry(Role.SITE, "north", signer), entry(Role.SITE, "north", other_signer)])


def test_nothing_pinned_is_replaced(tmp_path: Path, signer: Signer, other_signer: Signer) -> None:
    write_trust(tmp_path, [entry(Role.SITE, "north", signer)])
    with pytest.raises(StorageError):
        write_trust(tmp_path, [entry(Role.SITE, "north", other_signer)])
    assert Trust.load(tmp_path).key(Role.SITE, "north") == signer.public_key


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: (root / "admin").mkdir(),
        lambda root: (root / "notes.txt").write_text("x"),
        lambda root: (root / "site" / "notes.txt").write_text("x"),
        lambda root: (root / "site" / "bad.pem").write_text("x"),
        lambda root: (root / "site" / "a b.pem").write_bytes((root / "site" / "north.pem").read_bytes()),
        lambda root: (root / "site" / "link.pem").symlink_to(root / "site" / "north.pem"),
        lambda root: (root / "hub").symlink_to(root / "site"),
        lambda root: (root / "site" / "huge.pem").write_bytes(b"x" * 70_000),
        lambda root: (root / "site" / "folder.pem").mkdir(),
    ],
)
def test_a_directory_with_anything_else_in_it_is_refused(
    tmp_path: Path, signer: Signer, spoil: Callable[[Path], object]
) -> None:
    write_trust(tmp_path, [entry(Role.SITE, "north", signer)])
    spoil(tmp_path)
    with pytest.raises(EvidenceError) as caught:
        Trust.load(tmp_path)
    assert caught.value.code == "evidence.trust_malformed"


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError) as caught:
        Trust.load(tmp_path / "nowhere")
    assert "hospital" in caught.value.hint
