"""Trust: the keys a verifier pins, each for one party in one role, and authorities that may vouch for more.

A trust directory is ``<role>/<party>.pem`` with the roles that `Role` lists, such as:

- ``hub/<name>.pem``, ``site/<name>.pem``: the key that signs the party's statements and its log's heads;
- ``hospital/<site>.pem``: the key that signs the manifest of the site of that name;
- ``developer/<id>.pem``: the key that signs training requests of the developer with that id;
- ``witness/<name>.pem``, ``auditor/<name>.pem``, ``enclave/<name>.pem``: the key that the party signs with;
- ``tee-root/<name>.pem``: a root certificate of an attestation vendor, kept as bytes for who understands it;
- ``tsa/<name>.pem``: a root certificate of a time-stamping authority (RFC 3161), kept likewise.

Beside them lie, where the verifier wants that:

- ``authority/<role>/<name>.pem``: a root certificate that may vouch for parties in that role and no other;
- ``revoked/<name>.crl``: an authority's revocation list, DER or PEM;
- ``former/<role>/<party>/<name>.pem``: a key that a party used before, for what is kept from then.

Rules kept here:

1. No key serves two parties or two roles, certified ones included; where one does, all is refused.
2. Nothing but the files named so is accepted: an unknown role, a link or a stray file is refused.
3. What isn't pinned isn't trusted; there is no default. An artifact's certificates only show which keys a
   pinned authority vouches for, and for a party that is pinned itself they count for nothing.
4. A certified key is given for a time only, at which its chain held and was not revoked.
5. A former key is its party's for what names it, in the same role and beside the present key. Nothing in it
   says until when it was used; `key_order` holds it against the log: it signs nothing behind what a later key
   signed. A verifier who can't rule out that it was stolen takes it out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cloister.core.files import write_new
from cloister.core.keys import PublicKey
from cloister.evidence.errors import TrustError
from cloister.evidence.pki.certificates import MAX_CERTIFICATE_BYTES, ROOT_ROLES, Certificate
from cloister.evidence.pki.chains import CertificateChain, Credential, establish, load_root, read_chain
from cloister.evidence.pki.revocation import MAX_CRL_BYTES, RevocationLists, load_crl
from cloister.evidence.predicates.base import Role
from cloister.evidence.trust_files import (
    conflict,
    files,
    folders,
    place_of,
    read_file,
    read_key,
    role_of,
    root_key_id,
)

MAX_PEM_BYTES: Final = 64 * 1024
MAX_CHAINS: Final = 256
_AUTHORITY: Final = "authority"
_FORMER: Final = "former"
_REVOKED: Final = "revoked"


@dataclass(frozen=True, slots=True)
class TrustEntry:
    """One pinned key or root certificate.

    Attributes:
        role: whom it speaks for.
        party: the party's name (file name without ``.pem``).
        pem: the public key, or for ``tee-root`` and ``tsa`` the certificate.
        former: whether the party used it before and signs with another now.
    """

    role: Role
    party: str
    pem: bytes
    former: bool = False


@dataclass(frozen=True, slots=True)
class AuthorityEntry:
    """One root that may vouch for a role.

    Attributes:
        role: the role; a root that may vouch for several is pinned once for each.
        name: what the verifier calls it (file name without ``.pem``).
        pem: its certificate.
    """

    role: Role
    name: str
    pem: bytes


class Trust:
    """The pinned keys and authorities, checked for conflicts.

    Args:
        entries: keys of parties, and root certificates of vendors.
        authorities: roots, each for the role that it may vouch for.
        revocations: revocation lists, DER or PEM.

    Raises:
        TrustError: ``evidence.trust_malformed`` or ``evidence.trust_conflict``, or as certificates and
            revocation lists are refused.
    """

    def __init__(
        self,
        entries: Iterable[TrustEntry],
        *,
        authorities: Iterable[AuthorityEntry] = (),
        revocations: Iterable[bytes] = (),
    ) -> None:
        self._keys: dict[tuple[Role, str], PublicKey] = {}
        self._former: dict[tuple[Role, str], tuple[PublicKey, ...]] = {}
        self._roots: dict[tuple[Role, str], bytes] = {}
        self._authorities: dict[tuple[Role, str], Certificate] = {}
        self._owners: dict[str, str] = {}
        self._chains: dict[tuple[Role, str], tuple[CertificateChain, ...]] = {}
        self._established: dict[CertificateChain, Credential] = {}
        self._revocations = RevocationLists(load_crl(one) for one in revocations)
        for entry in sorted(entries, key=lambda one: one.former):
            place = place_of(entry.role, entry.party)
            if entry.former and entry.role in ROOT_ROLES:
                raise TrustError("evidence.trust_malformed", f"There is no {_FORMER}/{place}.")
            if entry.role in ROOT_ROLES:
                self._own(root_key_id(entry.pem, place), place)
                self._roots[entry.role, entry.party] = entry.pem
                continue
            key = read_key(entry.pem, place)
            if entry.former:
                self._own(key.key_id, place)
                if key == self._keys.get((entry.role, entry.party)):
                    raise conflict(f"{_FORMER}/{place}", place)
                earlier = self._former.get((entry.role, entry.party), ())
                self._former[entry.role, entry.party] = tuple(dict.fromkeys((*earlier, key)))
                continue
            if (entry.role, entry.party) in self._keys or key.key_id in self._owners:
                raise conflict(place, self._owners.get(key.key_id, place))
            self._owners[key.key_id] = place
            self._keys[entry.role, entry.party] = key
        for authority in authorities:
            place = f"{_AUTHORITY}/{place_of(authority.role, authority.name)}"
            if authority.role in ROOT_ROLES:
                raise TrustError("evidence.trust_malformed", f"No authority vouches for a {place}.")
            root = load_root(authority.pem)
            self._own(root.key.key_id, _AUTHORITY)
            self._authorities[authority.role, authority.name] = root

    @classmethod
    def load(cls, directory: Path) -> Trust:
        """Read a trust directory.

        Args:
            directory: as the module describes.

        Returns:
            The pinned keys and authorities.

        Raises:
            TrustError: ``evidence.trust_malformed`` or ``evidence.trust_conflict``, or as certificates and
                revocation lists are refused.
        """
        if not directory.is_dir() or directory.is_symlink():
            raise TrustError(
                "evidence.trust_malformed",
                f"{directory} is not a trust directory.",
                "it holds <role>/<party>.pem with the roles " + ", ".join(role.value for role in Role),
            )
        entries: list[TrustEntry] = []
        authorities: list[AuthorityEntry] = []
        revocations: list[bytes] = []
        for folder in sorted(directory.iterdir()):
            if folder.name == _REVOKED:
                revocations += [read_file(file, MAX_CRL_BYTES) for file in files(folder, ".crl")]
            elif folder.name == _FORMER:
                entries += [
                    TrustEntry(role_of(below), party.name, read_file(file, MAX_PEM_BYTES), former=True)
                    for below in folders(folder)
                    for party in folders(below)
                    for file in files(party, ".pem")
                ]
            elif folder.name == _AUTHORITY:
                for below in folders(folder):
                    authorities += [
                        AuthorityEntry(role_of(below), file.stem, read_file(file, MAX_CERTIFICATE_BYTES * 2))
                        for file in files(below, ".pem")
                    ]
            else:
                role = role_of(folder)
                entries += [
                    TrustEntry(role, file.stem, read_file(file, MAX_PEM_BYTES))
                    for file in files(folder, ".pem")
                ]
        return cls(entries, authorities=authorities, revocations=revocations)

    def with_credentials(self, chains: Iterable[str | bytes]) -> Trust:
        """The same trust with certificate chains that an artifact carries, each judged when its key is asked.

        Args:
            chains: each some certificates in PEM: the signer's own, then each one's issuer; the root may be
                left out.

        Returns:
            A new object; this one is unchanged.

        Raises:
            TrustError: a chain can't be read, there are too many, or ``evidence.trust_conflict`` where a key
                would serve two parties or two roles.
        """
        extended = copy(self)
        extended._owners, extended._established = dict(self._owners), dict(self._established)
        found = {place: list(known) for place, known in self._chains.items()}
        for count, pem in enumerate(chains):
            if count >= MAX_CHAINS:
                raise TrustError("evidence.trust_malformed", f"There are more than {MAX_CHAINS} chains.")
            chain = read_chain(pem)
            extended._own(chain.key.key_id, place_of(chain.role, chain.party))
            for authority in chain.certificates[1:]:
                extended._own(authority.key.key_id, _AUTHORITY)
            known = found.setdefault((chain.role, chain.party), [])
            if chain not in known:
                known.append(chain)
        extended._chains = {place: tuple(known) for place, known in found.items()}
        return extended

    def key(
        self, role: Role, party: str, *, key_id: str | None = None, at: datetime | None = None
    ) -> PublicKey:
        """The key of a party in a role: the pinned one, else one that a pinned authority vouches for.

        Args:
            role: whom the key speaks for.
            party: the party's name.
            key_id: the key that the artifact names, where it names one. It chooses among certified keys and
                the pinned former ones; else a pinned key is the answer whatever the artifact names.
            at: when the key was used; a certified key is only given for a time.

        Raises:
            TrustError: ``evidence.trust_unknown`` if there is none, ``evidence.trust_conflict`` if several
                are certified and the artifact names none.
            CertificateError: a key is certified, but not so that it may be believed at that time.
        """
        for former in self._former.get((role, party), ()):
            if former.key_id == key_id:
                return former
        pinned = self._keys.get((role, party))
        if pinned is not None:
            return pinned
        found = self._certified(role, party, key_id, at)
        if len(found) > 1:
            raise TrustError(
                "evidence.trust_conflict",
                f"Several keys are certified for {place_of(role, party)}, and none of them is named.",
            )
        return found[0]

    def keys(self, role: Role, party: str, *, at: datetime | None = None) -> tuple[PublicKey, ...]:
        """Every key a party may have used in a role at a time, for what names its key by a few bytes only.

        Returns:
            At least one key; the pinned one first, then those pinned as former.

        Raises:
            TrustError: ``evidence.trust_unknown`` if there is none.
            CertificateError: a key is certified, but none so that it may be believed at that time.
        """
        pinned, former = self._keys.get((role, party)), self._former.get((role, party), ())
        if pinned is not None:
            return (pinned, *former)
        try:
            return tuple(dict.fromkeys((*self._certified(role, party, None, at), *former)))
        except TrustError:
            if not former:
                raise
            return former

    def present(self, role: Role, party: str) -> PublicKey | None:
        """The key that a party is pinned to sign with now; None where it isn't pinned."""
        return self._keys.get((role, party))

    def former(self, role: Role) -> Mapping[str, tuple[PublicKey, ...]]:
        """The pinned keys that parties used before, by party."""
        return MappingProxyType({party: keys for (kind, party), keys in self._former.items() if kind is role})

    def parties(self, role: Role) -> tuple[str, ...]:
        """The parties pinned in a role, sorted."""
        places = self._roots if role in ROOT_ROLES else self._keys
        return tuple(sorted(party for kind, party in places if kind is role))

    def authorities(self, role: Role) -> tuple[str, ...]:
        """The authorities pinned for a role, sorted."""
        return tuple(sorted(name for kind, name in self._authorities if kind is role))

    @property
    def revocation_lists(self) -> int:
        """How many revocation lists are held; with none, a revoked certificate isn't known as such."""
        return len(self._revocations)

    @property
    def tee_roots(self) -> Mapping[str, bytes]:
        """Root certificates of attestation vendors by name, PEM."""
        return self.roots(Role.TEE_ROOT)

    def roots(self, role: Role) -> Mapping[str, bytes]:
        """Root certificates by name, PEM, of a role that has such (``tee-root``, ``tsa``)."""
        return MappingProxyType({name: pem for (kind, name), pem in self._roots.items() if kind is role})

    def _certified(
        self, role: Role, party: str, key_id: str | None, at: datetime | None
    ) -> tuple[PublicKey, ...]:
        """The certified keys that hold; the first reason where there are candidates and none holds."""
        chains = [
            one for one in self._chains.get((role, party), ()) if key_id is None or one.key.key_id == key_id
        ]
        if not chains or at is None:
            raise TrustError(
                "evidence.trust_unknown",
                f"The trust directory has no {place_of(role, party)}.pem, and no authority in it vouches for "
                "the key at that time.",
                "Ask that party for its public key over a channel you trust.",
            )
        found: dict[str, PublicKey] = {}
        reasons: list[TrustError] = []
        for chain in chains:
            try:
                self._credential(chain).require_valid(at)
                found.setdefault(chain.key.key_id, chain.key)
            except TrustError as error:
                reasons.append(error)
        if not found:
            raise reasons[0]
        return tuple(found.values())

    def _credential(self, chain: CertificateChain) -> Credential:
        known = self._established.get(chain)
        if known is None:
            roots = [root for (role, _), root in self._authorities.items() if role is chain.role]
            known = establish(chain, roots, self._revocations)
            self._established[chain] = known
        return known

    def _own(self, key_id: str, place: str) -> None:
        owner = self._owners.setdefault(key_id, place)
        if owner != place:
            raise conflict(place, owner)


def write_trust(
    directory: Path,
    entries: Iterable[TrustEntry],
    *,
    authorities: Iterable[AuthorityEntry] = (),
    revocations: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write a trust directory, refusing to replace any file.

    Args:
        directory: where; created if missing.
        entries: what to pin.
        authorities: the roots to pin, each for a role.
        revocations: revocation lists by name.

    Raises:
        TrustError: if the entries conflict.
        StorageError: if a file is already there or can't be written.
    """
    pinned, vouching = list(entries), list(authorities)
    Trust(pinned, authorities=vouching, revocations=revocations.values())
    written = {
        Path(_FORMER, one.role.value, one.party, f"{hashlib.sha256(one.pem).hexdigest()[:16]}.pem")
        if one.former
        else Path(one.role.value, f"{one.party}.pem"): one.pem
        for one in pinned
    }
    written |= {Path(_AUTHORITY, one.role.value, f"{one.name}.pem"): one.pem for one in vouching}
    written |= {Path(_REVOKED, f"{name}.crl"): crl for name, crl in revocations.items()}
    for relative, content in written.items():
        path = directory / relative
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_new(path, content, mode=0o644)
