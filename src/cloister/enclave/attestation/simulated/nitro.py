"""A simulated Nitro security module: real COSE documents, real chains, labelled root.

Rules kept here:

* Every certificate's organisation is ``SIMULATED - NOT HARDWARE`` and every module id says so; no production
  trust accepts the chain, and every verdict on it says ``simulated``.
* Its documents go through the same verifier as hardware's; there is no second path.
* Keys are made on the machine that simulates. None is in the code or the distribution. The root's key stays
  in its file, as everything below it lives as shortly as AWS's own: three hours for a module.
* Registers are what the caller says: a simulation proves nothing about the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.core.clock import Clock
from cloister.core.files import read_or_make
from cloister.enclave.attestation.aws.document import (
    MAX_FIELD_BYTES,
    PCR_BYTES,
    NitroDocument,
    sign1,
    signed_bytes,
)
from cloister.enclave.attestation.collateral import Collateral, CollateralDocument, CollateralKind
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.simulated.certificates import (
    authority,
    certificate_der,
    issued,
    key_usage,
    new_key,
    revocation_list,
    simulated_name,
)
from cloister.enclave.attestation.strict_cbor import CBOR, decode, encode
from cloister.enclave.attestation.trust import SIMULATED_ORGANISATION
from cloister.enclave.errors import AttestationError

ROOT_FILE: Final = "simulated-nitro.pem"
MODULE_LIFE: Final = timedelta(hours=3)
ISSUER_LIFE: Final = timedelta(days=20)
ROOT_LIFE: Final = timedelta(days=3650)
PCRS: Final = 16
_UNIT: Final = "AWS"
_EARLY = timedelta(seconds=3)
_MAX_FILE_BYTES = 64 * 1024
_HASH = hashes.SHA384()


@dataclass(frozen=True)
class EnclaveImage:
    """What a simulated enclave's registers shall say.

    Attributes:
        pcr0: the image, 48 bytes; zero in debug mode, as are the next two.
        pcr1: kernel and boot code.
        pcr2: the application.
        others: further registers by number, from 3 to 15; those not named are zero.
    """

    pcr0: bytes
    pcr1: bytes
    pcr2: bytes
    others: Mapping[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, application: bytes) -> EnclaveImage:
        """An image whose three registers are SHA-384 over labels and the application.

        Args:
            application: whatever stands for the code.
        """
        label = SIMULATED_ORGANISATION.encode()
        digests = [hashlib.sha384(label + part).digest() for part in (b" image " + application, b" boot")]
        return cls(digests[0], digests[1], hashlib.sha384(label + b" application " + application).digest())

    @classmethod
    def debug(cls) -> EnclaveImage:
        """An enclave in debug mode."""
        return cls(bytes(PCR_BYTES), bytes(PCR_BYTES), bytes(PCR_BYTES))

    def registers(self) -> dict[int, bytes]:
        """All sixteen registers by number.

        Raises:
            AttestationError: attestation.malformed where one isn't 48 bytes, or has another number.
        """
        named = {0: self.pcr0, 1: self.pcr1, 2: self.pcr2}
        wrong = [index for index in self.others if not len(named) <= index < PCRS]
        everything = {**{index: bytes(PCR_BYTES) for index in range(PCRS)}, **self.others, **named}
        if wrong or any(len(value) != PCR_BYTES for value in everything.values()):
            raise AttestationError(
                "attestation.malformed", "A register is not 48 bytes, or has another number."
            )
        return everything


class SimulatedNitro:
    """A made-up cloud: a root, under which security modules get certificates for a few hours.

    Args:
        key: the root's.
        root: its certificate.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, root: x509.Certificate) -> None:
        self._key = key
        self._root = root
        validity = (root.not_valid_before_utc, root.not_valid_after_utc)
        self._list = revocation_list(root.subject, key, validity)

    @classmethod
    def create(cls, clock: Clock) -> SimulatedNitro:
        """A cloud in memory only.

        Args:
            clock: its root is valid from a day before its time.
        """
        key = new_key()
        start = clock() - timedelta(days=1)
        name = simulated_name("NITRO-SIMULATED", _UNIT)
        return cls(
            key, issued(name, key.public_key(), name, key, (start, start + ROOT_LIFE), authority(None))
        )

    @classmethod
    def open(cls, directory: Path, clock: Clock) -> SimulatedNitro:
        """The cloud kept in a folder, made there on first use (file mode 0600).

        Args:
            directory: an existing folder.
            clock: the time of making.

        Raises:
            AttestationError: attestation.malformed when the file isn't a simulated cloud's.
            StorageError: it cannot be written.
            InputError: it cannot be read.
        """
        return cls._from_pem(
            read_or_make(directory / ROOT_FILE, _MAX_FILE_BYTES, lambda: cls.create(clock)._pem())
        )

    @property
    def root_der(self) -> bytes:
        """The root certificate: what a relying party pins, knowing it is simulated."""
        return certificate_der(self._root)

    @property
    def collateral(self) -> Collateral:
        """The root's revocation list, an empty one that holds as long as the root."""
        return Collateral((CollateralDocument(CollateralKind.AWS_CRL, self._list),))

    def revoking(self, at: datetime, life: timedelta, serials: tuple[int, ...]) -> CollateralDocument:
        """A list of the root's that names certificates, for rehearsing what happens then.

        Args:
            at: when it is issued.
            life: how long it holds.
            serials: of the zonal issuers' certificates.
        """
        der = revocation_list(self._root.subject, self._key, (at, at + life), serials)
        return CollateralDocument(CollateralKind.AWS_CRL, der)

    def module(self, name: str, image: EnclaveImage, clock: Clock) -> SimulatedSecurityModule:
        """The security module of one simulated enclave.

        Args:
            name: the enclave's, up to 40 characters.
            image: what its registers shall say.
            clock: the time its documents state; certificates are valid from three seconds before.

        Raises:
            AttestationError: attestation.malformed for a register that isn't 48 bytes.
        """
        return SimulatedSecurityModule(self, f"SIMULATED-NOT-HARDWARE-{name}"[:64], image.registers(), clock)

    def certify(self, module_id: str, key: ec.EllipticCurvePublicKey, now: datetime) -> tuple[bytes, ...]:
        """Certificates for a module's key: its own, its issuer's, the root's, in DER.

        Args:
            module_id: whose.
            key: P-384.
            now: from when they're valid, less three seconds.
        """
        start = now - _EARLY
        issuer_key, issuer_name = new_key(), simulated_name("NITRO-SIMULATED zonal", _UNIT)
        issuer = issued(
            issuer_name,
            issuer_key.public_key(),
            self._root.subject,
            self._key,
            (start, start + ISSUER_LIFE),
            authority(0),
        )
        leaf = issued(
            simulated_name(module_id, _UNIT),
            key,
            issuer_name,
            issuer_key,
            (start, start + MODULE_LIFE),
            ((x509.BasicConstraints(ca=False, path_length=None), True), (key_usage(signs=True), False)),
        )
        return (certificate_der(leaf), certificate_der(issuer), self.root_der)

    def _pem(self) -> bytes:
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key + self._root.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def _from_pem(cls, data: bytes) -> SimulatedNitro:
        try:
            key = serialization.load_pem_private_key(data, password=None)
            certificates = x509.load_pem_x509_certificates(data)
        except (ValueError, TypeError):
            certificates = []
        if len(certificates) != 1 or not isinstance(key, ec.EllipticCurvePrivateKey):
            raise AttestationError("attestation.malformed", "The file is not a simulated cloud's.")
        return cls(key, certificates[0])


class SimulatedSecurityModule:
    """Answers an enclave's requests as /dev/nsm does, with documents of a simulated root."""

    def __init__(
        self, cloud: SimulatedNitro, module_id: str, registers: Mapping[int, bytes], clock: Clock
    ) -> None:
        self._cloud, self._clock = cloud, clock
        self._document = NitroDocument(module_id, 1, registers, b"", ())
        self._key = new_key()
        self._chain: tuple[bytes, ...] = ()
        self._until: datetime | None = None

    @property
    def module_id(self) -> str:
        """Its name, which says that it is simulated."""
        return self._document.module_id

    def quote(
        self, user_data: bytes, *, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> Evidence:
        """A signed document.

        Args:
            user_data: what to seal in: the 64 bytes of a binding's report data.
            nonce: what else to hand in, at most 1,024 bytes, as is the key.
            public_key: a key to hand in, not empty.

        Raises:
            AttestationError: attestation.malformed for a field of another size.
        """
        fields = (user_data, nonce or b"", public_key or b"")
        if any(len(one) > MAX_FIELD_BYTES for one in fields) or public_key == b"":
            raise AttestationError("attestation.malformed", "A field is longer than a document may carry.")
        now = self._clock()
        if self._until is None or now > self._until:
            self._key = new_key()
            self._chain = self._cloud.certify(self.module_id, self._key.public_key(), now)
            self._until = now + MODULE_LIFE - timedelta(minutes=5)
        document = replace(
            self._document,
            timestamp=int(now.timestamp() * 1000),
            certificate=self._chain[0],
            cabundle=tuple(reversed(self._chain[1:])),
            user_data=user_data,
            nonce=nonce,
            public_key=public_key,
        )
        payload = document.payload()
        r, s = decode_dss_signature(self._key.sign(signed_bytes(payload), ec.ECDSA(_HASH)))
        signature = r.to_bytes(PCR_BYTES, "big") + s.to_bytes(PCR_BYTES, "big")
        return Evidence(Tee.AWS_NITRO, sign1(payload, signature))

    def answer(self, request: bytes) -> bytes:
        """Answer one request of the module's interface.

        Args:
            request: CBOR of ``{"Attestation": {"user_data", "nonce", "public_key"}}``, each bytes or null.

        Returns:
            CBOR of ``{"Attestation": {"document": bytes}}``, or of ``{"Error": name}``, as the module's.
        """
        try:
            fields = _attestation_request(decode(request))
            document = self.quote(
                fields["user_data"] or b"", nonce=fields["nonce"], public_key=fields["public_key"]
            ).report
        except AttestationError:
            return encode({"Error": "InvalidArgument"})
        return encode({"Attestation": {"document": document}})


def attestation_request(
    user_data: bytes, nonce: bytes | None = None, public_key: bytes | None = None
) -> bytes:
    """The request for a document, as the security module's interface has it."""
    return encode({"Attestation": {"user_data": user_data, "nonce": nonce, "public_key": public_key}})


def attestation_answer(answer: bytes) -> bytes:
    """The document in a security module's answer.

    Raises:
        AttestationError: attestation.malformed where there is none.
    """
    value = decode(answer)
    inner = value.get("Attestation") if isinstance(value, dict) else None
    document = inner.get("document") if isinstance(inner, dict) else None
    if not isinstance(document, bytes):
        raise AttestationError("attestation.malformed", "The security module gave no document.")
    return document


def _attestation_request(value: CBOR) -> dict[str, bytes | None]:
    inner = value.get("Attestation") if isinstance(value, dict) and len(value) == 1 else None
    names = ("user_data", "nonce", "public_key")
    if not isinstance(inner, dict) or not inner.keys() <= set(names):
        raise AttestationError("attestation.malformed", "This is no request for a document.")
    found: dict[str, bytes | None] = {}
    for name in names:
        one = inner.get(name)
        if one is not None and not isinstance(one, bytes):
            raise AttestationError("attestation.malformed", "This is no request for a document.")
        found[name] = one
    return found
