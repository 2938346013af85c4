"""Chains: from a signer's certificate over an issuing authority to a pinned root.

Rules kept here:

1. Pure and offline: certificates, pinned roots, revocation lists and a time come in, and a key or a refusal
   comes out.
2. The root is pinned for the role. What a chain brings along trusts nothing.
3. A signer's certificate signs and never issues: no CA, key usage digitalSignature alone and critical.
4. An authority between signer and root is constrained to roles by name (RFC 5280 section 4.2.1.10), and by
   its path length to issuing signers.
5. Every certificate is valid at the time in question, with no tolerance, and not revoked then.

The path is established once; the times are held against each use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509

from cloister.core.keys import PublicKey
from cloister.evidence.errors import CertificateError
from cloister.evidence.pki.certificates import (
    MAX_CHAIN,
    Certificate,
    extension,
    is_critical,
    load_pem_certificates,
    usage,
)
from cloister.evidence.pki.revocation import RevocationList, RevocationLists, require_unrevoked
from cloister.evidence.predicates.base import Role

_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


@dataclass(frozen=True)
class CertificateChain:
    """What an artifact brings along: who it says signs, with which key. Nothing of it is verified.

    Attributes:
        role: the role that the first certificate is bound to.
        party: the party that it is bound to.
        certificates: the signer's first, each followed by its issuer's.
    """

    role: Role
    party: str
    certificates: tuple[Certificate, ...]

    @property
    def key(self) -> PublicKey:
        """The signer's key."""
        return self.certificates[0].key


@dataclass(frozen=True)
class Credential:
    """A chain that leads to a pinned root; `require_valid` holds it against a time.

    Attributes:
        role: the role that the key is for.
        party: the party that it belongs to.
        key: the certified key.
        path: the signer's certificate first, the pinned root last.
        lists: for each certificate but the root the revocation lists of its issuer.
    """

    role: Role
    party: str
    key: PublicKey
    path: tuple[Certificate, ...]
    lists: tuple[tuple[RevocationList, ...], ...] = field(repr=False)

    def require_valid(self, at: datetime) -> None:
        """Every certificate of the path was valid and not revoked at a time.

        Raises:
            CertificateError: ``evidence.certificate_not_yet_valid``, ``evidence.certificate_expired``,
                ``evidence.certificate_revoked`` or ``evidence.crl_expired``.
        """
        for one in self.path:
            if at < one.x509.not_valid_before_utc:
                raise CertificateError(
                    "evidence.certificate_not_yet_valid",
                    f"The certificate {one.serial} was not valid yet when its key was used.",
                    "The party signs only after its certificate's validity has begun.",
                )
            if at > one.x509.not_valid_after_utc:
                raise CertificateError(
                    "evidence.certificate_expired",
                    f"The certificate {one.serial} was not valid any more when its key was used.",
                    "Let the authority certify the party's key anew; what was signed since stays refused.",
                )
        for one, lists in zip(self.path, self.lists, strict=False):
            require_unrevoked(one, lists, at)


def read_chain(pem: str | bytes) -> CertificateChain:
    """Read a chain that an artifact carries.

    Args:
        pem: certificates in PEM, the signer's first, each followed by its issuer's; the root may be left out.

    Raises:
        CertificateError: it can't be read, or binds its key to nobody.
    """
    certificates = load_pem_certificates(pem)
    role, party = certificates[0].bound_to
    return CertificateChain(role, party, certificates)


def load_root(pem: bytes) -> Certificate:
    """Read a root certificate that is to be pinned.

    Raises:
        CertificateError: it is not one self-signed certificate of an authority.
    """
    certificates = load_pem_certificates(pem)
    if len(certificates) != 1:
        raise usage("a pinned root is one certificate")
    root = certificates[0]
    _require_authority(root, below=0)
    if root.subject != root.issuer:
        raise usage("a pinned root is self-signed")
    root.verify_issued_by(root)
    return root


def establish(
    chain: CertificateChain, roots: Iterable[Certificate], revocations: RevocationLists
) -> Credential:
    """Follow a chain to one of the roots pinned for its role.

    Args:
        chain: as read.
        roots: the roots that may vouch for the chain's role, each from `load_root`.
        revocations: the lists that the verifier holds.

    Returns:
        The path and its revocation lists, not yet held against a time.

    Raises:
        CertificateError: with the reason.
    """
    path = _path(chain.certificates, tuple(roots))
    _require_signer(path[0])
    for above, (certificate, issuer) in enumerate(pairwise(path)):
        _require_authority(issuer, below=above)
        _require_issued(certificate, issuer)
    for authority in path[1:]:
        _require_allowed(authority, chain, constrained=authority is not path[-1])
    lists = tuple(revocations.of(issuer) for issuer in path[1:])
    return Credential(chain.role, chain.party, chain.key, path, lists)


def _path(certificates: tuple[Certificate, ...], roots: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    last = certificates[-1]
    if len(certificates) > 1 and any(root.der == last.der for root in roots):
        return certificates
    for root in roots:
        if root.subject == last.issuer and (_authority_identifier(last) in {None, root.key_identifier}):
            if len(certificates) == MAX_CHAIN:
                raise usage(f"its chain is longer than {MAX_CHAIN}")
            return (*certificates, root)
    raise CertificateError(
        "evidence.certificate_untrusted",
        "The chain doesn't lead to a root that is pinned for this role.",
        "Pin the authority's root in authority/<role>/, if it may vouch for that role.",
    )


def _require_signer(leaf: Certificate) -> None:
    constraints, purposes = extension(leaf, x509.BasicConstraints), extension(leaf, x509.KeyUsage)
    if constraints is not None and constraints.ca:
        raise usage("an authority's certificate signs no evidence")
    if purposes is None or not is_critical(leaf, x509.KeyUsage):
        raise usage("it has no critical key usage")
    if [name for name in _USAGES if getattr(purposes, name)] != ["digital_signature"]:
        raise usage("its key is not for signatures alone")


def _require_authority(issuer: Certificate, *, below: int) -> None:
    """An issuer may issue, with so many authorities below it."""
    constraints, purposes = extension(issuer, x509.BasicConstraints), extension(issuer, x509.KeyUsage)
    if constraints is None or not constraints.ca or not is_critical(issuer, x509.BasicConstraints):
        raise usage("its issuer is no authority")
    if purposes is None or not purposes.key_cert_sign or not is_critical(issuer, x509.KeyUsage):
        raise usage("its issuer's key is not for issuing")
    if constraints.path_length is not None and below > constraints.path_length:
        raise usage("its issuer may have no authority below it")


def _require_issued(certificate: Certificate, issuer: Certificate) -> None:
    if certificate.issuer != issuer.subject or _authority_identifier(certificate) not in {
        None,
        issuer.key_identifier,
    }:
        raise CertificateError(
            "evidence.certificate_signature", "A certificate names another issuer than the next of its chain."
        )
    certificate.verify_issued_by(issuer)


def _require_allowed(authority: Certificate, chain: CertificateChain, *, constrained: bool) -> None:
    """The names that an authority may certify include the signer's (RFC 5280 section 4.2.1.10)."""
    found = extension(authority, x509.NameConstraints)
    if found is None:
        if constrained:
            raise _not_allowed("is not constrained to any role")
        return
    permitted = found.permitted_subtrees or []
    if found.excluded_subtrees or not all(isinstance(one, x509.DirectoryName) for one in permitted):
        raise CertificateError(
            "evidence.certificate_extension", "An authority's name constraints are of a kind unknown here."
        )
    subject = list(chain.certificates[0].x509.subject.rdns)
    for one in permitted:
        prefix = one.value.rdns if isinstance(one, x509.DirectoryName) else []
        if prefix and subject[: len(prefix)] == list(prefix):
            return
    raise _not_allowed(f"may not vouch for a {chain.role.value}")


def _authority_identifier(certificate: Certificate) -> bytes | None:
    found = extension(certificate, x509.AuthorityKeyIdentifier)
    return None if found is None else found.key_identifier


def _not_allowed(reason: str) -> CertificateError:
    return CertificateError("evidence.certificate_role", f"An authority in the chain {reason}.")
