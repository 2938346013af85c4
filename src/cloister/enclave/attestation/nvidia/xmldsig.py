"""XML signatures as NVIDIA makes them over its reference manifests: enveloped, C14N 1.1, ECDSA P-384.

Rules kept here:

* One way to sign: a Signature as the last child of the root, with one reference to the whole document
  ("" with the enveloped transform), the algorithms below and no other, and a chain of certificates.
* What is read is what was signed: the caller gets the very tree whose canonical form was hashed.
* No document type, entity, comment, processing instruction, or declaration; ASCII only; no file or network
  is ever opened; size and depth are bounded.
* The library's canonical form is C14N 1.0. It equals 1.1 for documents without attributes of the ``xml:``
  namespace (C14N 1.1 section 1.1), so those are refused.

Source: XML Signature Syntax and Processing 1.1 (W3C, 2013) sections 3.2, 4 and 6; RFC 6931 section 2.3.6.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cloister.enclave.errors import AttestationError

if TYPE_CHECKING:
    from lxml.etree import _Element

MAX_DOCUMENT_BYTES: Final = 256 * 1024
_MAX_CERTIFICATES = 6
_DSIG = "http://www.w3.org/2000/09/xmldsig#"
_DS = "{" + _DSIG + "}"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_C14N11 = "http://www.w3.org/2006/12/xml-c14n11"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_SIGNED_INFO: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("SignedInfo", {}),
    ("CanonicalizationMethod", {"Algorithm": _C14N11}),
    ("SignatureMethod", {"Algorithm": _MORE + "ecdsa-sha384"}),
    ("Reference", {"URI": ""}),
    ("Transforms", {}),
    ("Transform", {"Algorithm": _DSIG + "enveloped-signature"}),
    ("Transform", {"Algorithm": _C14N11}),
    ("DigestMethod", {"Algorithm": _MORE + "sha384"}),
    ("DigestValue", {}),
)


@dataclass(frozen=True)
class EnvelopedSignature:
    """A signed document taken apart; the signature over `signed_info` isn't verified.

    Attributes:
        root: the document without its signature, as it was hashed.
        signed_info: the canonical form that the signature covers.
        signature: r and s, big endian.
        certificates: DER, in the order of the document.
    """

    root: _Element = field(repr=False)
    signed_info: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    certificates: tuple[bytes, ...] = field(repr=False)


def open_signed(document: bytes) -> EnvelopedSignature:
    """Take a signed document apart, and hold it against the digest that its signature names.

    Args:
        document: at most 256 KiB.

    Raises:
        AttestationError: attestation.collateral; attestation.unsupported where lxml isn't installed.
    """
    root = _parse(document)
    signatures = list(root.iter(_DS + "Signature"))
    if len(signatures) != 1 or root[-1] is not signatures[0] or (signatures[0].tail or "").strip():
        raise malformed_document()
    signature = signatures[0]
    if [child.tag for child in signature] != [_DS + "SignedInfo", _DS + "SignatureValue", _DS + "KeyInfo"]:
        raise malformed_document()
    info, value, key_info = signature
    if [(one.tag, dict(one.attrib)) for one in info.iter()] != [(_DS + tag, at) for tag, at in _SIGNED_INFO]:
        raise malformed_document()
    certificates = [_base64(one.text) for one in key_info.iter(_DS + "X509Certificate")]
    if not 2 <= len(certificates) <= _MAX_CERTIFICATES:
        raise malformed_document()
    taken = EnvelopedSignature(root, _canonical(info), _base64(value.text), tuple(certificates))
    digest = _base64(next(info.iter(_DS + "DigestValue")).text)
    _remove(root, signature)
    if not hmac.compare_digest(hashlib.sha384(_canonical(root)).digest(), digest):
        raise AttestationError("attestation.collateral", "A manifest is not what its signature names.")
    return taken


def _parse(document: bytes) -> _Element:
    try:
        from lxml import etree
    except ImportError:
        raise AttestationError(
            "attestation.unsupported",
            "Reference manifests can't be read here: lxml isn't installed.",
            "Install cloister[gpu].",
        ) from None
    plain = document.isascii() and b"<!" not in document and b"<?" not in document and b"\0" not in document
    if len(document) > MAX_DOCUMENT_BYTES or not plain:
        raise malformed_document()
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.LxmlError, ValueError):
        raise malformed_document() from None
    if len(root) == 0 or any(str(name).startswith(_XML) for one in root.iter() for name in one.attrib):
        raise malformed_document()
    return root


def _canonical(element: _Element) -> bytes:
    from lxml import etree

    try:
        return etree.tostring(element, method="c14n", exclusive=False, with_comments=False)
    except (etree.LxmlError, ValueError):
        raise malformed_document() from None


def _remove(root: _Element, signature: _Element) -> None:
    """Take the signature out as the enveloped transform does: what follows it stays."""
    tail, before = signature.tail or "", signature.getprevious()
    if before is None:
        root.text = (root.text or "") + tail
    else:
        before.tail = (before.tail or "") + tail
    root.remove(signature)


def _base64(text: str | None) -> bytes:
    try:
        return base64.b64decode("".join((text or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise malformed_document() from None


def malformed_document() -> AttestationError:
    """The refusal of a document that isn't signed in the one way."""
    return AttestationError(
        "attestation.collateral", "A manifest is not an XML document signed as NVIDIA does."
    )
