"""Documents that vendors sign beside their certificates, and without which evidence can't be judged.

Revocation lists, Intel's TCB information, NVIDIA's reference manifests and OCSP answers. They're public,
signed, and out of date after days to months; they're brought to a verifier as files and never fetched by it.
A collection holds bytes under the name of their kind; the vendor's own module reads and verifies them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from cloister.core.hashes import sha256_hex


class CollateralKind(StrEnum):
    """Which vendor's document, and which of them."""

    AMD_CRL = "amd-crl"
    AWS_CRL = "aws-crl"
    INTEL_DCAP = "intel-dcap"
    NVIDIA_RIM = "nvidia-rim"
    NVIDIA_OCSP = "nvidia-ocsp"


@dataclass(frozen=True)
class CollateralDocument:
    """One document: its bytes as the vendor published them, or a set of them that belongs together."""

    kind: CollateralKind
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Its name: SHA-256 of the bytes."""
        return sha256_hex(self.data)


@dataclass(frozen=True)
class CollateralDates:
    """From when a document is, and until when it holds.

    Attributes:
        sha256: which document.
        what: what it is, in the vendor's own term, such as "TCB Info".
        issued_at: when it was issued.
        next_update: when it is out of date, if it says so.
    """

    sha256: str
    what: str
    issued_at: datetime
    next_update: datetime | None


@dataclass(frozen=True)
class Collateral:
    """Documents at hand, none of them judged yet."""

    documents: tuple[CollateralDocument, ...] = ()

    @classmethod
    def joined(cls, *collections: Iterable[CollateralDocument]) -> Collateral:
        """All documents of several collections, each once, in the order of kind and hash."""
        found = {(one.kind, one.sha256): one for documents in collections for one in documents}
        return cls(tuple(found[key] for key in sorted(found)))

    def of(self, kind: CollateralKind) -> tuple[CollateralDocument, ...]:
        """The documents of one kind."""
        return tuple(one for one in self.documents if one.kind is kind)
