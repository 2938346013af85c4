"""Revocation lists (RFC 5280 section 5) that a verifier holds.

Rules kept here:

1. Whoever holds revocation lists holds one for each authority that a chain relies on; where one is missing,
   or is out of date at the time in question, the chain is refused.
2. A list counts only with the signature of the authority it names, by name and key identifier.
3. A serial number is refused from its revocation date on; where the key itself was compromised, always, since
   whoever has the key can also write dates.
4. Complete lists only: an unknown critical extension, a partial or an indirect list is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloister.evidence.errors import CertificateError
from cloister.evidence.pki.certificates import (
    UNREADABLE,
    Certificate,
    extension,
    whole_signature,
)

MAX_CRL_BYTES: Final = 1024 * 1024
_ALWAYS: Final = frozenset(
    {x509.ReasonFlags.key_compromise, x509.ReasonFlags.ca_compromise, x509.ReasonFlags.aa_compromise}
)


@dataclass(frozen=True)
class RevocationList:
    """A revocation list that can be read whole; its signature is judged with its authority's certificate.

    Attributes:
        issuer: the authority's name in DER.
        key_identifier: which of the authority's keys signed it.
        this_update: when it was made.
        next_update: until when it may be used.
        x509: the library's view of it.
    """

    issuer: bytes
    key_identifier: bytes
    this_update: datetime
    next_update: datetime
    x509: x509.CertificateRevocationList = field(repr=False, compare=False)
    _moments: dict[int, datetime | None] = field(default_factory=dict, repr=False, compare=False)

    def verify(self, authority: Certificate) -> None:
        """The authority's key signed this list, and may.

        Raises:
            CertificateError: ``evidence.crl_untrusted``.
        """
        usage = extension(authority, x509.KeyUsage)
        try:
            good = self.x509.is_signature_valid(authority.x509.public_key())  # type: ignore[arg-type]
        except UNREADABLE:
            good = False
        if not good or usage is None or not usage.crl_sign:
            raise CertificateError(
                "evidence.crl_untrusted", "A revocation list is not signed by the authority it names."
            )

    def refused_from(self, certificate: Certificate) -> datetime | None:
        """From when on a certificate of this authority is refused; None if it is not on the list."""
        serial = certificate.x509.serial_number
        if serial not in self._moments:  # the library reads the whole list each time it is asked
            self._moments[serial] = self._looked_up(certificate)
        return self._moments[serial]

    def _looked_up(self, certificate: Certificate) -> datetime | None:
        entry = self.x509.get_revoked_certificate_by_serial_number(certificate.x509.serial_number)
        if entry is None:
            return None
        moment = entry.revocation_date_utc
        for one in entry.extensions:
            if isinstance(one.value, x509.CRLReason) and one.value.reason in _ALWAYS:
                return certificate.x509.not_valid_before_utc
            if isinstance(one.value, x509.InvalidityDate):
                moment = min(moment, one.value.invalidity_date_utc)
        return moment


def load_crl(data: bytes) -> RevocationList:
    """Read a revocation list, DER or PEM.

    Raises:
        CertificateError: ``evidence.crl_malformed``.
    """
    if len(data) > MAX_CRL_BYTES:
        raise _malformed("it is too long")
    try:
        pem = data.startswith(b"-----")
        found = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
        der = found.public_bytes(serialization.Encoding.DER)
        strict = (pem or der == data) and whole_signature(found.signature, der)
        identifier = None
        for one in found.extensions:
            if isinstance(one.value, x509.AuthorityKeyIdentifier):
                identifier = one.value.key_identifier
            elif one.critical:
                raise _malformed(f"it has the critical extension {one.oid.dotted_string}")
        for entry in found:
            _read_entry(entry)
        issuer, next_update = found.issuer.public_bytes(), found.next_update_utc
        this_update = found.last_update_utc
    except UNREADABLE:
        raise _malformed("it can't be read") from None
    if not strict or identifier is None or next_update is None:
        raise _malformed("it is not strict DER, or names no key identifier or no next update")
    return RevocationList(issuer, identifier, this_update, next_update, found)


class RevocationLists:
    """All the lists a verifier holds; with none it asks for none."""

    def __init__(self, lists: Iterable[RevocationList] = ()) -> None:
        self._lists = tuple(lists)

    def __len__(self) -> int:
        return len(self._lists)

    def of(self, authority: Certificate) -> tuple[RevocationList, ...]:
        """The lists of one authority, each with its signature checked.

        Raises:
            CertificateError: ``evidence.crl_missing`` or ``evidence.crl_untrusted``.
        """
        found = tuple(
            one
            for one in self._lists
            if one.issuer == authority.subject and one.key_identifier == authority.key_identifier
        )
        if self._lists and not found:
            raise CertificateError(
                "evidence.crl_missing",
                "No revocation list is held of an authority in the chain.",
                "Get the authority's newest list and put it into revoked/.",
            )
        for one in found:
            one.verify(authority)
        return found


def require_unrevoked(certificate: Certificate, lists: tuple[RevocationList, ...], at: datetime) -> None:
    """A certificate was not revoked at a time, as its authority's lists tell.

    Args:
        certificate: issued by the authority.
        lists: the authority's, checked; empty where the verifier holds none at all.
        at: when the key was used.

    Raises:
        CertificateError: ``evidence.certificate_revoked`` or ``evidence.crl_expired``.
    """
    for one in lists:
        moment = one.refused_from(certificate)
        if moment is not None and at >= moment:
            raise CertificateError(
                "evidence.certificate_revoked",
                f"The certificate {certificate.serial} was revoked.",
                "What its key signed from then on can't be trusted; ask the authority why.",
            )
    if lists and all(at > one.next_update for one in lists):
        raise CertificateError(
            "evidence.crl_expired",
            "The revocation lists held of an authority in the chain are out of date.",
            "Get the authority's newest list and put it into revoked/.",
        )


def _read_entry(entry: x509.RevokedCertificate) -> None:
    """Read every field of an entry; the library does so only when asked."""
    _ = entry.serial_number, entry.revocation_date_utc
    for one in entry.extensions:
        if isinstance(one.value, x509.CRLReason):
            if one.value.reason is x509.ReasonFlags.remove_from_crl:
                raise _malformed("it takes revocations back, which only a partial list does")
        elif one.critical:
            raise _malformed(f"an entry has the critical extension {one.oid.dotted_string}")


def _malformed(reason: str) -> CertificateError:
    return CertificateError(
        "evidence.crl_malformed",
        f"This is no revocation list used here: {reason}.",
        "Get the list from the authority again.",
    )
