"""DSSE envelopes: a payload, its type, and signatures over both (Dead Simple Signing Envelope, protocol v1).

Rules kept here:

1. What is signed is the pre-authentication encoding of type and payload, so a signature over one kind of
   payload never serves for another.
2. An envelope has one encoding: canonical JSON with standard base64. Any other spelling is refused.
3. Verifying returns the payload or raises; the payload of an unverified envelope is for diagnosis only.
4. An envelope carries exactly the signature asked for. An extra signature is something nobody vouches for.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.errors import CloisterError, InputError
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import PublicKey, Signer
from cloister.evidence.errors import EvidenceError

MAX_ENVELOPE_BYTES = 8 * 1024 * 1024
MAX_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope.

    Attributes:
        key_id: the id of the signing key.
        sig: the raw signature.
    """

    key_id: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed payload.

    Attributes:
        payload_type: media type of the payload.
        payload: the signed bytes.
        signatures: at least one.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def payload_sha256(self) -> Sha256:
        """SHA-256 of the payload: what other statements name it by."""
        return sha256_hex(self.payload)

    def as_json(self) -> dict[str, JSON]:
        """The envelope as a JSON object."""
        return {
            "payload": b64encode(self.payload),
            "payloadType": self.payload_type,
            "signatures": [{"keyid": one.key_id, "sig": b64encode(one.sig)} for one in self.signatures],
        }

    def encode(self) -> bytes:
        """The envelope's only encoding, as canonical JSON."""
        # The same bytes as canonicalize(self.as_json()), in a third of the time: a log encodes all it takes.
        signatures = b",".join(
            b'{"keyid":%b,"sig":"%b"}' % (canonicalize(one.key_id), _b64(one.sig)) for one in self.signatures
        )
        kind = canonicalize(self.payload_type)
        return b'{"payload":"%b","payloadType":%b,"signatures":[%b]}' % (_b64(self.payload), kind, signatures)


def _b64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding (DSSE protocol.md, "PAE").

    Args:
        payload_type: media type.
        payload: any bytes.

    Returns:
        The bytes that are signed.
    """
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload_type: str, payload: bytes, signer: Signer) -> Envelope:
    """Sign a payload.

    Args:
        payload_type: media type.
        payload: the bytes to sign.
        signer: the party's key.

    Returns:
        An envelope with one signature.
    """
    signature = signer.sign(pae(payload_type, payload))
    return Envelope(payload_type, payload, (Signature(signer.public_key.key_id, signature),))


def verify_envelope(envelope: Envelope, key: PublicKey) -> bytes:
    """Check that this key, and no other, signed the envelope.

    Args:
        envelope: what came in.
        key: the only key accepted.

    Returns:
        The payload.

    Raises:
        EvidenceError: ``evidence.envelope_unsigned`` if another key signed, or more than one.
        SignatureInvalid: if the signature doesn't hold.
    """
    if len(envelope.signatures) != 1 or envelope.signatures[0].key_id != key.key_id:
        raise EvidenceError(
            "evidence.envelope_unsigned",
            "The envelope is not signed by exactly the expected key.",
            "Compare the party's key in the trust directory with the key it uses.",
        )
    key.verify(envelope.signatures[0].sig, pae(envelope.payload_type, envelope.payload))
    return envelope.payload


def envelope_from_json(value: JSON) -> Envelope:
    """Read an envelope from parsed JSON.

    Args:
        value: the parsed object.

    Returns:
        The envelope, unverified.

    Raises:
        EvidenceError: ``evidence.envelope_malformed`` for anything but exactly an envelope's fields.
    """
    if not isinstance(value, dict) or value.keys() != {"payload", "payloadType", "signatures"}:
        raise _malformed("it doesn't have exactly the fields payload, payloadType and signatures")
    payload, kind, signatures = value["payload"], value["payloadType"], value["signatures"]
    if not isinstance(payload, str) or not isinstance(kind, str) or not isinstance(signatures, list):
        raise _malformed("a field has the wrong type")
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise _malformed(f"it has {len(signatures)} signatures")
    try:
        return Envelope(kind, b64decode(payload), tuple(_signature(one) for one in signatures))
    except InputError:
        raise _malformed("a field is not canonical base64") from None


def decode_envelope(data: bytes) -> Envelope:
    """Read an envelope from its canonical bytes.

    Args:
        data: canonical JSON.

    Returns:
        The envelope, unverified.

    Raises:
        EvidenceError: ``evidence.envelope_malformed`` for any other spelling.
    """
    try:
        return envelope_from_json(parse_canonical(data, max_bytes=MAX_ENVELOPE_BYTES))
    except EvidenceError:
        raise
    except CloisterError as error:
        raise _malformed(error.message) from error


def _signature(value: JSON) -> Signature:
    if not isinstance(value, dict) or value.keys() != {"keyid", "sig"}:
        raise _malformed("a signature doesn't have exactly the fields keyid and sig")
    key_id, sig = value["keyid"], value["sig"]
    if not isinstance(key_id, str) or not isinstance(sig, str):
        raise _malformed("a signature's field has the wrong type")
    return Signature(key_id, b64decode(sig))


def _malformed(reason: str) -> EvidenceError:
    return EvidenceError("evidence.envelope_malformed", f"This is not a DSSE envelope: {reason.rstrip('.')}.")
