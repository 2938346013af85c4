"""AWS Nitro Enclaves, as the verifier sees them: a document, its chain, and what only an enclave is asked.

A document says what runs in its registers, and where in its module id, which is no identity. The certificates
of module and instance live for hours; their life is what bounds a document's age. Who issued them is
looked up in the lists of AWS's authorities (`aws.revocation`).
Freshness is shown by what is sealed in, never by the document's own time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cloister.enclave.attestation.authenticator import Ground
from cloister.enclave.attestation.aws.document import NitroDocument, SignedDocument
from cloister.enclave.attestation.aws.revocation import lists_of
from cloister.enclave.attestation.checks import Finding, Steps
from cloister.enclave.attestation.claims import Claims, PlatformDetail, Revocation
from cloister.enclave.attestation.collateral import CollateralDates, CollateralKind
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.list_age import collateral_age
from cloister.enclave.attestation.p384_chain import P384Chain
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.errors import AttestationError

STEPS = ("structure", "root", "chain", "validity", "revocation-lists", "signature")
FINDINGS = ("document-time", "collateral-age")


@dataclass(frozen=True)
class NitroDetail(PlatformDetail):
    """A document that the Nitro root vouches for.

    Attributes:
        document: its fields, with the public key and nonce that the enclave handed in, if any.
        made_at: when the module says it made the document.
        valid_from: from when the module's certificate is valid.
        valid_until: until when.
    """

    document: NitroDocument
    made_at: datetime
    valid_from: datetime
    valid_until: datetime


def authenticate(evidence: Evidence, ground: Ground, steps: Steps) -> Claims:
    """See `Authenticator.authenticate`."""
    with steps.step("structure"):
        if evidence.chain or evidence.extras:
            raise AttestationError("attestation.malformed", "A Nitro document brings its own certificates.")
        signed = SignedDocument.parse(evidence.report)
        chain = P384Chain(signed.document.chain, ground.facts)
    with steps.step("root"):
        root = ground.pinned_root(chain.root_sha256, Tee.AWS_NITRO)
    with steps.step("chain"):
        chain.verify()
    with steps.step("validity"):
        chain.verify_validity(ground.now)
    listed = _revocation_lists(chain, ground, steps)
    with steps.step("signature"):
        chain.leaf.verify_signature(signed.signature, signed.signed)
    return Claims(
        tee=Tee.AWS_NITRO,
        registers=signed.document.registers(),
        sealed_in=signed.document.user_data or b"",
        debug=signed.document.debug,
        simulated=root.simulated,
        revocation=Revocation.UNKNOWN if listed is None else Revocation.CHECKED,
        detail=NitroDetail(
            document=signed.document,
            made_at=datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=signed.document.timestamp),
            valid_from=chain.leaf.not_before,
            valid_until=chain.leaf.not_after,
        ),
        collateral=steps.documents,
        collateral_dates=() if listed is None else listed,
    )


def appraise(claims: Claims, policy: AppraisalPolicy, ground: Ground) -> tuple[Finding, ...]:
    """See `Authenticator.appraise`."""
    detail = claims.detail
    if not isinstance(detail, NitroDetail):
        raise TypeError("claims of another kind of hardware")
    age = round((ground.now - detail.made_at).total_seconds())
    early = detail.made_at < detail.valid_from
    return (
        Finding(
            "document-time",
            "attestation.not_yet_valid" if early else "attestation.expired",
            detail.valid_from <= detail.made_at <= detail.valid_until,
            f"made {abs(age)} s {'before' if age >= 0 else 'after'} the evaluation; its certificate's life"
            " bounds that",
        ),
        collateral_age(claims, policy, ground.collateral_now),
    )


def _revocation_lists(chain: P384Chain, ground: Ground, steps: Steps) -> tuple[CollateralDates, ...] | None:
    with steps.step("revocation-lists", "no authority is on its issuer's newest list"):
        documents = ground.collateral.of(CollateralKind.AWS_CRL)
        steps.uses(documents)
        lists = lists_of(chain, documents, ground.collateral_now, ground.facts)
        steps.uses(lists.documents)
        lists.require_unrevoked()
        found = lists.current(ground.collateral_now)
    if found is None:
        steps.skipped(
            "revocation-lists", "not checked: no list at hand of each authority that issued another"
        )
    return found
