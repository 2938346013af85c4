"""A third party with public keys only tells good statements from bad ones (property P18 of Pramaan-Health).

Random certificates, revocations, times and tampering are drawn; what has to come out is computed from the
draw itself, without looking at certificates.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.errors import CloisterError
from cloister.core.keys import ALGORITHMS, EphemeralKeyStore, Signer
from cloister.evidence.envelope import Envelope, Signature, sign_envelope, verify_envelope
from cloister.evidence.pki.issuing import (
    Reason,
    Revocation,
    issue_authority,
    issue_crl,
    issue_root,
    issue_signer,
)
from cloister.evidence.predicates import Role
from cloister.evidence.trust import AuthorityEntry, Trust
from tests.conftest import START

DAY = timedelta(days=1)
ROLES = (Role.SITE, Role.HUB, Role.DEVELOPER, Role.WITNESS, Role.AUDITOR, Role.ENCLAVE)
STORE = EphemeralKeyStore()
KEYS = {
    algorithm: tuple(
        STORE.generate(f"{algorithm}-{name}", algorithm) for name in ("root", "ca", "party", "other")
    )
    for algorithm in ALGORITHMS
}
TYPE = "application/vnd.test"


@dataclass(frozen=True)
class Draw:
    """One made-up case."""

    algorithm: str
    role: Role
    asked_role: Role
    same_party: bool
    pinned: frozenset[Role]
    begins: int
    lasts: int
    used: int
    revoked: int | None
    compromised: bool
    tampered: str

    @property
    def honest(self) -> bool:
        """Whether a third party has to accept the statement."""
        in_time = self.begins <= self.used <= self.begins + self.lasts
        gone = self.revoked is not None and (self.compromised or self.used >= self.revoked)
        bound = self.asked_role is self.role and self.same_party and self.role in self.pinned
        return in_time and not gone and bound and self.tampered == "nothing"


DRAWS = st.builds(
    Draw,
    algorithm=st.sampled_from(ALGORITHMS),
    role=st.sampled_from(ROLES),
    asked_role=st.sampled_from(ROLES),
    same_party=st.booleans(),
    pinned=st.frozensets(st.sampled_from(ROLES), min_size=1),
    begins=st.integers(0, 20),
    lasts=st.integers(1, 30),
    used=st.integers(0, 40),
    revoked=st.none() | st.integers(0, 40),
    compromised=st.booleans(),
    tampered=st.sampled_from(["nothing", "payload", "signature", "type", "signer", "chain", "authority"]),
)
# Most draws of the above are refused for several reasons; these are honest but for at most one thing.
ALMOST = DRAWS.flatmap(
    lambda one: st.sampled_from(["pinned", "asked", "party", "time", "revoked", "tampered", "none"]).map(
        lambda kept: Draw(
            algorithm=one.algorithm,
            role=one.role,
            asked_role=one.asked_role if kept == "asked" else one.role,
            same_party=one.same_party if kept == "party" else True,
            pinned=one.pinned if kept == "pinned" else frozenset({one.role}),
            begins=one.begins if kept == "time" else 0,
            lasts=one.lasts if kept == "time" else 41,
            used=one.used,
            revoked=one.revoked if kept == "revoked" else None,
            compromised=one.compromised,
            tampered=one.tampered if kept == "tampered" else "nothing",
        )
    )
)


def day(number: int) -> datetime:
    return START + number * DAY


def accepted(draw: Draw) -> bool:
    root_key, ca_key, party_key, other_key = KEYS[draw.algorithm]
    root = issue_root(root_key, "root", at=START)
    ca = issue_authority(root_key, root, ca_key.public_key, "issuing", ROLES, at=START)
    lifetime = draw.lasts * DAY
    certificate = issue_signer(
        ca_key, ca, party_key.public_key, draw.role, "north", at=day(draw.begins), lifetime=lifetime
    )
    reason = Reason.KEY_COMPROMISE if draw.compromised else Reason.SUPERSEDED
    entries = []
    if draw.revoked is not None:
        entries = [Revocation(certificate.x509.serial_number, day(draw.revoked), reason)]
    until = day(50)
    lists = [
        issue_crl(root_key, root, [], number=1, at=START, next_update=until),
        issue_crl(ca_key, ca, entries, number=1, at=START, next_update=until),
    ]
    trust = Trust(
        [],
        authorities=[AuthorityEntry(role, "root", root.pem.encode()) for role in draw.pinned],
        revocations=lists,
    )
    chain = certificate.pem + ca.pem
    if draw.tampered == "authority":
        own = issue_authority(
            other_key, issue_root(other_key, "root", at=START), ca_key.public_key, "issuing", ROLES, at=START
        )
        chain = certificate.pem + own.pem
    elif draw.tampered == "chain":
        chain = certificate.pem
    return judged(trust, chain, signed(draw, party_key, other_key), draw)


def signed(draw: Draw, party_key: Signer, other_key: Signer) -> Envelope:
    envelope = sign_envelope(TYPE, b"statement", other_key if draw.tampered == "signer" else party_key)
    one = envelope.signatures[0]
    if draw.tampered == "payload":
        return Envelope(TYPE, b"Statement", envelope.signatures)
    if draw.tampered == "type":
        return Envelope(TYPE + "x", b"statement", envelope.signatures)
    if draw.tampered == "signature":
        return Envelope(TYPE, b"statement", (Signature(one.key_id, one.sig[:-1] + bytes([one.sig[-1] ^ 1])),))
    return envelope


def judged(trust: Trust, chain: str, envelope: Envelope, draw: Draw) -> bool:
    try:
        key = trust.with_credentials([chain]).key(
            draw.asked_role,
            "north" if draw.same_party else "south",
            key_id=envelope.signatures[0].key_id,
            at=day(draw.used),
        )
        return verify_envelope(envelope, key) == b"statement"
    except CloisterError:
        return False


@settings(max_examples=200)
@given(DRAWS | ALMOST)
def test_a_third_party_accepts_exactly_what_was_signed_in_role_in_time_and_unrevoked(draw: Draw) -> None:
    assert accepted(draw) == draw.honest


def test_an_honest_draw_is_accepted() -> None:
    for algorithm in ALGORITHMS:
        draw = Draw(
            algorithm, Role.SITE, Role.SITE, True, frozenset({Role.SITE}), 0, 30, 5, None, False, "nothing"
        )
        assert draw.honest
        assert accepted(draw)
