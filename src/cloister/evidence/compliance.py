"""Sentences every receipt carries word for word: what the system is not, and what the receipt doesn't prove.

The verifier compares them verbatim, so that no receipt can claim more than this program can show.
"""

from __future__ import annotations

from typing import Final

COMPLIANCE_STATEMENTS: Final = (
    "Credits named in this receipt are not money, securities or a promise of payment.",
    "No patient is identified, followed or profiled: statements name datasets, hospitals and models only.",
    "Access was capped beforehand: data, purpose, privacy budget and output were limited by the signed manifest.",
    "Each hospital was free to accept or to decline the request, and its signed decision is part of this receipt.",
    "Verification rests on signed documents alone: keys, statements and proofs, not on trust in the operator.",
)
"""Mission row PR-X30: credits, no tracking, capped access, accept or decline, document-based verification."""

CLAIMS_NOT_MADE: Final = (
    "That records or keys were destroyed after the job: destruction is not evidenced here.",
    "That the hub summed the sites' updates, or measured the model, as it says: both are the hub's own statements; "
    "the sites vouch for the weights each round began with, and anyone may repeat the evaluation.",
    "That a site's records are true, complete or its own: a site vouches for them by their hash.",
    "That the hub named every reason why a site was absent from a round.",
    "That the privacy figures hold beyond their stated unit, relation and sampling, or against floating-point attacks.",
    "That hardware protected the computation wherever the attestation is marked as simulated.",
)
