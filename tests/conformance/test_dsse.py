"""DSSE against the vector of its own protocol document (secure-systems-lab/dsse, protocol.md, Apache-2.0)."""

from __future__ import annotations

import base64
import json

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from cloister.evidence.envelope import pae
from tests.conftest import SharedData


def test_the_pre_authentication_encoding_is_the_documented_one() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("\u00e9", b"\x00 1") == b"DSSEv1 2 \xc3\xa9 3 \x00 1"


def test_the_documented_signature_holds_over_our_encoding(shared_data: SharedData) -> None:
    vector = json.loads(shared_data("crypto-vectors/dsse/dsse_protocol_vector.json").read_text())
    envelope = vector["envelope"]
    payload = base64.b64decode(envelope["payload"])
    message = pae(envelope["payloadType"], payload)
    assert message == vector["pae_utf8"].encode()
    numbers = ec.EllipticCurvePublicNumbers(int(vector["key"]["x"]), int(vector["key"]["y"]), ec.SECP256R1())
    raw = base64.b64decode(envelope["signatures"][0]["sig"])
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    numbers.public_key().verify(der, message, ec.ECDSA(SHA256()))
