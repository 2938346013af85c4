"""``cloister pki``: roots, issuing authorities, certificates of parties, and revocation lists.

Keys are kept where the settings say: in files, encrypted files or a PKCS#11 token.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cloister.cli.options import Debug, Json, Workspace
from cloister.cli.pki_shown import authority_facts, certificate_facts, list_facts, revocation_facts, show

if TYPE_CHECKING:
    from cloister.core.keys import KeyStore
    from cloister.evidence.pki.book import AuthorityBook

Folder = Annotated[
    Path, typer.Argument(help="The authority's folder: its book of what it issued and revoked.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write; nothing is overwritten.")]
Name = Annotated[str, typer.Option("--name", help="What people call the authority.")]


_LONGEST_SERIAL: Final = 40
"""Hex digits of a serial number (RFC 5280 section 4.1.2.2: 20 octets)."""


class Algorithm(str, Enum):  # noqa: UP042 - a choice of the command line
    """The algorithm of a new key."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256-sha256"
    ECDSA_P384 = "ecdsa-p384-sha384"


class PartyRole(str, Enum):  # noqa: UP042
    """The roles that an authority may vouch for."""

    HUB = "hub"
    SITE = "site"
    DEVELOPER = "developer"
    HOSPITAL = "hospital"
    ENCLAVE = "enclave"
    WITNESS = "witness"
    AUDITOR = "auditor"


class WhyRevoked(str, Enum):  # noqa: UP042
    """Why a certificate is revoked."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    CA_COMPROMISE = "ca-compromise"
    AFFILIATION_CHANGED = "affiliation-changed"
    SUPERSEDED = "superseded"
    CESSATION = "cessation"


CertifiedRole = Annotated[PartyRole, typer.Option("--role", help="The party's role.")]
CertifiedParty = Annotated[str, typer.Option("--party", help="The party's name.")]
Days = Annotated[int, typer.Option(min=1, max=36_500, help="How long it holds.")]
NewKey = Annotated[Algorithm, typer.Option("--algorithm", help="Of the authority's new key.")]


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "root",
        help="Make a root with a new key. Keep it offline: it only makes authorities and revokes them.",
        epilog="Example:  cloister pki root root/ --name 'Example root'",
    )(_root)
    group.command(
        "ca",
        help="Make an issuing authority under a root, for the roles named and no others.",
        epilog="Example:  cloister pki ca sites/ --root root/ --name 'Example sites' --role site",
    )(_ca)
    group.command(
        "issue",
        help="Certify a party's public key in a role, for some days. Ask first whether the key is theirs.",
        epilog="Example:  cloister pki issue sites/ --role site --party north --key n.pem --out chain.pem",
    )(_issue)
    group.command(
        "revoke",
        help="Revoke a certificate by its serial number or file; the next revocation list says so.",
        epilog="Example:  cloister pki revoke sites/ chain.pem --reason key-compromise",
    )(_revoke)
    group.command(
        "crl",
        help="Make the newest revocation list, to be put into revoked/ of a trust directory.",
        epilog="Example:  cloister pki crl sites/ --out sites.crl --days 7",
    )(_crl)
    group.command(
        "key",
        help="Write the public key of a workspace's party, for an authority to certify; made on first use.",
        epilog="Example:  cloister pki key --role site --party north --workspace work/ --out north.pem",
    )(_key)
    group.command(
        "install",
        help="Let a workspace's party show a certificate: its receipts and exports carry it from now on.",
        epilog="Example:  cloister pki install chain.pem --workspace work/",
    )(_install)
    group.command(
        "show",
        help="Show certificates, a revocation list, or an authority's book.",
        epilog="Examples:  cloister pki show chain.pem   ·   cloister pki show sites/ --json",
    )(_show)


def _root(
    folder: Folder,
    name: Name,
    algorithm: NewKey = Algorithm.ED25519,
    days: Days = 3652,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.evidence.pki.book import create_root

    book = create_root(
        folder, _store(folder), name, algorithm=algorithm.value, at=_now(), lifetime=timedelta(days=days)
    )
    show(authority_facts(folder, book), as_json=as_json)
    return 0


def _ca(
    folder: Folder,
    root: Annotated[Path, typer.Option("--root", help="The root's folder.")],
    name: Name,
    role: Annotated[list[PartyRole], typer.Option("--role", help="May be given several times.")],
    algorithm: NewKey = Algorithm.ED25519,
    days: Days = 730,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.evidence.pki.book import create_authority
    from cloister.evidence.predicates.base import Role

    book = create_authority(
        folder,
        _store(folder),
        _open(root),
        name,
        [Role(one.value) for one in role],
        algorithm=algorithm.value,
        at=_now(),
        lifetime=timedelta(days=days),
    )
    show(authority_facts(folder, book), as_json=as_json)
    return 0


def _issue(
    folder: Folder,
    role: CertifiedRole,
    party: CertifiedParty,
    key: Annotated[Path, typer.Option("--key", help="The party's public key, PEM.")],
    out: Out,
    days: Days = 30,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.files import read_bounded, write_new
    from cloister.core.keys import PublicKey
    from cloister.evidence.pki import load_pem_certificates
    from cloister.evidence.predicates.base import Role

    public = PublicKey.from_pem(read_bounded(key, 64 * 1024))
    book = _open(folder)
    chain = book.issue(public, Role(role.value), party, at=_now(), lifetime=timedelta(days=days))
    write_new(out, chain.encode("ascii"), mode=0o644)
    shown = certificate_facts(load_pem_certificates(chain)[0])
    show({**shown, "file": str(out)}, as_json=as_json)
    return 0


def _revoke(
    folder: Folder,
    certificate: Annotated[str, typer.Argument(help="Serial number in hex, or the certificate's file.")],
    reason: Annotated[WhyRevoked, typer.Option("--reason", help="A stolen key is refused for all times.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.evidence.pki.issuing import Reason

    book = _open(folder)
    revoked = book.revoke(_serial(certificate), Reason(reason.value), at=_now())
    show(revocation_facts(revoked), as_json=as_json)
    return 0


def _crl(
    folder: Folder,
    out: Out,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How long verifiers may use it.")] = 7,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.files import write_new
    from cloister.evidence.pki import load_crl

    made = _open(folder).crl(at=_now(), lifetime=timedelta(days=days))
    write_new(out, made, mode=0o644)
    show({**list_facts(load_crl(made)), "file": str(out)}, as_json=as_json)
    return 0


def _key(
    role: CertifiedRole,
    party: CertifiedParty,
    out: Out,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.files import write_new
    from cloister.core.settings import load_settings
    from cloister.workflow.workspace import open_workspace

    settings = load_settings({"workspace": workspace})
    with open_workspace(settings.workspace, settings=settings) as opened:
        public = opened.party(role.value, party).signer.public_key
    write_new(out, public.pem.encode("ascii"), mode=0o644)
    shown = {"role": role.value, "party": party, "key_id": public.key_id, "algorithm": public.algorithm}
    show({**shown, "file": str(out)}, as_json=as_json)
    return 0


def _install(
    chain: Annotated[Path, typer.Argument(help="The chain that an authority issued.")],
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.files import read_bounded
    from cloister.core.settings import load_settings
    from cloister.evidence.pki import read_chain
    from cloister.workflow.credentials import install_certificate
    from cloister.workflow.workspace import open_workspace

    pem = read_bounded(chain, 64 * 1024)
    found = read_chain(pem)
    settings = load_settings({"workspace": workspace})
    with open_workspace(settings.workspace, settings=settings) as opened:
        path = install_certificate(opened.party(found.role.value, found.party), pem)
    show({**certificate_facts(found.certificates[0]), "file": str(path)}, as_json=as_json)
    return 0


def _show(
    path: Annotated[
        Path, typer.Argument(help="A certificate, a chain, a revocation list, or a book's folder.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.files import read_bounded
    from cloister.evidence.errors import CertificateError
    from cloister.evidence.pki import load_crl, load_pem_certificates
    from cloister.evidence.pki.revocation import MAX_CRL_BYTES

    if path.is_dir():
        show(authority_facts(path, _open(path)), as_json=as_json)
        return 0
    data = read_bounded(path, MAX_CRL_BYTES)
    if b"-----BEGIN CERTIFICATE-----" in data:
        found = [certificate_facts(one) for one in load_pem_certificates(data)]
        show({"certificates": found}, as_json=as_json)
    elif data[:1] == b"\x30" or b"-----BEGIN X509 CRL-----" in data:
        show(list_facts(load_crl(data)), as_json=as_json)
    else:
        raise CertificateError(
            "evidence.certificate_malformed",
            f"{path} is no certificate, chain or revocation list.",
            "Name one of these, or an authority's folder; cloister pki key writes a party's public key.",
        )
    return 0


def _now() -> datetime:
    from cloister.core.clock import system_clock

    return system_clock()


def _store(folder: Path) -> KeyStore:
    from cloister.core.keys import open_key_store
    from cloister.core.settings import load_settings

    return open_key_store(load_settings({}), folder / "keys", owner="authority")


def _open(folder: Path) -> AuthorityBook:
    from cloister.core.errors import InputError
    from cloister.evidence.pki.book import open_book

    if not (folder / "chain.pem").is_file():
        raise InputError(
            "input.missing_file",
            f"There is no authority in {folder}.",
            "Make one: cloister pki root, or cloister pki ca.",
        )
    return open_book(folder, _store(folder))


def _serial(text: str) -> int:
    from cloister.core.errors import InputError
    from cloister.core.files import read_bounded
    from cloister.evidence.pki import load_pem_certificates

    path = Path(text)
    if len(text) > _LONGEST_SERIAL or path.is_file():
        return load_pem_certificates(read_bounded(path, 64 * 1024))[0].x509.serial_number
    try:
        return int(text, 16)
    except ValueError:
        raise InputError(
            "input.syntax", "This is neither a serial number in hex nor a certificate's file."
        ) from None
