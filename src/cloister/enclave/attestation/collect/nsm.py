"""Evidence of an AWS Nitro enclave, by its security module ``/dev/nsm``.

One request and one answer, both CBOR (aws-nitro-enclaves-nsm-api, ``nsm_io``): the ioctl takes two iovecs, of
at most 4 KiB and 12 KiB, and sets the second one's length. The document that comes back is COSE and carries
its own certificates. The 64 bytes are sealed in as ``user_data``; ``public_key`` is for those, like AWS KMS,
that answer encrypted to a key in the document.
"""

from __future__ import annotations

import ctypes
import io
import struct

from cloister.enclave.attestation.collect.device import (
    Device,
    asking,
    malformed_answer,
    other_answer,
    require_report_data,
)
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.errors import CollectError

NSM = "/dev/nsm"
NSM_REQUEST = 0xC0200A00
REQUEST_BYTES = 0x1000
ANSWER_BYTES = 0x3000
MAX_KEY_BYTES = 1024
IOVECS = struct.Struct("<QQQQ")
"""struct nsm_raw: address and length of the request, then of the answer."""
ERRORS = frozenset(
    {
        "InvalidArgument",
        "InvalidIndex",
        "InvalidResponse",
        "ReadOnlyIndex",
        "InvalidOperation",
        "BufferTooSmall",
        "InputTooLarge",
        "InternalError",
    }
)
_COSE_PARTS = 4
_COSE_SIGN1 = 18


class NitroEnclave:
    """This enclave.

    Args:
        device: the operating system.
        public_key: a key to have put into documents, at most 1,024 bytes; None for none.
    """

    def __init__(self, device: Device, public_key: bytes | None = None) -> None:
        if public_key is not None and not 1 <= len(public_key) <= MAX_KEY_BYTES:
            raise CollectError("collect.request", "A Nitro document holds a key of 1 to 1024 bytes.")
        self._device = device
        self._public_key = public_key

    def quote(self, report_data: bytes) -> Evidence:
        """Answer a challenge.

        Args:
            report_data: the 64 bytes to seal in.

        Returns:
            An attestation document, as the module signed it.

        Raises:
            CollectError: what kept it from an answer.
        """
        import cbor2

        require_report_data(report_data)
        wanted = {"user_data": report_data, "nonce": None, "public_key": self._public_key}
        answer = _single(self._exchange(cbor2.dumps({"Attestation": wanted})))
        document = _document(answer)
        payload = _payload(document)
        if (payload.get("user_data"), payload.get("public_key")) != (report_data, self._public_key):
            raise other_answer(NSM)
        return Evidence(Tee.AWS_NITRO, document)

    def _exchange(self, request: bytes) -> bytes:
        if len(request) > REQUEST_BYTES:
            raise CollectError("collect.request", f"{NSM} takes no request of that length.")
        sent = ctypes.create_string_buffer(request, len(request))
        room = ctypes.create_string_buffer(ANSWER_BYTES)
        frame = bytearray(
            IOVECS.pack(ctypes.addressof(sent), len(request), ctypes.addressof(room), ANSWER_BYTES)
        )
        with asking(NSM):
            self._device.ioctl(NSM, NSM_REQUEST, frame)
        _, _, address, length = IOVECS.unpack(frame)
        if address != ctypes.addressof(room) or not 0 < length <= ANSWER_BYTES:
            raise malformed_answer(NSM)
        return room.raw[:length]


def _document(answer: object) -> bytes:
    """The document in an answer, or the error that it names."""
    match answer:
        case {"Attestation": {"document": bytes() as document}, **rest} if document and not rest:
            return document
        case {"Error": str() as name, **rest} if not rest:
            named = name if name in ERRORS else "an unknown error"
            raise CollectError("collect.refused", f"{NSM} refused with {named}.")
    raise malformed_answer(NSM)


def _payload(document: bytes) -> dict[object, object]:
    """What a document says, unverified: only to see that it answers this request."""
    import cbor2

    outer = _single(document)
    if isinstance(outer, cbor2.CBORTag) and outer.tag == _COSE_SIGN1:
        outer = outer.value
    if not isinstance(outer, list | tuple) or len(outer) != _COSE_PARTS or not isinstance(outer[2], bytes):
        raise malformed_answer(NSM)
    payload = _single(outer[2])
    if not isinstance(payload, dict):
        raise malformed_answer(NSM)
    return payload


def _single(data: bytes) -> object:
    """The one CBOR item that some bytes are, with nothing behind it."""
    import cbor2

    stream = io.BytesIO(data)
    try:
        found: object = cbor2.load(stream)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError):
        raise malformed_answer(NSM) from None
    if stream.read(1):
        raise malformed_answer(NSM)
    return found
