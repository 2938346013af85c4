"""Strict DER: the one reading of the certificates and lists that a CPU vendor signs.

AMD's endorsement certificates all carry serial number 0, which X.509 forbids and libraries have announced to
refuse. What the verifier needs of a certificate is little, so it reads that itself, always and by one path.

Rules kept here (ITU-T X.690, RFC 5280):

* One spelling: definite lengths in their shortest form, shortest integers and object identifiers, bit strings
  of whole octets, no byte left over at any level, ``DEFAULT`` values left out.
* Every field is read or refused; extensions are given out as they are, each at most once.
* The algorithm named beside a signature is the one named under it, byte for byte.
* Nothing is judged: who issued what, and when it holds, is for the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING = 0x01, 0x02, 0x03, 0x04
OBJECT_IDENTIFIER, UTC_TIME, GENERALIZED_TIME = 0x06, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

VERSION_3 = 2
BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
_MAX_LENGTH_BYTES = 3
_MAX_SERIAL_BYTES = 21
_MAX_EXTENSIONS = 40
_KEY_CERT_SIGN, _CRL_SIGN = 0x04, 0x02


class NotDer(ValueError):  # noqa: N818 - the name says it
    """Bytes are not strict DER of what was expected; the reader's only error."""


def explicit(number: int) -> int:
    """The tag of a constructed, context-specific element."""
    return 0xA0 | number


class Reader:
    """Reads the elements of one constructed value, in order.

    Args:
        data: the content octets.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def element(self, tag: int) -> tuple[bytes, bytes]:
        """The next element, which must have this tag.

        Returns:
            Its content, and the whole of it with tag and length.

        Raises:
            NotDer: it has another tag, or isn't whole.
        """
        data, start = self._data, self._at
        if data[start : start + 1] != bytes((tag,)) or len(data) < start + 2:
            raise NotDer("another tag")
        length, content = data[start + 1], start + 2
        if length >= 0x80:
            count = length - 0x80
            octets = data[content : content + count]
            length = int.from_bytes(octets, "big")
            if not 1 <= count <= _MAX_LENGTH_BYTES or len(octets) != count:
                raise NotDer("a length is indefinite or too large")
            if length < 0x80 or octets[0] == 0:
                raise NotDer("a length is not in its shortest form")
            content += count
        self._at = content + length
        if self._at > len(data):
            raise NotDer("an element is cut off")
        return data[content : self._at], data[start : self._at]

    def content(self, tag: int) -> bytes:
        """The content of the next element."""
        return self.element(tag)[0]

    def inside(self, tag: int) -> Reader:
        """A reader of the next element's content."""
        return Reader(self.element(tag)[0])

    def next_is(self, tag: int) -> bool:
        """Whether there is a next element and it has this tag."""
        return self._data[self._at : self._at + 1] == bytes((tag,))

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def end(self) -> None:
        """Nothing is left.

        Raises:
            NotDer: something is.
        """
        if self.more:
            raise NotDer("bytes are left over")

    def integer(self, max_bytes: int = _MAX_SERIAL_BYTES) -> int:
        """The next element, an integer that isn't negative."""
        octets = self.content(INTEGER)
        padded = len(octets) > 1 and octets[0] == 0 and octets[1] < 0x80
        if not 1 <= len(octets) <= max_bytes or octets[0] >= 0x80 or padded:
            raise NotDer("an integer is negative, too long or not in its shortest form")
        return int.from_bytes(octets, "big")

    def octets_of_bits(self) -> bytes:
        """The next element, a bit string of whole octets."""
        content = self.content(BIT_STRING)
        if content[:1] != b"\0":
            raise NotDer("a bit string is not of whole octets")
        return content[1:]

    def oid(self) -> str:
        """The next element, an object identifier, in dots."""
        return _dotted(self.content(OBJECT_IDENTIFIER))

    def time(self) -> datetime:
        """The next element, a time in UTC to the second (RFC 5280 section 4.1.2.5)."""
        short = self.next_is(UTC_TIME)
        text = self.content(UTC_TIME if short else GENERALIZED_TIME)
        digits = text[:-1]
        if text[-1:] != b"Z" or not digits.isdigit() or len(digits) != (12 if short else 14):
            raise NotDer("a time is not in its one form")
        year = int(digits[:-10])
        month, day, hour, minute, second = (int(digits[at : at + 2 or None]) for at in range(-10, 0, 2))
        if short:
            year += 2000 if year < 50 else 1900
        elif year < 2050:
            raise NotDer("a time is not in its one form")
        try:
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            raise NotDer("a time does not exist") from None

    def extensions(self) -> Mapping[str, Extension]:
        """The next element, a sequence of extensions (RFC 5280 section 4.1.2.9).

        Raises:
            NotDer: there is none in it, one stands twice, or one isn't as it must be.
        """
        found: dict[str, Extension] = {}
        listed = self.inside(SEQUENCE)
        while True:
            one = listed.inside(SEQUENCE)
            oid = one.oid()
            critical = one.next_is(BOOLEAN)
            if critical and one.content(BOOLEAN) != b"\xff":
                raise NotDer("a default value is written out")
            if oid in found or len(found) == _MAX_EXTENSIONS:
                raise NotDer("an extension stands twice, or there are too many")
            found[oid] = Extension(critical, one.content(OCTET_STRING))
            one.end()
            if not listed.more:
                return MappingProxyType(found)


@dataclass(frozen=True)
class Extension:
    """One extension: whether who doesn't know it must refuse, and its value's DER."""

    critical: bool
    value: bytes


@dataclass(frozen=True)
class Signed:
    """What a signature covers, and the signature.

    Attributes:
        body: the bytes that are signed, as received.
        algorithm: the AlgorithmIdentifier, the same within the body and beside it.
        signature: as the issuer made it.
    """

    body: bytes = field(repr=False)
    algorithm: bytes
    signature: bytes = field(repr=False)


@dataclass(frozen=True)
class Certificate:
    """A certificate of version 3 that was read whole; nothing about it is verified.

    Attributes:
        signed: body and signature.
        serial: the serial number, 0 too.
        issuer: the issuer's name in DER; names are equal if their bytes are.
        subject: the subject's name in DER.
        not_before: from when it holds, included.
        not_after: until when it holds, included.
        public_key: SubjectPublicKeyInfo in DER.
        extensions: by object identifier.
        authority: whether it may issue certificates: the basic constraints and the key usage both say so.
        path_length: how many authorities may stand below it, if it says.
        signs_lists: whether it may sign revocation lists.
    """

    signed: Signed
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    public_key: bytes = field(repr=False)
    extensions: Mapping[str, Extension] = field(repr=False)
    authority: bool
    path_length: int | None
    signs_lists: bool


def read_certificate(der: bytes) -> Certificate:
    """Read one certificate.

    Args:
        der: the certificate and nothing after it.

    Raises:
        NotDer: it isn't one of version 3 in strict DER.
    """
    body, signed = read_signed(der)
    version = body.inside(explicit(0))
    if version.integer() != VERSION_3:
        raise NotDer("another version than 3")
    version.end()
    serial = body.integer()
    if body.element(SEQUENCE)[1] != signed.algorithm:
        raise NotDer("two algorithms are named")
    issuer = body.element(SEQUENCE)[1]
    validity = body.inside(SEQUENCE)
    not_before, not_after = validity.time(), validity.time()
    validity.end()
    subject, public_key = body.element(SEQUENCE)[1], body.element(SEQUENCE)[1]
    extensions: Mapping[str, Extension] = {}
    if body.more:
        wrapped = body.inside(explicit(3))
        extensions = wrapped.extensions()
        wrapped.end()
    body.end()
    is_authority, path_length = _constraints(extensions.get(BASIC_CONSTRAINTS))
    usage = _key_usage(extensions.get(KEY_USAGE))
    return Certificate(
        signed=signed,
        serial=serial,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        public_key=public_key,
        extensions=extensions,
        authority=is_authority and bool(usage & _KEY_CERT_SIGN),
        path_length=path_length,
        signs_lists=bool(usage & _CRL_SIGN),
    )


def read_signed(der: bytes) -> tuple[Reader, Signed]:
    """Read the outer form that certificates and revocation lists share.

    Returns:
        A reader of the body's content, whose own naming of the algorithm the caller compares; and body,
        algorithm and signature.

    Raises:
        NotDer: it isn't a sequence of body, algorithm and signature.
    """
    outer = Reader(der)
    parts = outer.inside(SEQUENCE)
    outer.end()
    content, body = parts.element(SEQUENCE)
    algorithm = parts.element(SEQUENCE)[1]
    signature = parts.octets_of_bits()
    parts.end()
    return Reader(content), Signed(body, algorithm, signature)


# X.660 sets no bound; numbers of unlimited size would cost time, and Python refuses to spell them.
_LONGEST_IDENTIFIER = 64


# The same dozen identifiers stand in every certificate of a vendor.
@lru_cache(maxsize=256)
def _dotted(octets: bytes) -> str:
    if not octets or octets[-1] & 0x80:
        raise NotDer("an object identifier is cut off")
    if len(octets) > _LONGEST_IDENTIFIER:
        raise NotDer("an object identifier is longer than any that is in use")
    arcs: list[int] = []
    value, first = 0, True
    for octet in octets:
        if first and octet == 0x80:
            raise NotDer("an object identifier is not in its shortest form")
        value, first = value << 7 | octet & 0x7F, not octet & 0x80
        if first:
            arcs.append(value)
            value = 0
    top = min(arcs[0] // 40, 2)
    return ".".join(map(str, (top, arcs[0] - 40 * top, *arcs[1:])))


def _constraints(extension: Extension | None) -> tuple[bool, int | None]:
    if extension is None:
        return False, None
    outer = Reader(extension.value)
    content = outer.inside(SEQUENCE)
    outer.end()
    authority = content.next_is(BOOLEAN)
    if authority and content.content(BOOLEAN) != b"\xff":
        raise NotDer("a default value is written out")
    path_length = content.integer() if content.more else None
    content.end()
    return authority, path_length


def _key_usage(extension: Extension | None) -> int:
    """The first octet of the usage bits; 0 where nothing is said."""
    if extension is None:
        return 0
    outer = Reader(extension.value)
    content = outer.content(BIT_STRING)
    outer.end()
    unused, bits = int.from_bytes(content[:1], "big"), content[1:]
    # AMD leaves zero bits at the end, which DER wouldn't of named bits; they are under the signature.
    last = bits[-1:]
    padding = (1 << unused) - 1
    if len(content) not in (1, 2, 3) or unused > 7 * len(last) or any(octet & padding for octet in last):
        raise NotDer("usage bits are not as they must be")
    return bits[0] if bits else 0
