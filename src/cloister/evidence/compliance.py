"""Sentences every receipt carries word for word: what the system is not, and what the receipt doesn't prove.

The verifier compares them verbatim, so that no receipt can claim more than this program can show.
"""

from __future__ import annotations

from typing import Final

COMPLIANCE_STATEMENTS: Final = (
    "Credits named in this receipt are not money, securities or a promise of payment.",
    "No patient is identified, followed or profiled: statements name datasets, hospitals and models only.",
    "Access was capped beforehand: the signed manifest limits data, purpose, privacy budget and output.",
    "Each hospital was free to accept or to decline the request; its signed decision is in this receipt.",
    "Verification rests on signed documents alone: statements and proofs, not trust in an operator.",
)
"""Mission row PR-X30: credits, no tracking, capped access, accept or decline, document-based verification."""

CLAIMS_NOT_MADE: Final = (
    "That no copy of records or keys is left after the job: the summary says what parties state to have "
    "destroyed, and nothing where nothing was stated.",
    "That the hub combined the sites' updates, or measured the model, as it says. Both are its own word; the "
    "sites vouch for the weights each round began with, and anyone may repeat the evaluation.",
    "That a site's records are true, complete or its own: a site vouches for them by their hash.",
    "That a dataset was charged for nothing but what its site states: the site's ledger stays with the site.",
    "That the hub gave the true reason why a site was absent from a round.",
    "That a site added the noise it states: a site vouches for its own training.",
    "That the measured code is a release somebody reviewed: the measurement is compared with what each "
    "manifest allows, and here each hospital allowed the code it had installed.",
    "That the privacy figures hold beyond their stated unit, relation and sampling, or against who watches "
    "how long the training took or what else a machine shows from outside.",
    "That hardware protected the computation wherever the attestation is marked as simulated.",
)
