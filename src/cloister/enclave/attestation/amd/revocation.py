"""AMD's revocation lists: one for each product line, signed by its ARK, brought along as a file.

Rules kept here (AMD publication 57230, "CRL"), beside those of `revocation_list`:

* A list counts for a chain if its issuer's name is the pinned root's; then it must be signed by that root. A
  list that says it is the root's and isn't is an error, never one list less.
* Root, ASK or ASVK, and VEK are looked up.
* Every VEK has serial number 0, so a list that names 0 of a VEK's issuer revokes every key that issuer ever
  endorsed. It can't do less. Nothing that an ARK issued has serial number 0 either: an entry with it that
  names no other issuer is taken to mean the VEKs, rather than nothing.
"""

from __future__ import annotations

from datetime import datetime

from cloister.enclave.attestation.amd.chain import Chain, verify_issued
from cloister.enclave.attestation.collateral import Collateral, CollateralKind
from cloister.enclave.attestation.der import Certificate
from cloister.enclave.attestation.revocation_list import ListsAtHand, RevocationList, judge, read_list
from cloister.enclave.errors import AttestationError


def lists_of(root: Certificate, collateral: Collateral, now: datetime) -> ListsAtHand:
    """The lists of a pinned root that say something now.

    Args:
        root: the root, whose bytes the caller holds to be pinned.
        collateral: documents at hand.
        now: the time lists are held against.

    Raises:
        AttestationError: attestation.collateral for one that can't be read or isn't signed by the root it
            names.
    """
    read = [read_list(one) for one in collateral.of(CollateralKind.AMD_CRL)]
    mine = [one for one in read if one.issuer == root.subject]
    for one in mine:
        verify_signed(one, root)
    return judge(mine, now)


def require_unrevoked(chain: Chain, at_hand: ListsAtHand) -> None:
    """No certificate of the chain is on a list.

    Raises:
        AttestationError: attestation.revoked.
    """
    for what, certificate in (
        ("root", chain.root),
        ("intermediate", chain.intermediate),
        ("endorsed key's", chain.leaf),
    ):
        if any(_names(one, certificate) for one in at_hand.all):
            raise AttestationError("attestation.revoked", f"The {what} certificate was revoked.")


def verify_signed(listed: RevocationList, root: Certificate) -> None:
    """A list is signed by the root it names, which may sign lists.

    Raises:
        AttestationError: attestation.collateral.
    """
    try:
        verify_issued(listed.signed, root)
        genuine = root.signs_lists
    except AttestationError:
        genuine = False
    if not genuine:
        raise AttestationError(
            "attestation.collateral", "A revocation list is not signed by the root it names."
        )


def _names(listed: RevocationList, certificate: Certificate) -> bool:
    named = listed.names(certificate.issuer, certificate.serial)
    return named or (certificate.serial == 0 and listed.names(listed.issuer, 0))
