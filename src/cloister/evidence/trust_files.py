"""The files of a trust directory: nothing but files named as they have to be is read, and none is a link."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister.core.errors import CloisterError, InputError
from cloister.core.files import read_bounded
from cloister.core.keys import PublicKey
from cloister.evidence.errors import TrustError
from cloister.evidence.predicates.base import PARTY_PATTERN, Role

_PARTY = re.compile(PARTY_PATTERN)


def place_of(role: Role, party: str) -> str:
    """A party in a role, as it is named in errors."""
    if not _PARTY.fullmatch(party):
        raise TrustError("evidence.trust_malformed", f"{role.value} has a party with an improper name.")
    return f"{role.value}/{party}"


def conflict(place: str, owner: str) -> TrustError:
    """One key stands for two."""
    return TrustError(
        "evidence.trust_conflict",
        f"One key stands for {place} and for {owner}.",
        "Give each party a key of its own for each role.",
    )


def role_of(folder: Path) -> Role:
    """The role that a folder is for."""
    roles = {role.value: role for role in Role}
    if folder.name not in roles or folder.is_symlink() or not folder.is_dir():
        raise TrustError("evidence.trust_malformed", f"{folder.name} is not a role of a trust directory.")
    return roles[folder.name]


def folders(directory: Path) -> list[Path]:
    """What is in a folder of the trust directory."""
    if directory.is_symlink() or not directory.is_dir():
        raise TrustError("evidence.trust_malformed", f"{directory.name} is not a folder of roles.")
    return sorted(directory.iterdir())


def files(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder, all with this ending and none a link."""
    found = folders(folder)
    for file in found:
        if file.suffix != suffix or file.is_symlink() or not file.is_file():
            raise TrustError(
                "evidence.trust_malformed", f"{folder.name}/{file.name} is not a <name>{suffix} file."
            )
    return found


def read_file(file: Path, max_bytes: int) -> bytes:
    """A file of the trust directory."""
    try:
        return read_bounded(file, max_bytes)
    except InputError as error:
        raise TrustError(
            "evidence.trust_malformed", f"{file.parent.name}/{file.name} can't be read."
        ) from error


def read_key(pem: bytes, place: str) -> PublicKey:
    """A pinned public key."""
    try:
        return PublicKey.from_pem(pem)
    except CloisterError as error:
        raise TrustError("evidence.trust_malformed", f"{place}.pem is not a public key used here.") from error


def root_key_id(pem: bytes, place: str) -> str:
    """The key id of a vendor's root, whatever its algorithm; the file holds that one certificate."""
    try:
        (certificate,) = x509.load_pem_x509_certificates(pem)
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise TrustError("evidence.trust_malformed", f"{place}.pem is not one certificate.") from None
    return "sha256:" + hashlib.sha256(spki).hexdigest()
