"""Chains a hostile or careless vendor could make under a trusted root: names, authority, algorithms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloister.enclave import TrustStore
from cloister.enclave.attestation import Status, Tcb, Tee
from cloister.enclave.attestation.amd.chain import (
    OID_BOOT_LOADER,
    OID_FMC,
    OID_HARDWARE_ID,
    OID_MICROCODE,
    OID_PROVIDER_ID,
    OID_SNP,
    OID_TEE,
)
from cloister.enclave.attestation.amd.report import milan_tcb, turin_tcb
from cloister.enclave.attestation.simulator import VALIDITY, GuestSettings, SimulatedPlatform
from cloister.enclave.attestation.trust import SIMULATED_ORGANISATION
from cloister.evidence.hardware_terms import LowestVersions
from tests.enclave.attestation_scene import MEASUREMENT, NOW, scene

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CHIP = bytes(range(64))
ENDORSED = {
    OID_BOOT_LOADER: b"\x02\x01\x04",
    OID_TEE: b"\x02\x01\x00",
    OID_SNP: b"\x02\x01\x18",
    OID_MICROCODE: b"\x02\x02\x00\xdb",
    OID_HARDWARE_ID: CHIP,
}


def p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@dataclass(frozen=True)
class Certificate:
    """What one certificate of a made-up chain shall be."""

    subject: str
    issuer: str
    key: Key
    authority: bool = True
    constraints: bool = True
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 = field(default_factory=hashes.SHA384)
    rsa_padding: padding.PSS | padding.PKCS1v15 | None = None
    endorsed: dict[str, bytes] | None = None

    def signed_by(self, key: Key) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(self.subject))
            .issuer_name(named(self.issuer))
            .public_key(self.key.public_key())
            .serial_number(7)
            .not_valid_before(NOW)
            .not_valid_after(NOW + VALIDITY)
        )
        if self.endorsed is None and self.constraints:
            usage = dict.fromkeys(
                (
                    "digital_signature",
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "crl_sign",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            builder = builder.add_extension(x509.BasicConstraints(self.authority, None), critical=True)
            builder = builder.add_extension(
                x509.KeyUsage(**usage, key_cert_sign=self.authority), critical=True
            )
        for oid, value in (self.endorsed or {}).items():
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(key, self.digest, rsa_padding=self.rsa_padding)
        return certificate.public_bytes(Encoding.DER)


def named(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, SIMULATED_ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


@dataclass(frozen=True)
class Chain:
    """Three certificates to be signed, each by the next."""

    leaf: Certificate
    intermediate: Certificate
    root: Certificate

    def verdict(self, leaf_key: ec.EllipticCurvePrivateKey, chip: bytes = CHIP) -> str:
        root = self.root.signed_by(self.root.key)
        chain = (self.leaf.signed_by(self.intermediate.key), self.intermediate.signed_by(self.root.key), root)
        platform = SimulatedPlatform("north", MEASUREMENT, chain, GuestSettings(), chip, leaf_key)
        one = scene()
        policy = one.policy.model_copy(update={"without_revocation": (Tee.AMD_SEV_SNP,)})
        verdict = replace(one, platform=platform, trust=TrustStore.simulated(root), policy=policy).verify()
        assert (verdict.status is Status.TRUSTED) == (verdict.code is None)
        return verdict.code or "trusted"


LEAF_KEY = p384()


def sound() -> Chain:
    return Chain(
        leaf=Certificate("VCEK", "ASK", LEAF_KEY, endorsed=ENDORSED),
        intermediate=Certificate("ASK", "ARK", p384()),
        root=Certificate("ARK", "ARK", p384()),
    )


def test_a_chain_as_it_must_be_is_trusted() -> None:
    assert sound().verdict(LEAF_KEY) == "trusted"


def leaf(**changes: object) -> Callable[[Chain], Chain]:
    return lambda one: replace(one, leaf=replace(one.leaf, **changes))  # type: ignore[arg-type]


def endorsed(**changes: bytes | None) -> Callable[[Chain], Chain]:
    oids = {
        "boot": OID_BOOT_LOADER,
        "tee": OID_TEE,
        "snp": OID_SNP,
        "microcode": OID_MICROCODE,
        "fmc": OID_FMC,
        "chip": OID_HARDWARE_ID,
        "provider": OID_PROVIDER_ID,
    }
    values: dict[str, bytes | None] = {**ENDORSED, **{oids[name]: value for name, value in changes.items()}}
    return leaf(endorsed={oid: value for oid, value in values.items() if value is not None})


def middle(**changes: object) -> Callable[[Chain], Chain]:
    return lambda one: replace(one, intermediate=replace(one.intermediate, **changes))  # type: ignore[arg-type]


def root(**changes: object) -> Callable[[Chain], Chain]:
    return lambda one: replace(one, root=replace(one.root, **changes))  # type: ignore[arg-type]


REFUSALS: dict[str, tuple[Callable[[Chain], Chain], str]] = {
    "leaf names another issuer": (leaf(issuer="ANOTHER"), "attestation.chain"),
    "intermediate names another issuer": (middle(issuer="ANOTHER"), "attestation.chain"),
    "intermediate is no authority": (middle(authority=False), "attestation.chain"),
    "intermediate says nothing of authority": (middle(constraints=False), "attestation.chain"),
    "root is no authority": (root(authority=False), "attestation.chain"),
    "leaf signed with SHA-256": (leaf(digest=hashes.SHA256()), "attestation.alg"),
    "intermediate signed with SHA-512": (middle(digest=hashes.SHA512()), "attestation.alg"),
    "leaf issued by a P-256 key": (
        middle(key=ec.generate_private_key(ec.SECP256R1())),
        "attestation.alg",
    ),
    "a P-256 key endorsed": (
        leaf(key=ec.generate_private_key(ec.SECP256R1())),
        "attestation.alg",
    ),
    "no chip and no provider": (endorsed(chip=None), "attestation.malformed"),
    "chip and provider": (endorsed(provider=b"\x16\x01a"), "attestation.malformed"),
    "a provider's key for a chip's report": (
        endorsed(chip=None, provider=b"\x16\x01a"),
        "attestation.chip_id",
    ),
    "another chip": (endorsed(chip=bytes(64)), "attestation.chip_id"),
    "a longer chip id": (endorsed(chip=CHIP + b"\0"), "attestation.chip_id"),
    "another version": (endorsed(snp=b"\x02\x01\x17"), "attestation.tcb_mismatch"),
    "another first component": (endorsed(fmc=b"\x02\x01\x01"), "attestation.tcb_mismatch"),
    "no version": (endorsed(boot=None), "attestation.malformed"),
    "a negative version": (endorsed(boot=b"\x02\x01\x84"), "attestation.malformed"),
    "a version over 255": (endorsed(boot=b"\x02\x02\x01\x00"), "attestation.malformed"),
    "a version with a padded zero": (endorsed(boot=b"\x02\x02\x00\x04"), "attestation.malformed"),
    "a version of another type": (endorsed(boot=b"\x04\x01\x04"), "attestation.malformed"),
    "a version with bytes after it": (endorsed(boot=b"\x02\x01\x04\x00"), "attestation.malformed"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_each_unsound_chain_is_refused_with_its_own_code(name: str) -> None:
    change, code = REFUSALS[name]
    assert change(sound()).verdict(LEAF_KEY) == code


def test_a_short_chip_id_is_that_chip_if_the_rest_is_zero() -> None:
    short = endorsed(chip=CHIP[:8])(sound())
    assert short.verdict(LEAF_KEY) == "attestation.chip_id"
    assert short.verdict(LEAF_KEY, CHIP[:8] + bytes(56)) == "trusted"


@pytest.mark.parametrize(
    "scheme",
    [
        padding.PSS(padding.MGF1(hashes.SHA384()), 48),
        padding.PSS(padding.MGF1(hashes.SHA384()), 32),
        padding.PKCS1v15(),
    ],
)
def test_an_rsa_key_shorter_than_4096_bits_or_another_padding_is_refused(
    scheme: padding.PSS | padding.PKCS1v15,
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    chain = root(key=key, rsa_padding=scheme)(sound())
    chain = replace(chain, intermediate=replace(chain.intermediate, rsa_padding=scheme))
    assert chain.verdict(LEAF_KEY) == "attestation.alg"


def test_versions_are_unpacked_as_each_product_line_lays_them_out() -> None:
    packed = int.from_bytes(bytes([1, 2, 3, 4, 5, 6, 7, 8]), "little")
    assert milan_tcb(packed) == Tcb(boot_loader=1, tee=2, snp=7, microcode=8)
    assert turin_tcb(packed) == Tcb(fmc=1, boot_loader=2, tee=3, snp=4, microcode=8)
    one = LowestVersions(boot_loader=1, tee=1, snp=1, microcode=1)
    assert one.shortfalls(Tcb(1, 1, 1, 1).as_dict()) == ()
    assert one.shortfalls(Tcb(9, 9, 9, 0).as_dict()) == ("microcode 0 is below 1",)
    turin = LowestVersions(fmc=2, boot_loader=2, tee=3, snp=4, microcode=8)
    assert turin.shortfalls(turin_tcb(packed).as_dict()) == ("fmc 1 is below 2",)
