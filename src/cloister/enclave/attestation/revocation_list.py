"""Revocation lists, read strictly, and which of an issuer's lists counts.

Rules kept here (RFC 5280 section 5):

* A list is whole, strict DER of version 2. One of part of the certificates, and changes to an earlier list,
  are refused, as is a critical extension that isn't known here.
* Certificates are looked up by issuer and serial number. An entry names the list's own issuer unless an entry
  before it, or it itself, names another.
* Of several lists of one issuer the newest that has begun counts, and it must not be out of date.
* A list from later than now says nothing good: nobody is unrevoked by it, and it is no current list. What it
  names is revoked all the same. Its issuer did sign it, so either this clock is behind, and the key is
  revoked by now, or old evidence is looked at with today's knowledge; neither is a reason to trust the key.
* A date of revocation in the future revokes too: what the vendor has written down is not waited for.

Whose signature a list needs is for the vendor's own module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from cloister.enclave.attestation.collateral import CollateralDates, CollateralDocument, CollateralKind
from cloister.enclave.attestation.der import (
    INTEGER,
    SEQUENCE,
    Extension,
    NotDer,
    Reader,
    Signed,
    explicit,
    read_signed,
)
from cloister.enclave.errors import AttestationError

LIST_NAMES = MappingProxyType({CollateralKind.AMD_CRL: "AMD CRL", CollateralKind.AWS_CRL: "AWS CRL"})
MAX_LIST_BYTES = 1024 * 1024
_VERSION_2 = 1
_ISSUING_POINT, _CHANGES_ONLY = "2.5.29.28", "2.5.29.27"
_CRL_NUMBER, _AUTHORITY_KEY = "2.5.29.20", "2.5.29.35"
_ENTRY_REASON, _ENTRY_INVALID_SINCE, _ENTRY_ISSUER = "2.5.29.21", "2.5.29.24", "2.5.29.29"
_KNOWN = frozenset({_CRL_NUMBER, _AUTHORITY_KEY, _ISSUING_POINT})
_KNOWN_OF_ENTRY = frozenset({_ENTRY_REASON, _ENTRY_INVALID_SINCE, _ENTRY_ISSUER})
_INDIRECT = 0x84
_AWS_UNIT = bytes.fromhex("060355040b")
_UTF8, _PRINTABLE = 0x0C, 0x13
_DIRECTORY_NAME = explicit(4)


@dataclass(frozen=True)
class RevocationList:
    """A list that was read whole; nothing about it is verified.

    Attributes:
        document: the bytes.
        signed: body and signature.
        issuer: the issuer's name in DER.
        issued_at: thisUpdate.
        next_update: until when it holds, included.
        revoked: issuer's name and serial number of every certificate on it.
    """

    document: CollateralDocument = field(repr=False)
    signed: Signed = field(repr=False)
    issuer: bytes
    issued_at: datetime
    next_update: datetime
    revoked: frozenset[tuple[bytes, int]] = field(repr=False)

    @property
    def dates(self) -> CollateralDates:
        """From when it is, and until when it holds."""
        what = LIST_NAMES[self.document.kind]
        return CollateralDates(self.document.sha256, what, self.issued_at, self.next_update)

    def names(self, issuer: bytes, serial: int) -> bool:
        """Whether a certificate is on the list.

        Args:
            issuer: the name of who issued it, in DER.
            serial: its serial number.
        """
        return (issuer, serial) in self.revoked


@dataclass(frozen=True)
class ListsAtHand:
    """The lists of one issuer that say something at a time.

    Attributes:
        newest: the newest that has begun, if there is one.
        later: those from later than that time, which revoke and do nothing else.
    """

    newest: RevocationList | None
    later: tuple[RevocationList, ...]

    @property
    def all(self) -> tuple[RevocationList, ...]:
        """Every list that may revoke."""
        return self.later if self.newest is None else (self.newest, *self.later)

    @property
    def documents(self) -> tuple[CollateralDocument, ...]:
        """The documents that a verdict rests on."""
        return tuple(one.document for one in self.all)

    def current(self, now: datetime) -> RevocationList | None:
        """The list that says of what it doesn't name that it isn't revoked; None where there is no list.

        Raises:
            AttestationError: attestation.not_yet_valid or attestation.collateral_expired.
        """
        if self.newest is None:
            if self.later:
                raise AttestationError(
                    "attestation.not_yet_valid", "The revocation list is from later than now."
                )
            return None
        if now > self.newest.next_update:
            raise AttestationError(
                "attestation.collateral_expired",
                "The newest revocation list is out of date.",
                "Bring the vendor's newest list.",
            )
        return self.newest


def judge(lists: Iterable[RevocationList], now: datetime) -> ListsAtHand:
    """Sort lists of one issuer by whether they count.

    Args:
        lists: all of one issuer, their signatures verified.
        now: the time they are held against.
    """
    ordered = sorted(lists, key=lambda one: (one.issued_at, one.document.sha256))
    begun = [one for one in ordered if one.issued_at <= now]
    return ListsAtHand(begun[-1] if begun else None, tuple(one for one in ordered if one.issued_at > now))


def read_list(document: CollateralDocument) -> RevocationList:
    """Read a revocation list.

    Args:
        document: DER, at most 1 MiB.

    Raises:
        AttestationError: attestation.collateral.
    """
    try:
        return _read_list(document)
    except NotDer:
        raise AttestationError(
            "attestation.collateral", "A revocation list is not strict DER of a known kind."
        ) from None


def kind_of_list(issuer: bytes) -> CollateralKind:
    """Whose list it says it is: AWS's authorities have the unit AWS in their names, and AMD's don't.

    Args:
        issuer: the issuer's name in DER.
    """
    is_aws = any(_AWS_UNIT + bytes((tag, 3)) + b"AWS" in issuer for tag in (_UTF8, _PRINTABLE))
    return CollateralKind.AWS_CRL if is_aws else CollateralKind.AMD_CRL


@lru_cache(maxsize=16)
def _read_list(document: CollateralDocument) -> RevocationList:
    data = document.data
    if len(data) > MAX_LIST_BYTES:
        raise NotDer("too large")
    body, signed = read_signed(data)
    if not body.next_is(INTEGER) or body.integer() != _VERSION_2:
        raise NotDer("another version than 2")
    if body.element(SEQUENCE)[1] != signed.algorithm:
        raise NotDer("two algorithms are named")
    issuer = body.element(SEQUENCE)[1]
    issued_at, next_update = body.time(), body.time()
    revoked = _entries(body.inside(SEQUENCE), issuer) if body.next_is(SEQUENCE) else frozenset()
    if body.next_is(explicit(0)):
        wrapped = body.inside(explicit(0))
        _require_whole(wrapped)
        wrapped.end()
    body.end()
    return RevocationList(
        document=document,
        signed=signed,
        issuer=issuer,
        issued_at=issued_at,
        next_update=next_update,
        revoked=revoked,
    )


def _entries(listed: Reader, issuer: bytes) -> frozenset[tuple[bytes, int]]:
    revoked: set[tuple[bytes, int]] = set()
    while listed.more:
        one = listed.inside(SEQUENCE)
        serial = one.integer()
        one.time()
        if one.more:
            extensions = one.extensions()
            _require_known(extensions, _KNOWN_OF_ENTRY)
            if _ENTRY_ISSUER in extensions:
                issuer = _only_name(extensions[_ENTRY_ISSUER])
        one.end()
        revoked.add((issuer, serial))
    return frozenset(revoked)


def _require_whole(wrapped: Reader) -> None:
    extensions = wrapped.extensions()
    _require_known(extensions, _KNOWN)
    if _CHANGES_ONLY in extensions:
        raise NotDer("changes to an earlier list")
    if _ISSUING_POINT in extensions:
        outer = Reader(extensions[_ISSUING_POINT].value)
        point = outer.inside(SEQUENCE)
        outer.end()
        if point.next_is(explicit(0)):
            point.content(explicit(0))
        if point.more and point.content(_INDIRECT) != b"\xff":
            raise NotDer("a default value is written out")
        # Whatever else may stand here limits the list to some certificates or reasons.
        point.end()


def _require_known(extensions: Mapping[str, Extension], known: frozenset[str]) -> None:
    if any(extension.critical and oid not in known for oid, extension in extensions.items()):
        raise NotDer("a critical extension of no known kind")


def _only_name(extension: Extension) -> bytes:
    """The one directory name of a certificateIssuer extension (RFC 5280 section 5.3.3)."""
    outer = Reader(extension.value)
    names = outer.inside(SEQUENCE)
    outer.end()
    name = names.inside(_DIRECTORY_NAME)
    names.end()
    found = name.element(SEQUENCE)[1]
    name.end()
    return found
