"""A small public key infrastructure: a root, an issuing authority, a site; and certificates of any shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloister.core.keys import ED25519, EphemeralKeyStore, PublicKey, Signer
from cloister.evidence.pki import Certificate, load_certificate
from cloister.evidence.pki.certificates import party_name, party_uri, role_name
from cloister.evidence.pki.issuing import Revocation, issue_authority, issue_crl, issue_root, issue_signer
from cloister.evidence.predicates import Role
from cloister.evidence.trust import AuthorityEntry, Trust
from tests.conftest import START

DAY = timedelta(days=1)
LATER = START + DAY


@dataclass
class Scene:
    """Keys and certificates of one root, one authority and one site.

    Attributes:
        algorithm: of every key.
        roles: the roles that the authority is constrained to.
    """

    algorithm: str = ED25519
    roles: tuple[Role, ...] = (Role.SITE,)
    name: str = "Example"
    store: EphemeralKeyStore = field(default_factory=EphemeralKeyStore)

    def __post_init__(self) -> None:
        self.root_key = self.store.generate("root", self.algorithm)
        self.ca_key = self.store.generate("ca", self.algorithm)
        self.site_key = self.store.generate("site", self.algorithm)
        self.root = issue_root(self.root_key, f"{self.name} root", at=START)
        self.ca = issue_authority(
            self.root_key, self.root, self.ca_key.public_key, f"{self.name} issuing", self.roles, at=START
        )
        self.site = self.issue("north", self.site_key)

    def issue(
        self,
        party: str,
        key: Signer,
        role: Role = Role.SITE,
        at: datetime = START,
        lifetime: timedelta = DAY * 30,
    ) -> Certificate:
        return issue_signer(self.ca_key, self.ca, key.public_key, role, party, at=at, lifetime=lifetime)

    def chain(self, *certificates: Certificate) -> str:
        return "".join(one.pem for one in certificates or (self.site, self.ca))

    def trust(self, revocations: Iterable[bytes] = (), roles: Iterable[Role] = (Role.SITE,)) -> Trust:
        pem = self.root.pem.encode()
        return Trust(
            [],
            authorities=[AuthorityEntry(role, "example", pem) for role in roles],
            revocations=revocations,
        )

    def crl(
        self, *revoked: Revocation, at: datetime = START, until: datetime = START + 7 * DAY, number: int = 1
    ) -> bytes:
        return issue_crl(self.ca_key, self.ca, revoked, number=number, at=at, next_update=until)

    def root_crl(
        self, *revoked: Revocation, at: datetime = START, until: datetime = START + 7 * DAY
    ) -> bytes:
        return issue_crl(self.root_key, self.root, revoked, number=1, at=at, next_update=until)


@dataclass
class Shape:
    """A certificate as somebody might make it who doesn't keep the rules; the defaults keep them."""

    role: Role = Role.SITE
    party: str = "north"
    uri: str | None = None
    subject: x509.Name | None = None
    issuer: x509.Name | None = None
    begin: datetime = START
    end: datetime = START + 30 * DAY
    ca: bool | None = False
    path_length: int | None = None
    usages: tuple[str, ...] | None = ("digital_signature",)
    usage_critical: bool = True
    constraints: x509.NameConstraints | None = None
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    names: tuple[x509.GeneralName, ...] | None = None
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)

    def signed_by(
        self, issuer_key: ec.EllipticCurvePrivateKey, key: PublicKey, issuer: x509.Name | None = None
    ) -> Certificate:
        subject = party_name(self.role, self.party) if self.subject is None else self.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.issuer or issuer or subject)
            .public_key(key.library_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.begin)
            .not_valid_after(self.end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.library_key()), critical=False)
        )
        if self.ca is not None:
            basic = x509.BasicConstraints(self.ca, self.path_length)
            builder = builder.add_extension(basic, critical=True)
        if self.usages is not None:
            builder = builder.add_extension(key_usage(*self.usages), critical=self.usage_critical)
        names = self.names
        if names is None:
            uri = self.uri or party_uri(self.role, self.party)
            names = () if self.ca else (x509.UniformResourceIdentifier(uri),)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if self.constraints is not None:
            builder = builder.add_extension(self.constraints, critical=True)
        for value, critical in self.extra:
            builder = builder.add_extension(value, critical=critical)
        made = builder.sign(issuer_key, self.digest)
        return load_certificate(made.public_bytes(serialization.Encoding.DER))


def authority_shape(role: Role = Role.SITE, **changes: object) -> Shape:
    """An issuing authority's shape."""
    shape = Shape(
        subject=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuing")]),
        ca=True,
        path_length=0,
        usages=("key_cert_sign", "crl_sign"),
        constraints=x509.NameConstraints([x509.DirectoryName(role_name(role))], None),
    )
    for name, value in changes.items():
        setattr(shape, name, value)
    return shape


def key_usage(*names: str) -> x509.KeyUsage:
    fields = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in fields})
