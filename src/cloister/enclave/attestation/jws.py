"""Signed tokens in the compact form of JWS (RFC 7515), with ES256 (RFC 7518 section 3.4) and nothing else.

Rules kept here:

* The algorithm is pinned: a header says ``ES256``, ``JWT`` and the key's id, byte for byte as this module
  writes it. There is nothing to negotiate, no key in a header, no unknown header to skip.
* Base64url without padding, in its one spelling; three parts; at most 256 KiB.
* A payload is parsed after its signature is verified, strictly: no duplicate keys, bounded depth.
* The signature is r and s, 32 bytes each. ECDSA signatures are malleable, so a token's bytes are no id.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.errors import InputError, SignatureInvalid
from cloister.core.keys import ECDSA_P256, PublicKey, Signer
from cloister.enclave.errors import AttestationError

MAX_TOKEN_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 12
_COMPONENT_BYTES: Final = 32


def sign(payload: dict[str, JSON], signer: Signer) -> str:
    """A token over a payload.

    Args:
        payload: JSON values; encoded as RFC 8785 has it.
        signer: an ECDSA P-256 key.

    Returns:
        Header, payload and signature, with dots between them.

    Raises:
        AttestationError: attestation.alg for another kind of key; attestation.malformed for a payload that is
            too large.
    """
    signed = f"{_encode(_header(signer.public_key))}.{_encode(canonicalize(payload))}"
    r, s = decode_dss_signature(signer.sign(signed.encode("ascii")))
    signature = r.to_bytes(_COMPONENT_BYTES, "big") + s.to_bytes(_COMPONENT_BYTES, "big")
    token = f"{signed}.{_encode(signature)}"
    if len(token) > MAX_TOKEN_BYTES:
        raise malformed_token()
    return token


def verified_payload(token: str, key: PublicKey) -> JSON:
    """The payload of a token, once its signature is verified.

    Args:
        token: as ``sign`` writes it.
        key: the ECDSA P-256 key that is trusted; the token doesn't choose it.

    Raises:
        AttestationError: attestation.malformed, attestation.alg for another header than that of this key, or
            attestation.signature.
    """
    expected = _header(key)
    if not token.isascii() or len(token) > MAX_TOKEN_BYTES:
        raise malformed_token()
    signed, _, last = token.rpartition(".")
    first, dot, middle = signed.partition(".")
    if not dot or "." in middle:
        raise malformed_token()
    header, payload, signature = _decode(first), _decode(middle), _decode(last)
    if not hmac.compare_digest(header, expected):
        raise AttestationError(
            "attestation.alg", "The token's header is not that of an ES256 token under the trusted key."
        )
    if len(signature) != 2 * _COMPONENT_BYTES:
        raise malformed_token()
    r, s = (
        int.from_bytes(part, "big") for part in (signature[:_COMPONENT_BYTES], signature[_COMPONENT_BYTES:])
    )
    try:
        key.verify(encode_dss_signature(r, s), signed.encode("ascii"))
    except SignatureInvalid:
        raise AttestationError(
            "attestation.signature", "The token is not signed by the trusted key."
        ) from None
    try:
        return parse(payload, max_bytes=MAX_TOKEN_BYTES, max_depth=MAX_DEPTH)
    except InputError:
        raise malformed_token() from None


def malformed_token() -> AttestationError:
    """The refusal of a token that isn't of its exact form."""
    return AttestationError("attestation.malformed", "The token is not of its exact form.")


def _header(key: PublicKey) -> bytes:
    if key.algorithm != ECDSA_P256:
        raise AttestationError(
            "attestation.alg", "Tokens are signed with ECDSA P-256.", "Give a key of that kind."
        )
    return canonicalize({"alg": "ES256", "kid": key.key_id, "typ": "JWT"})


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise malformed_token() from None
    if _encode(data) != text:
        raise malformed_token()
    return data
