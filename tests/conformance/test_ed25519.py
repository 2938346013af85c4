"""Ed25519 (RFC 8032): the RFC's vectors, which travel with the project, and Wycheproof's attacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.errors import KeyStoreError, SignatureInvalid
from cloister.core.keys import PublicKey

# RFC 8032 section 7.1, tests 1 to 3: public key, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        PublicKey.from_raw(key).verify(signature, message)
    except (SignatureInvalid, KeyStoreError):
        return False
    return True


@pytest.mark.parametrize(("key", "message", "signature"), RFC_8032)
def test_vectors_of_the_rfc_verify_and_one_changed_bit_does_not(
    key: str, message: str, signature: str
) -> None:
    public, text, signed = bytes.fromhex(key), bytes.fromhex(message), bytes.fromhex(signature)
    assert accepts(public, text, signed)
    assert not accepts(public, text + b"\0", signed)
    for position in (0, 31, 32, 63):
        changed = bytearray(signed)
        changed[position] ^= 1
        assert not accepts(public, text, bytes(changed))


def test_a_signature_whose_scalar_is_not_reduced_is_refused() -> None:
    key, message, signature = (bytes.fromhex(part) for part in RFC_8032[1])
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert not accepts(key, message, signature[:32] + scalar.to_bytes(32, "little"))


def order_of(y: int) -> int:
    """The order of a point with this y on the twisted Edwards curve, 0 where there is none up to 8."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return 0
    point = (0, 1)
    for order in range(1, 9):
        (a, b), product = point, D * point[0] * point[1] * x * y % P
        point = (
            (a * y + b * x) * pow(1 + product, P - 2, P) % P,
            (b * y + a * x) * pow(1 - product, P - 2, P) % P,
        )
        if point == (0, 1):
            return order
    return 0


SMALL = [
    0,
    1,
    P - 1,
    int.from_bytes(
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
    ),
    int.from_bytes(
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
    ),
]


def test_the_points_called_small_here_have_orders_that_divide_eight() -> None:
    assert [order_of(y) for y in SMALL] == [4, 1, 2, 8, 8]


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [*SMALL, P, P + 1])
def test_a_public_key_under_which_signatures_fit_many_messages_is_refused(y: int, sign: int) -> None:
    with pytest.raises(KeyStoreError) as refused:
        PublicKey.from_raw((y | sign << 255).to_bytes(32, "little"))
    assert refused.value.code == "key.malformed"


def test_wycheproof(shared_data: Callable[[str], Path]) -> None:
    vectors = json.loads(shared_data("crypto-vectors/wycheproof/ed25519_test.json").read_text())
    tried = {"valid": 0, "invalid": 0}
    for group in vectors["testGroups"]:
        key = bytes.fromhex(group["publicKey"]["pk"])
        assert PublicKey.from_pem(group["publicKeyPem"]).raw == key
        for case in group["tests"]:
            accepted = accepts(key, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
            assert accepted == (case["result"] == "valid"), (case["tcId"], case["comment"])
            tried[case["result"]] += 1
    assert tried["valid"] > 20
    assert tried["invalid"] > 20
