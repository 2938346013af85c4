"""ECDSA and RSASSA-PSS as accepted here, against the RFC's vectors and Wycheproof's attacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from cloister.core.errors import SignatureInvalid
from cloister.core.keys import ECDSA_P256, ECDSA_P384, PublicKey
from cloister.enclave.attestation.amd.chain import PSS_SHA384, verify_vendor_signature
from cloister.enclave.errors import AttestationError


class Case(TypedDict):
    """One test of a group of vectors."""

    tcId: int
    comment: str
    msg: str
    sig: str
    result: str


# RFC 6979 appendix A.2.5 and A.2.6: the public points, the message "sample", r and s.
RFC_6979 = [
    (
        ECDSA_P256,
        "3059301306072a8648ce3d020106082a8648ce3d030107034200"
        "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
        "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ),
    (
        ECDSA_P384,
        "3076301006072a8648ce3d020106052b8104002203620004"
        "ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64"
        "def8f0ea9055866064a254515480bc138015d9b72d7d57244ea8ef9ac0c62189"
        "6708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720",
        "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46",
        "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8",
    ),
]


def integer(text: str) -> bytes:
    value = int(text, 16)
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([2, len(body)]) + body


@pytest.mark.parametrize(("algorithm", "key", "r", "s"), RFC_6979)
def test_vectors_of_the_rfc_verify_and_one_changed_bit_does_not(
    algorithm: str, key: str, r: str, s: str
) -> None:
    public = PublicKey.from_der(bytes.fromhex(key))
    assert public.algorithm == algorithm
    body = integer(r) + integer(s)
    signature = bytes([0x30, len(body)]) + body
    public.verify(signature, b"sample")
    for position in range(len(signature)):
        changed = bytearray(signature)
        changed[position] ^= 1
        with pytest.raises(SignatureInvalid):
            public.verify(bytes(changed), b"sample")


def cases(path: Path) -> Iterator[tuple[str, Case]]:
    for group in json.loads(path.read_text())["testGroups"]:
        for case in group["tests"]:
            yield group["publicKeyPem"], case


def judge(path: Path, load: Callable[[str], Callable[[bytes, bytes], bool]]) -> dict[str, int]:
    """Every case is answered as its result says; counts of both kinds."""
    tried = {"valid": 0, "invalid": 0}
    known: dict[str, Callable[[bytes, bytes], bool]] = {}
    for pem, case in cases(path):
        accepts = known.setdefault(pem, load(pem) if pem not in known else known[pem])
        accepted = accepts(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
        assert accepted == (case["result"] == "valid"), (case["tcId"], case["comment"])
        tried[case["result"]] += 1
    return tried


@pytest.mark.parametrize(
    ("name", "algorithm"), [("secp256r1_sha256", ECDSA_P256), ("secp384r1_sha384", ECDSA_P384)]
)
def test_wycheproof_ecdsa(shared_data: Callable[[str], Path], name: str, algorithm: str) -> None:
    def load(pem: str) -> Callable[[bytes, bytes], bool]:
        key = PublicKey.from_pem(pem)
        assert key.algorithm == algorithm

        def accepts(signature: bytes, message: bytes) -> bool:
            try:
                key.verify(signature, message)
            except SignatureInvalid:
                return False
            return True

        return accepts

    tried = judge(shared_data(f"crypto-vectors/wycheproof/ecdsa_{name}_test.json"), load)
    assert min(tried.values()) > 50


def test_wycheproof_rsa_pss_as_attestation_vendors_sign(shared_data: Callable[[str], Path]) -> None:
    algorithm = max(PSS_SHA384)

    def load(pem: str) -> Callable[[bytes, bytes], bool]:
        key: PublicKeyTypes = serialization.load_pem_public_key(pem.encode())

        def accepts(signature: bytes, message: bytes) -> bool:
            try:
                verify_vendor_signature(key, algorithm, signature, message)
            except AttestationError as error:
                return error.code != "attestation.chain"
            return True

        return accepts

    tried = judge(shared_data("crypto-vectors/wycheproof/rsa_pss_4096_sha384_mgf1_48_test.json"), load)
    assert min(tried.values()) > 20
