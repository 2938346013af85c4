"""Whoever stole a key that a party gave up, against who still pins it for what was signed before."""

from __future__ import annotations

from typing import cast

import pytest

from cloister.core.canonical import JSON
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence import Role, Trust, TrustEntry
from cloister.evidence.checkpoint import parse_checkpoint, sign_checkpoint
from tests.evidence.synthetic import HUB, SyntheticJob, resealed, verify

STOLEN = EphemeralKeyStore().generate("stolen")


def trust(job: SyntheticJob, role: Role, party: str, present: Signer | None = None) -> Trust:
    """The job's pins, the stolen key as a former one, and perhaps another key as the present one."""
    pins = [
        TrustEntry(kind, name, job.keys[key].public_key.pem.encode(), former=(kind, name) == (role, party))
        if present and (kind, name) == (role, party)
        else TrustEntry(kind, name, job.keys[key].public_key.pem.encode())
        for kind, name, key in job.pinned
    ]
    pins.append(TrustEntry(role, party, STOLEN.public_key.pem.encode(), former=True))
    if present:
        pins.append(TrustEntry(role, party, present.public_key.pem.encode()))
    return Trust(pins)


def failures(job: SyntheticJob, receipt: bytes, pins: Trust) -> dict[str, str]:
    return {one.id: one.detail for one in verify(job, receipt, trust=pins).failures}


def test_a_receipt_is_not_signed_with_a_key_that_the_hub_gave_up_before(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    sealed = resealed(honest_receipt, STOLEN, lambda _: None)
    told = failures(honest_job, sealed, trust(honest_job, Role.HUB, HUB))
    assert "the receipt is signed with a key that its owner had given up" in told["statement-signature"]
    assert failures(honest_job, honest_receipt, trust(honest_job, Role.HUB, HUB)) == {}


def test_a_head_is_not_signed_with_a_key_that_its_owner_gave_up_before(
    honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    origin = "cloister/site/north"

    def edit(body: dict[str, JSON]) -> None:
        heads = cast("dict[str, str]", body["checkpoints"])
        head = parse_checkpoint(heads[origin])
        heads[origin] = sign_checkpoint(origin, head.size, head.root, STOLEN).encode()

    sealed = resealed(honest_receipt, honest_job.keys["hub"], edit)
    told = failures(honest_job, sealed, trust(honest_job, Role.SITE, "north"))
    assert "the head of" in told["statement-signature"]


@pytest.mark.parametrize(("role", "party"), [(Role.HUB, HUB), (Role.SITE, "north")])
def test_a_receipt_whose_keys_all_are_former_ones_by_now_verifies(
    honest_job: SyntheticJob, honest_receipt: bytes, role: Role, party: str
) -> None:
    present = EphemeralKeyStore().generate("present")
    assert failures(honest_job, honest_receipt, trust(honest_job, role, party, present)) == {}
    # Another party's former key stands in for nobody.
    other = Role.SITE, "south"
    assert "statement-signature" in failures(
        honest_job,
        honest_receipt,
        Trust(
            TrustEntry(
                *((kind, name) if (kind, name) != (role, party) else other),
                honest_job.keys[key].public_key.pem.encode(),
                former=(kind, name) == (role, party),
            )
            for kind, name, key in honest_job.pinned
        ),
    )
