"""Chains that somebody could make who doesn't keep the rules: each is refused, by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from cloister.core.keys import PublicKey
from cloister.evidence.errors import CertificateError
from cloister.evidence.pki import Certificate, RevocationLists, establish, load_root, read_chain
from cloister.evidence.pki.certificates import party_name, role_name
from cloister.evidence.predicates import Role
from tests.conftest import START
from tests.evidence.pki.scene import DAY, LATER, Scene, Shape, authority_shape

ROOT_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")


def root_shape() -> Shape:
    return replace(authority_shape(), subject=ROOT_NAME, path_length=1, constraints=None)


class Maker:
    """A root, an authority and a site of P-256, with certificates of any shape."""

    def __init__(self) -> None:
        self.keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "ca", "sub", "site")}
        self.root = self.own_root(root_shape())

    def made(
        self, shape: Shape, key: str = "site", by: str = "ca", issuer: x509.Name | None = None
    ) -> Certificate:
        named = authority_shape().subject if issuer is None else issuer
        return shape.signed_by(self.keys[by], PublicKey.of(self.keys[key].public_key()), named)

    def own_root(self, shape: Shape) -> Certificate:
        return self.made(shape, "root", "root", ROOT_NAME)

    def authority(self, shape: Shape | None = None) -> Certificate:
        return self.made(shape or authority_shape(), "ca", "root", ROOT_NAME)

    def judge(self, *certificates: Certificate, root: Certificate | None = None) -> None:
        chain = read_chain("".join(one.pem for one in certificates))
        roots = [load_root((root or self.root).pem.encode())]
        establish(chain, roots, RevocationLists()).require_valid(LATER)


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker()


def refused(maker: Maker, leaf: Shape | None = None, authority: Shape | None = None) -> str:
    with pytest.raises(CertificateError) as caught:
        maker.judge(maker.made(leaf or Shape()), maker.authority(authority))
    return caught.value.code


def test_the_shapes_these_tests_start_from_are_accepted(maker: Maker) -> None:
    maker.judge(maker.made(Shape()), maker.authority())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ca": True, "names": (x509.UniformResourceIdentifier("urn:cloister:party:site/north"),)}, "usage"),
        ({"usages": None}, "usage"),
        ({"usages": ()}, "usage"),
        ({"usages": ("digital_signature", "key_cert_sign")}, "usage"),
        ({"usages": ("digital_signature", "crl_sign")}, "usage"),
        ({"usages": ("digital_signature", "key_encipherment")}, "usage"),
        ({"usages": ("content_commitment",)}, "usage"),
        ({"usage_critical": False}, "usage"),
        ({"extra": ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),)}, "usage"),
        ({"extra": ((UNKNOWN, True),)}, "extension"),
        ({"uri": "urn:cloister:party:site/south"}, "role"),
        ({"uri": "urn:cloister:party:hub/north"}, "role"),
        ({"uri": "urn:cloister:party:admin/north"}, "role"),
        ({"uri": "urn:cloister:party:tee-root/north"}, "role"),
        ({"uri": "urn:cloister:party:site/"}, "role"),
        ({"uri": "urn:cloister:party:site/a/b"}, "role"),
        ({"uri": "https://example.org/site/north"}, "role"),
        ({"names": ()}, "role"),
        ({"names": (x509.DNSName("north"),)}, "role"),
        (
            {
                "names": tuple(
                    x509.UniformResourceIdentifier(f"urn:cloister:party:site/{p}") for p in ("north", "b")
                )
            },
            "role",
        ),
        ({"subject": party_name(Role.SITE, "south")}, "role"),
        ({"subject": x509.Name([])}, "role"),
        ({"role": Role.HUB}, "role"),
        ({"begin": LATER + DAY}, "not_yet_valid"),
        ({"end": LATER - DAY / 2}, "expired"),
        ({"issuer": ROOT_NAME}, "signature"),
        ({"digest": hashes.SHA512()}, "malformed"),
        ({"digest": hashes.SHA384()}, "signature"),
    ],
)
def test_a_signers_certificate_of_another_shape_is_refused(
    maker: Maker, change: dict[str, object], code: str
) -> None:
    assert refused(maker, replace(Shape(), **change)) == f"evidence.certificate_{code}"  # type: ignore[arg-type]


def test_an_unknown_extension_that_is_not_critical_does_no_harm(maker: Maker) -> None:
    maker.judge(maker.made(replace(Shape(), extra=((UNKNOWN, False),))), maker.authority())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ca": False, "path_length": None, "names": ()}, "usage"),
        ({"ca": None}, "usage"),
        ({"usages": ("crl_sign",)}, "usage"),
        ({"usages": None}, "usage"),
        ({"usage_critical": False}, "usage"),
        ({"constraints": None}, "role"),
        ({"constraints": x509.NameConstraints([x509.DirectoryName(role_name(Role.HUB))], None)}, "role"),
        ({"constraints": x509.NameConstraints([x509.DirectoryName(x509.Name([]))], None)}, "role"),
        ({"constraints": x509.NameConstraints([x509.DNSName("example.org")], None)}, "extension"),
        ({"constraints": x509.NameConstraints(None, [x509.DirectoryName(ROOT_NAME)])}, "extension"),
        ({"extra": ((UNKNOWN, True),)}, "extension"),
        ({"begin": LATER + DAY}, "not_yet_valid"),
        ({"end": LATER - DAY / 2}, "expired"),
    ],
)
def test_an_authority_of_another_shape_vouches_for_nobody(
    maker: Maker, change: dict[str, object], code: str
) -> None:
    assert refused(maker, authority=authority_shape(**change)) == f"evidence.certificate_{code}"


def test_an_authority_may_be_for_several_roles(maker: Maker) -> None:
    subtrees = [x509.DirectoryName(role_name(role)) for role in (Role.HUB, Role.SITE)]
    authority = maker.authority(authority_shape(constraints=x509.NameConstraints(subtrees, None)))
    maker.judge(maker.made(Shape()), authority)
    maker.judge(maker.made(Shape(role=Role.HUB)), authority)


def test_a_role_whose_name_begins_another_is_not_that_role(maker: Maker) -> None:
    """Names are compared part by part, not as text."""
    prefix = x509.Name(
        [*list(role_name(Role.SITE))[:1], x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "si")]
    )
    constraints = x509.NameConstraints([x509.DirectoryName(prefix)], None)
    assert refused(maker, authority=authority_shape(constraints=constraints)) == "evidence.certificate_role"


def test_a_signer_issues_nothing(maker: Maker) -> None:
    south = maker.made(Shape(party="south"), "sub", "site", party_name(Role.SITE, "north"))
    with pytest.raises(CertificateError) as caught:
        maker.judge(south, maker.made(Shape()), maker.authority())
    assert caught.value.code == "evidence.certificate_usage"


def test_an_authority_below_an_authority_is_refused(maker: Maker) -> None:
    """With a root that allows any depth, the path is still no longer than three."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "deeper")])
    root = maker.own_root(replace(root_shape(), path_length=None))
    upper = maker.authority(authority_shape(path_length=None))
    lower = maker.made(authority_shape(subject=name), "sub", "ca")
    leaf = maker.made(Shape(), "site", "sub", name)
    with pytest.raises(CertificateError) as caught:
        maker.judge(leaf, lower, upper, root=root)
    assert caught.value.code == "evidence.certificate_usage"


def test_the_path_length_of_a_root_is_kept(maker: Maker) -> None:
    root = maker.own_root(replace(root_shape(), path_length=0))
    with pytest.raises(CertificateError) as caught:
        maker.judge(maker.made(Shape()), maker.authority(), root=root)
    assert caught.value.code == "evidence.certificate_usage"


def test_a_root_may_issue_to_signers_itself(maker: Maker) -> None:
    leaf = maker.made(Shape(), "site", "root", ROOT_NAME)
    maker.judge(leaf)
    maker.judge(leaf, maker.root)


def test_a_root_that_is_constrained_itself_keeps_to_it(maker: Maker) -> None:
    hubs_only = x509.NameConstraints([x509.DirectoryName(role_name(Role.HUB))], None)
    root = maker.own_root(replace(root_shape(), constraints=hubs_only))
    with pytest.raises(CertificateError) as caught:
        maker.judge(maker.made(Shape()), maker.authority(), root=root)
    assert caught.value.code == "evidence.certificate_role"


def test_an_expired_root_vouches_for_nobody(maker: Maker) -> None:
    root = maker.own_root(replace(root_shape(), begin=START - DAY, end=START))
    with pytest.raises(CertificateError) as caught:
        maker.judge(maker.made(Shape()), maker.authority(), root=root)
    assert caught.value.code == "evidence.certificate_expired"


def test_a_root_that_another_signed_is_not_pinned(maker: Maker) -> None:
    forged = maker.made(root_shape(), "root", "sub", ROOT_NAME)
    with pytest.raises(CertificateError) as caught:
        load_root(forged.pem.encode())
    assert caught.value.code == "evidence.certificate_signature"


def test_a_certificate_of_another_chain_does_not_fit_in(maker: Maker) -> None:
    """Same names, other keys: each half is good for itself."""
    other = Maker()
    with pytest.raises(CertificateError) as caught:
        maker.judge(other.made(Shape()), maker.authority())
    assert caught.value.code == "evidence.certificate_signature"


def test_a_chain_in_another_order_is_refused() -> None:
    scene = Scene()
    with pytest.raises(CertificateError) as caught:
        read_chain(scene.ca.pem + scene.site.pem)
    assert caught.value.code == "evidence.certificate_role"
