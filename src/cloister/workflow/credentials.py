"""The certificates that a workspace's parties show where nobody pinned their keys.

They lie beside the party's key, as ``certificates/<serial>.pem``, each a chain as an authority issued it.
Old ones stay: what was signed under them is judged by them.

Rules kept here:

1. A party shows only certificates for itself: another party's is refused, and so is when it is installed one
   for a key that the party neither has nor had.
2. Showing a certificate claims nothing: whether to believe it is up to who verifies.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cloister.core.files import read_bounded, write_new
from cloister.evidence.errors import CertificateError
from cloister.evidence.pki import CertificateChain, read_chain
from cloister.workflow.party import Party

_FOLDER: Final = "certificates"
_MAX_BYTES: Final = 64 * 1024


def install_certificate(party: Party, pem: bytes) -> Path:
    """Keep a chain that an authority issued for a party's key, or for one that it signed with before.

    Args:
        party: whose key it certifies.
        pem: the party's certificate, then its issuer's.

    Returns:
        Where it is kept.

    Raises:
        CertificateError: it can't be read, or is for another party, role or key.
        StorageError: it is there already, or can't be written.
    """
    chain = _read(party, pem)
    if chain.key not in party.keys:
        raise CertificateError(
            "evidence.certificate_role",
            f"The certificate is for no key that {party.role}/{party.name} has or had.",
            "Ask the authority for one over the party's public key, in its name and role.",
        )
    folder = party.folder / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{chain.certificates[0].serial}.pem"
    write_new(path, pem, mode=0o644)
    return path


def credentials_of(parties: Iterable[Party]) -> dict[str, tuple[str, ...]]:
    """The chains that parties show, by ``<role>/<party>``; parties without any are left out.

    Raises:
        CertificateError: a file can't be read as a chain, or is for another party.
        InputError: a file can't be read.
    """
    shown: dict[str, tuple[str, ...]] = {}
    for party in parties:
        files = sorted((party.folder / _FOLDER).glob("*.pem"))
        chains = tuple(read_bounded(file, _MAX_BYTES) for file in files)
        for pem in chains:
            _read(party, pem)
        if chains:
            shown[f"{party.role}/{party.name}"] = tuple(pem.decode("ascii") for pem in chains)
    return shown


def _read(party: Party, pem: bytes) -> CertificateChain:
    chain = read_chain(pem)
    if (chain.role.value, chain.party) != (party.role, party.name):
        raise CertificateError(
            "evidence.certificate_role",
            f"A certificate of {chain.role.value}/{chain.party} is not for {party.role}/{party.name}.",
            "Install it for the party that it names.",
        )
    return chain
