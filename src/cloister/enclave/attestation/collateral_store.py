"""Collateral on disk: a folder in which each document is a file, named by its kind and the hash of its bytes.

Rules kept here:

* What comes in was examined: of its form, in date, and its signature verified up to a pinned root. A list or
  an answer whose signer's certificate isn't at hand is refused: whoever could put one here unverified could
  have it stand in the genuine one's way.
* A document of which any part is older than that of one already held about the same subject is refused, so
  that nobody brings back a list from before a revocation; whoever means to says so with another function.
* The folder keeps documents and nothing about them: each use reads dates and signatures from the bytes.
* A file appears whole or not at all, for its owner alone; one whose bytes don't have its name's hash is
  refused.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from cloister.core.errors import StorageError
from cloister.core.files import read_bounded, storage_error, sync_directory, write_new
from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation.collateral import Collateral, CollateralDocument, CollateralKind
from cloister.enclave.attestation.collateral_kinds import CollateralFacts, Signature, examine
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES
from cloister.enclave.attestation.issuers import Issuers
from cloister.enclave.attestation.trust import TrustStore
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError

MAX_DOCUMENTS: Final = 4096
_NOBODY: Final = Issuers(())
_NAME = re.compile(r"([a-z0-9-]{3,40})\.([0-9a-f]{64})")
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Outcome(StrEnum):
    """What became of a document that was brought."""

    ADDED = "added"
    HELD = "held"


@dataclass(frozen=True)
class Brought:
    """A document that was brought, and what became of it."""

    facts: CollateralFacts
    outcome: Outcome


class CollateralStore:
    """Collateral in a folder.

    Args:
        directory: the folder; made on first import, for its owner alone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> Collateral:
        """All documents that are held, none of them judged.

        Raises:
            AttestationError: attestation.collateral where a file is not what its name says.
            InputError: a file can't be read.
            StorageError: the folder can't be read.
        """
        return Collateral.joined([self._document(path) for path in self._files()])

    def bring(
        self,
        document: CollateralDocument,
        trust: TrustStore,
        now: datetime,
        issuers: Issuers = _NOBODY,
    ) -> Brought:
        """Take in a document that is as new as whatever is held about the same.

        Args:
            document: what was brought.
            trust: pinned roots.
            now: it has to hold at this time.
            issuers: certificates that may have signed a list or an answer; held manifests' are used too.

        Raises:
            AttestationError: as `bring_older`; attestation.collateral_older.
            InputError: a file can't be read.
            StorageError: it can't be written.
        """
        held = self.load()
        known = _with_manifests(issuers, held)
        facts = _examined(document, trust, now, known)
        same = held.of(document.kind)
        if document not in same and any(_is_older(facts, one, trust, known) for one in same):
            raise AttestationError(
                "attestation.collateral_older", f"A newer document is held about this: {facts.subject}."
            )
        return self._keep(facts)

    def bring_older(
        self,
        document: CollateralDocument,
        trust: TrustStore,
        now: datetime,
        issuers: Issuers = _NOBODY,
    ) -> Brought:
        """Take in a document even if a newer one is held about the same; verifiers go by the newest.

        Args:
            document: what was brought.
            trust: pinned roots.
            now: it has to hold at this time.
            issuers: certificates that may have signed a list or an answer; held manifests' are used too.

        Raises:
            AttestationError: attestation.collateral for what isn't of its form or not signed by its issuer;
                attestation.untrusted_root; attestation.collateral_expired for what doesn't hold now.
            InputError: a file can't be read.
            StorageError: it can't be written.
        """
        return self._keep(_examined(document, trust, now, _with_manifests(issuers, self.load())))

    def _keep(self, facts: CollateralFacts) -> Brought:
        self._make()
        document = facts.document
        path = self._directory / f"{document.kind.value}.{document.sha256}"
        try:
            write_new(path, document.data)
        except StorageError as error:
            if error.code != "storage.exists":
                raise
            self._document(path)
            return Brought(facts, Outcome.HELD)
        return Brought(facts, Outcome.ADDED)

    def _make(self) -> None:
        try:
            if not self._directory.is_dir():
                self._directory.mkdir(mode=0o700)
                sync_directory(self._directory.parent)
            mode = self._directory.stat().st_mode
        except OSError as error:
            raise storage_error(error, self._directory) from None
        if mode & _WRITABLE_BY_OTHERS:
            raise StorageError(
                "storage.permission",
                f"Others may write in {self._directory}, and take documents out of it.",
                f"Let only its owner write there:  chmod 700 {self._directory}",
            )

    def _files(self) -> list[Path]:
        try:
            found = sorted(path for path in self._directory.iterdir() if not path.name.startswith("."))
        except OSError as error:
            if not self._directory.exists():
                return []
            raise storage_error(error, self._directory) from None
        if len(found) > MAX_DOCUMENTS:
            raise AttestationError("attestation.collateral", "The folder holds more documents than are read.")
        return found

    def _document(self, path: Path) -> CollateralDocument:
        name = _NAME.fullmatch(path.name)
        if name is not None and name[1] in tuple(CollateralKind):
            data = read_bounded(path, MAX_EVIDENCE_BYTES)
            if sha256_hex(data) == name[2]:
                return CollateralDocument(CollateralKind(name[1]), data)
        raise AttestationError(
            "attestation.collateral",
            f"{path} is not the document that its name says.",
            "Remove it, and import the vendor's document again.",
        )


def _examined(
    document: CollateralDocument, trust: TrustStore, now: datetime, issuers: Issuers
) -> CollateralFacts:
    facts = examine(document, trust, issuers)
    if facts.signature is not Signature.VERIFIED:
        raise AttestationError(
            "attestation.collateral",
            "The document's signature can't be verified: no certificate at hand is its signer's.",
            "Name the issuers' certificates with --issuer: a chain file, or a machine's evidence.",
        )
    if not facts.holds_at(now):
        until = "" if facts.valid_until is None else f" to {facts.valid_until:%Y-%m-%dT%H:%M:%SZ}"
        raise AttestationError(
            "attestation.collateral_expired",
            f"The document holds from {facts.valid_from:%Y-%m-%dT%H:%M:%SZ}{until}, and not now.",
        )
    return facts


def _with_manifests(issuers: Issuers, held: Collateral) -> Issuers:
    """Answers about manifests' signers are signed by who issued those, whom the manifests carry."""
    from cloister.enclave.attestation.nvidia.manifest import read_manifest

    found: list[bytes] = []
    for document in held.of(CollateralKind.NVIDIA_RIM):
        try:
            chain = read_manifest(document, VerifiedFacts()).chain
        except AttestationError:
            continue
        found.extend(one.der for one in chain.certificates)
    return issuers.beside(found)


def _is_older(facts: CollateralFacts, held: CollateralDocument, trust: TrustStore, issuers: Issuers) -> bool:
    """Whether a held document is newer; one that can't be verified any more stands in nobody's way."""
    try:
        return facts.older_than(examine(held, trust, issuers))
    except AttestationError:
        return False
