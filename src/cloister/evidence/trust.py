"""Trust: the keys a verifier pins, each for one party in one role.

A trust directory is ``<role>/<party>.pem`` with the roles that `Role` lists, such as:

- ``hub/<name>.pem``, ``site/<name>.pem``: the key that signs the party's statements and its log's heads;
- ``hospital/<site>.pem``: the key that signs the manifest of the site of that name;
- ``developer/<id>.pem``: the key that signs training requests of the developer with that id;
- ``witness/<name>.pem``, ``auditor/<name>.pem``, ``enclave/<name>.pem``: the key that the party signs with;
- ``tee-root/<name>.pem``: a root certificate of an attestation vendor, kept as bytes for who understands it;
- ``tsa/<name>.pem``: a root certificate of a time-stamping authority (RFC 3161), kept likewise.

Rules kept here:

1. No key serves two parties or two roles; a directory where one does is refused.
2. Nothing but the files named so is accepted: an unknown role, a link or a stray file is refused.
3. What isn't pinned isn't trusted; there is no default and no way to add a key while verifying.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cloister.core.errors import CloisterError, InputError
from cloister.core.files import read_bounded, write_new
from cloister.core.keys import PublicKey
from cloister.evidence.errors import TrustError
from cloister.evidence.predicates.base import PARTY_PATTERN, Role

MAX_PEM_BYTES: Final = 64 * 1024
ROOT_ROLES: Final = frozenset({Role.TEE_ROOT, Role.TSA})
"""The roles whose files are root certificates of others, not keys of parties."""

_PARTY = re.compile(PARTY_PATTERN)


@dataclass(frozen=True, slots=True)
class TrustEntry:
    """One pinned key or root certificate.

    Attributes:
        role: whom it speaks for.
        party: the party's name (file name without ``.pem``).
        pem: the public key, or for ``tee-root`` and ``tsa`` the certificate.
    """

    role: Role
    party: str
    pem: bytes


class Trust:
    """The pinned keys, checked for conflicts."""

    def __init__(self, entries: Iterable[TrustEntry]) -> None:
        keys: dict[tuple[Role, str], PublicKey] = {}
        roots: dict[tuple[Role, str], bytes] = {}
        owners: dict[str, str] = {}
        for entry in entries:
            place = f"{entry.role.value}/{entry.party}"
            if not _PARTY.fullmatch(entry.party):
                raise TrustError(
                    "evidence.trust_malformed", f"{entry.role.value} has a party with an improper name."
                )
            if entry.role in ROOT_ROLES:
                roots[entry.role, entry.party] = entry.pem
                continue
            key = _key(entry.pem, place)
            if (entry.role, entry.party) in keys or key.key_id in owners:
                raise TrustError(
                    "evidence.trust_conflict",
                    f"One key stands for {place} and for {owners.get(key.key_id, place)}.",
                    "Give each party a key of its own for each role.",
                )
            owners[key.key_id] = place
            keys[entry.role, entry.party] = key
        self._keys = MappingProxyType(keys)
        self._roots = MappingProxyType(roots)

    @classmethod
    def load(cls, directory: Path) -> Trust:
        """Read a trust directory.

        Args:
            directory: as the module describes.

        Returns:
            The pinned keys.

        Raises:
            TrustError: ``evidence.trust_malformed`` or ``evidence.trust_conflict``.
        """
        if not directory.is_dir() or directory.is_symlink():
            raise TrustError(
                "evidence.trust_malformed",
                f"{directory} is not a trust directory.",
                "it holds <role>/<party>.pem with the roles " + ", ".join(role.value for role in Role),
            )
        entries: list[TrustEntry] = []
        roles = {role.value: role for role in Role}
        for folder in sorted(directory.iterdir()):
            if folder.name not in roles or folder.is_symlink() or not folder.is_dir():
                raise TrustError(
                    "evidence.trust_malformed", f"{folder.name} is not a role of a trust directory."
                )
            for file in sorted(folder.iterdir()):
                if file.suffix != ".pem" or file.is_symlink() or not file.is_file():
                    raise TrustError(
                        "evidence.trust_malformed", f"{folder.name}/{file.name} is not a <party>.pem file."
                    )
                entries.append(TrustEntry(roles[folder.name], file.stem, _read(file)))
        return cls(entries)

    def with_credentials(self, chains: Iterable[str | bytes]) -> Trust:
        """The same trust with certificate chains that an artifact carries, to be judged when a key is asked.

        Args:
            chains: PEM certificates, the signer's own first, each followed by its issuer's.

        Returns:
            A new object; this one is unchanged.

        Raises:
            TrustError: a chain can't be read.
        """
        if any(True for _ in chains):
            raise TrustError("evidence.trust_unknown", "No authority is pinned that could vouch for a key.")
        return self

    def key(
        self, role: Role, party: str, *, key_id: str | None = None, at: datetime | None = None
    ) -> PublicKey:
        """The key of a party in a role: the pinned one, else one that a pinned authority vouches for.

        Args:
            role: whom the key speaks for.
            party: the party's name.
            key_id: the key that the artifact names, where it names one. It chooses among certified keys; a
                pinned key is the answer whatever the artifact names.
            at: when the key was used; a certified key is only given for a time.

        Raises:
            TrustError: ``evidence.trust_unknown`` if there is none.
        """
        found = self._keys.get((role, party))
        if found is None:
            raise TrustError(
                "evidence.trust_unknown",
                f"The trust directory has no {role.value}/{party}.pem.",
                "Ask that party for its public key over a channel you trust.",
            )
        return found

    def keys(self, role: Role, party: str, *, at: datetime | None = None) -> tuple[PublicKey, ...]:
        """Every key a party may have used in a role at a time, for what names its key by a few bytes only.

        Returns:
            At least one key.

        Raises:
            TrustError: ``evidence.trust_unknown`` if there is none.
        """
        return (self.key(role, party, at=at),)

    def parties(self, role: Role) -> tuple[str, ...]:
        """The parties pinned in a role, sorted."""
        places = self._roots if role in ROOT_ROLES else self._keys
        return tuple(sorted(party for kind, party in places if kind is role))

    @property
    def tee_roots(self) -> Mapping[str, bytes]:
        """Root certificates of attestation vendors by name, PEM."""
        return self.roots(Role.TEE_ROOT)

    def roots(self, role: Role) -> Mapping[str, bytes]:
        """Root certificates by name, PEM, of a role that has such (``tee-root``, ``tsa``)."""
        return MappingProxyType({name: pem for (kind, name), pem in self._roots.items() if kind is role})


def write_trust(directory: Path, entries: Iterable[TrustEntry]) -> None:
    """Write a trust directory, refusing to replace any file.

    Args:
        directory: where; created if missing.
        entries: what to pin.

    Raises:
        TrustError: if the entries conflict.
        StorageError: if a file is already there or can't be written.
    """
    pinned = list(entries)
    Trust(pinned)
    for entry in pinned:
        folder = directory / entry.role.value
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_new(folder / f"{entry.party}.pem", entry.pem, mode=0o644)


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, MAX_PEM_BYTES)
    except InputError as error:
        raise TrustError(
            "evidence.trust_malformed", f"{file.parent.name}/{file.name} can't be read."
        ) from error


def _key(pem: bytes, place: str) -> PublicKey:
    try:
        return PublicKey.from_pem(pem)
    except CloisterError as error:
        raise TrustError("evidence.trust_malformed", f"{place}.pem is not an Ed25519 public key.") from error
