"""AWS Nitro's revocation lists: the root's names regional authorities, a regional one's names zonal ones.

Rules kept here, beside those of `revocation_list`:

* A certificate that lives longer than a day needs its issuer's list. Those of module and instance live for
  hours and name no list; their end stands in for one, but a list that names one revokes it all the same. The
  regional and zonal authorities' live for days to weeks and each names the address of its issuer's list.
* A list counts for an issuer whose name it bears; then that issuer's key must have signed it. A list that
  says it is an issuer's and isn't is an error, never one list less.
* Without a current list of every such issuer, revocation is unknown; the policy says whether that will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from cloister.enclave.attestation.collateral import CollateralDates, CollateralDocument
from cloister.enclave.attestation.p384_chain import ChainCertificate, P384Chain, verify_list
from cloister.enclave.attestation.revocation_list import ListsAtHand, judge, read_list
from cloister.enclave.attestation.verified import VerifiedFacts
from cloister.enclave.errors import AttestationError

SHORT_LIFE: Final = timedelta(days=1)
"""How long a certificate may live for its expiry to stand in for a revocation list."""


@dataclass(frozen=True)
class ListsOfChain:
    """What lists there are of a chain's issuers.

    Attributes:
        by_certificate: each certificate below the root, with its issuer's lists at hand.
    """

    by_certificate: tuple[tuple[ChainCertificate, ListsAtHand], ...]

    @property
    def documents(self) -> tuple[CollateralDocument, ...]:
        """The documents that a verdict rests on."""
        return tuple(dict.fromkeys(one for _, lists in self.by_certificate for one in lists.documents))

    def require_unrevoked(self) -> None:
        """No certificate is on a list of its issuer.

        Raises:
            AttestationError: attestation.revoked.
        """
        for certificate, lists in self.by_certificate:
            serial = certificate.x509.serial_number
            if any(one.names(certificate.issuer, serial) for one in lists.all):
                raise AttestationError("attestation.revoked", "An authority's certificate was revoked.")

    def current(self, now: datetime) -> tuple[CollateralDates, ...] | None:
        """The dates of the lists that say of each certificate that it isn't revoked; None where one misses.

        Raises:
            AttestationError: attestation.not_yet_valid or attestation.collateral_expired.
        """
        found = [lists.current(now) for one, lists in self.by_certificate if one.lifetime > SHORT_LIFE]
        known = [one.dates for one in found if one is not None]
        return tuple(dict.fromkeys(known)) if len(known) == len(found) else None


def lists_of(
    chain: P384Chain, documents: tuple[CollateralDocument, ...], now: datetime, facts: VerifiedFacts
) -> ListsOfChain:
    """The lists of a chain's issuers that say something now.

    Args:
        chain: verified.
        documents: revocation lists in DER.
        now: the time lists are held against.
        facts: what was verified before.

    Raises:
        AttestationError: attestation.collateral for a list that is unreadable or not signed by whom it names.
    """
    read = [read_list(one) for one in documents]
    found = []
    for certificate, issuer in pairwise(chain.certificates):
        mine = [one for one in read if one.issuer == issuer.subject]
        for one in mine:
            verify_list(one, issuer, facts)
        found.append((certificate, judge(mine, now)))
    return ListsOfChain(tuple(found))
