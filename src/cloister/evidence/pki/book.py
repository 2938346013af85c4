"""An authority's book: its certificate, what it issued and what it revoked, in a folder.

::

    <folder>/chain.pem            the authority's certificate, then its root's where it is another
    <folder>/key                  the name of its key in the key store
    <folder>/issued/<serial>.pem  every certificate it ever issued
    <folder>/revoked.json         every revocation, and the number of the newest revocation list

Rules kept here:

1. What is issued or revoked is in the book before anybody holds it.
2. One key is certified for one party in one role; nothing is ever taken out of the book or off a list.
3. A certificate that the book doesn't know isn't revoked: its serial number would be anybody's guess.
4. Two processes don't write in one book at a time.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.clock import format_time, parse_time
from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded, storage_error, write_atomic, write_new
from cloister.core.interrupts import interruptible
from cloister.core.keys import KeyStore, PublicKey, Signer
from cloister.evidence.errors import CertificateError
from cloister.evidence.pki.certificates import Certificate, load_pem_certificates
from cloister.evidence.pki.issuing import (
    CA_LIFETIME,
    ROOT_LIFETIME,
    SIGNER_LIFETIME,
    Reason,
    Revocation,
    issue_authority,
    issue_crl,
    issue_root,
    issue_signer,
)
from cloister.evidence.predicates.base import Role, TimeField

CRL_LIFETIME: Final = timedelta(days=7)
_MAX_CHAIN_BYTES: Final = 64 * 1024
_MAX_REVOKED_BYTES: Final = 64 * 1024 * 1024
_SCHEMA: Final = "urn:cloister:pki-book:v1"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: Annotated[str, StringConstraints(pattern=r"^[1-9a-f][0-9a-f]{0,39}$")]
    revoked_at: TimeField
    reason: Reason


class _Revoked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_id: Literal["urn:cloister:pki-book:v1"] = _SCHEMA
    crl_number: int = 0
    entries: tuple[_Entry, ...] = ()


class AuthorityBook:
    """An opened book; use `create_root`, `create_authority` or `open_book`."""

    def __init__(self, directory: Path, signer: Signer, chain: tuple[Certificate, ...]) -> None:
        self._directory = directory
        self._signer = signer
        self._chain = chain

    @property
    def certificate(self) -> Certificate:
        """The authority's own certificate."""
        return self._chain[0]

    @property
    def root(self) -> Certificate:
        """The root that verifiers pin."""
        return self._chain[-1]

    def issued(self) -> tuple[Certificate, ...]:
        """Every certificate it ever issued, by serial number.

        Raises:
            CertificateError: ``evidence.certificate_malformed`` for a page that can't be read.
        """
        pages = sorted((self._directory / "issued").glob("*.pem"))
        return tuple(load_pem_certificates(read_bounded(page, _MAX_CHAIN_BYTES))[0] for page in pages)

    def revoked(self) -> tuple[Revocation, ...]:
        """Every revocation, in the order in which they were made."""
        return tuple(
            Revocation(int(one.serial, 16), parse_time(one.revoked_at), one.reason)
            for one in self._read_revoked().entries
        )

    def issue(
        self, key: PublicKey, role: Role, party: str, *, at: datetime, lifetime: timedelta = SIGNER_LIFETIME
    ) -> str:
        """Certify a party's key.

        Args:
            key: the party's public key.
            role: one the authority is constrained to.
            party: its name.
            at: from when on.
            lifetime: for how long.

        Returns:
            The chain that the party shows: its certificate and the authority's, PEM.

        Raises:
            CertificateError: ``evidence.pki_refused``.
        """
        with self._locked():
            for one in self.issued():
                if one.key == key and one.bound_to != (role, party):
                    raise _refused("that key is certified for another party or role already")
            made = issue_signer(self._signer, self.certificate, key, role, party, at=at, lifetime=lifetime)
            self._record(made)
        return made.pem + self.certificate.pem

    def certify_authority(
        self, key: PublicKey, name: str, roles: Iterable[Role], *, at: datetime, lifetime: timedelta
    ) -> Certificate:
        """Certify an issuing authority's key; only a root does.

        Raises:
            CertificateError: ``evidence.pki_refused``.
        """
        with self._locked():
            if self.certificate.der != self.root.der:
                raise _refused("only a root makes authorities")
            made = issue_authority(self._signer, self.root, key, name, roles, at=at, lifetime=lifetime)
            self._record(made)
        return made

    def revoke(self, serial: int, reason: Reason, *, at: datetime) -> Revocation:
        """Revoke a certificate that this authority issued.

        A certificate stays revoked from its first date on; what can change is that its key turns out to have
        been stolen.

        Raises:
            CertificateError: ``evidence.pki_refused`` for a serial number that isn't in the book, or one that
                is revoked already.
        """
        with self._locked():
            if not self._page(serial).exists():
                raise _refused(f"it never issued the serial number {serial:x}")
            state = self._read_revoked()
            earlier = {int(one.serial, 16): one for one in state.entries}
            found = earlier.get(serial)
            if found is not None:
                if reason is not Reason.KEY_COMPROMISE or found.reason is Reason.KEY_COMPROMISE:
                    raise _refused(f"the serial number {serial:x} is revoked already")
                at = min(at, parse_time(found.revoked_at))
            earlier[serial] = _Entry(serial=f"{serial:x}", revoked_at=format_time(at), reason=reason)
            self._write_revoked(state.crl_number, tuple(earlier.values()))
        return Revocation(serial, at, reason)

    def crl(self, *, at: datetime, lifetime: timedelta = CRL_LIFETIME) -> bytes:
        """Make the newest revocation list.

        Args:
            at: when it is made.
            lifetime: how long verifiers may use it.

        Returns:
            The list, DER.

        Raises:
            CertificateError: ``evidence.pki_refused``.
        """
        with self._locked():
            state = self._read_revoked()
            number = state.crl_number + 1
            made = issue_crl(
                self._signer,
                self.certificate,
                self.revoked(),
                number=number,
                at=at,
                next_update=at + lifetime,
            )
            self._write_revoked(number, state.entries)
        return made

    def _record(self, made: Certificate) -> None:
        folder = self._directory / "issued"
        folder.mkdir(mode=0o700, exist_ok=True)
        write_new(self._page(made.x509.serial_number), made.pem.encode("ascii"))

    def _page(self, serial: int) -> Path:
        return self._directory / "issued" / f"{serial:x}.pem"

    def _read_revoked(self) -> _Revoked:
        path = self._directory / "revoked.json"
        if not path.exists():
            return _Revoked()
        try:
            return _Revoked.model_validate(
                parse_canonical(read_bounded(path, _MAX_REVOKED_BYTES), max_bytes=_MAX_REVOKED_BYTES)
            )
        except (ValidationError, CloisterError):
            raise _refused("its list of revocations can't be read; restore it from a copy") from None

    def _write_revoked(self, number: int, entries: tuple[_Entry, ...]) -> None:
        state = _Revoked(crl_number=number, entries=entries)
        write_atomic(self._directory / "revoked.json", canonicalize(state.model_dump(mode="json")))

    @interruptible
    def _locked(self) -> Iterator[None]:
        path = self._directory / ".lock"
        try:
            handle = path.open("w")
        except OSError as error:
            raise storage_error(error, path) from None
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def create_root(
    directory: Path,
    store: KeyStore,
    name: str,
    *,
    algorithm: str,
    at: datetime,
    lifetime: timedelta = ROOT_LIFETIME,
) -> AuthorityBook:
    """Make a root with a key of its own, and begin its book.

    Args:
        directory: the book's folder.
        store: where its key is made and stays.
        name: what people call it.
        algorithm: of its key.
        at: from when on it holds.
        lifetime: how long.

    Raises:
        CertificateError: ``evidence.pki_refused``.
        StorageError: there is a book already, or it can't be written.
    """
    signer, label = _new_key(directory, store, algorithm)
    root = issue_root(signer, name, at=at, lifetime=lifetime)
    return _begin(directory, signer, label, (root,))


def create_authority(
    directory: Path,
    store: KeyStore,
    root: AuthorityBook,
    name: str,
    roles: Iterable[Role],
    *,
    algorithm: str,
    at: datetime,
    lifetime: timedelta = CA_LIFETIME,
) -> AuthorityBook:
    """Make an issuing authority with a key of its own under a root, and begin its book.

    Raises:
        CertificateError: ``evidence.pki_refused``.
        StorageError: there is a book already, or it can't be written.
    """
    signer, label = _new_key(directory, store, algorithm)
    made = root.certify_authority(signer.public_key, name, roles, at=at, lifetime=lifetime)
    return _begin(directory, signer, label, (made, root.certificate))


def open_book(directory: Path, store: KeyStore) -> AuthorityBook:
    """Open an authority's book.

    Raises:
        CertificateError: it doesn't hold together: no chain, or another key's.
        KeyStoreError: its key isn't in the store.
        InputError: there is no book.
    """
    chain = load_pem_certificates(read_bounded(directory / "chain.pem", _MAX_CHAIN_BYTES))
    label = read_bounded(directory / "key", 256).decode("ascii", "replace").strip()
    signer = store.load(label)
    if signer.public_key != chain[0].key:
        raise _refused("its key in the store is not the one that its certificate names")
    return AuthorityBook(directory, signer, chain)


def _new_key(directory: Path, store: KeyStore, algorithm: str) -> tuple[Signer, str]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, directory) from None
    if (directory / "chain.pem").exists():
        raise _refused("there is an authority in that folder already")
    label = f"authority-{secrets.token_hex(8)}"
    return store.generate(label, algorithm), label


def _begin(directory: Path, signer: Signer, label: str, chain: tuple[Certificate, ...]) -> AuthorityBook:
    write_atomic(directory / "key", f"{label}\n".encode("ascii"))
    write_new(directory / "chain.pem", "".join(one.pem for one in chain).encode("ascii"))
    return AuthorityBook(directory, signer, chain)


def _refused(reason: str) -> CertificateError:
    return CertificateError(
        "evidence.pki_refused", f"The authority doesn't do this: {reason}.", "See: cloister pki --help"
    )
