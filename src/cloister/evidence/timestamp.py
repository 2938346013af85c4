"""RFC 3161 timestamps of receipts: asking for one, and attaching the authority's answer.

A receipt's own date is the issuing hub's word. A time-stamping authority that somebody else trusts can say
that the hub's signature was there at a time: the receipt can't have been made later, nor with a key or a
certificate that came later. What is stamped is the raw signature over the receipt's body.

Rules kept here:

1. Offline: this makes the query and takes the answer; the caller carries them to the authority.
2. Attaching changes nothing that is signed. An answer to another question is refused, not attached.
3. A timestamp is judged by whoever verifies, under the roots they pinned (``tsa/<name>.pem``).
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, cast

from cloister.core.canonical import JSON, b64encode, canonicalize
from cloister.evidence.errors import EvidenceError
from cloister.evidence.receipt import (
    MAX_TIMESTAMP_BYTES,
    MAX_TIMESTAMPS,
    Receipt,
    parse_receipt,
    receipt_from_json,
    signature_of,
)

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

GRANTED: Final = 0
OLDEST_LIBRARY: Final = (1, 0, 9)
_HASHES: Final = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}


def request_timestamp(receipt: bytes) -> bytes:
    """The query to send to a time-stamping authority (RFC 3161 section 2.4.1), with a nonce.

    Args:
        receipt: the receipt's canonical bytes.

    Returns:
        A DER TimeStampReq over the receipt's signature (SHA-256), to be sent as application/timestamp-query.

    Raises:
        EvidenceError: ``evidence.receipt_malformed`` if this is no receipt.
        ImportError: if rfc3161-client is not installed.
    """
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    message = signature_of(_read(receipt))
    query = TimestampRequestBuilder().data(message).hash_algorithm(HashAlgorithm.SHA256).build()
    return query.as_bytes()


def attach_timestamp(receipt: bytes, response: bytes) -> bytes:
    """Put an authority's answer into a receipt.

    Args:
        receipt: the receipt's canonical bytes.
        response: the DER TimeStampResp.

    Returns:
        The receipt's canonical bytes with the timestamp added.

    Raises:
        EvidenceError: ``evidence.receipt_malformed`` if this is no receipt; ``evidence.timestamp_invalid`` if
            the answer is not a granted timestamp of this receipt, is there already, or is one too many.
        ImportError: if rfc3161-client is not installed.
    """
    parsed = _read(receipt)
    stamped_at(response, signature_of(parsed))
    timestamps = (*parsed.timestamps, b64encode(response))
    if len(timestamps) > MAX_TIMESTAMPS or len(set(timestamps)) != len(timestamps):
        raise EvidenceError(
            "evidence.timestamp_invalid",
            f"The receipt has this timestamp already, or {MAX_TIMESTAMPS} others.",
        )
    document = cast(dict[str, JSON], parse_receipt(receipt))
    return canonicalize({**document, "timestamps": list(timestamps)})


def stamped_at(response: bytes, message: bytes) -> datetime:
    """The time an answer gives for a message; the authority's signature is not judged.

    Raises:
        EvidenceError: ``evidence.timestamp_invalid`` if it isn't a granted timestamp of this message.
        ImportError: if rfc3161-client is not installed.
    """
    decoded = decode_response(response)
    if decoded.status != GRANTED:
        raise _invalid("The time-stamping authority did not grant the timestamp.")
    try:
        token = decoded.tst_info
        imprint = token.message_imprint
        name, stated, at = _HASHES.get(imprint.hash_algorithm.dotted_string), imprint.message, token.gen_time
    except (ValueError, RuntimeError):
        raise _invalid("The timestamp's token can't be read.") from None
    if name is None or hashlib.new(name, message).digest() != stated:
        raise _invalid("The timestamp is of something else.")
    return at


def decode_response(response: bytes) -> TimeStampResponse:
    """Read a TimeStampResp of bounded size.

    Raises:
        EvidenceError: ``evidence.timestamp_invalid`` if it can't be read.
        ImportError: if rfc3161-client is not installed.
    """
    from rfc3161_client import decode_timestamp_response

    require_sound_library()
    if len(response) > MAX_TIMESTAMP_BYTES:
        raise _invalid("The timestamp is too large.")
    try:
        return decode_timestamp_response(response)
    except (ValueError, RuntimeError):
        raise _invalid(
            "The timestamp is not an RFC 3161 response in DER (some authorities leave certificates unsorted)."
        ) from None


def require_sound_library() -> None:
    """Refuse a version of rfc3161-client that believed tokens whose signature didn't hold (CVE-2025-52556).

    Raises:
        ImportError: it is missing or older than the one this program was tested with.
    """
    found = version("rfc3161-client")
    if tuple(int(part) for part in found.split(".")[:3] if part.isdecimal()) < OLDEST_LIBRARY:
        raise ImportError(f"rfc3161-client {found} is too old")


def _read(receipt: bytes) -> Receipt:
    return receipt_from_json(parse_receipt(receipt), receipt)


def _invalid(message: str) -> EvidenceError:
    return EvidenceError("evidence.timestamp_invalid", message)
