"""The receipt of a finished job, the keys to check it with, and this machine's own check of it."""

from __future__ import annotations

from typing import Final
from uuid import uuid4

from cloister.core.files import write_new
from cloister.core.hashes import sha256_hex
from cloister.enclave.attestation import certificate_pem
from cloister.evidence import Role, Trust, TrustEntry, write_trust
from cloister.evidence.receipt import ModelFile, compose_receipt
from cloister.evidence.verifier import TestRandomness, Verdict, VerificationPolicy, Verifier, model_artifact
from cloister.evidence.witness.links import consistency_links
from cloister.workflow.case import Case
from cloister.workflow.checks import full_registry
from cloister.workflow.credentials import credentials_of
from cloister.workflow.outcome import MODEL_FILE, RECEIPT_FILE, TRUST_FOLDER
from cloister.workflow.parties import HUB
from cloister.workflow.watching import Stage
from cloister.workflow.witnessing import witnessed

READABLE: Final = 0o644


def prove(case: Case, model_file: bytes) -> Verdict:
    """Compose the receipt, write it with the public keys, and verify it like a stranger would.

    Args:
        case: The job, each of whose parties has closed its chain.
        model_file: The released model.

    Returns:
        What the verifier says.

    Raises:
        EvidenceError: A statement is missing.
    """
    case.watch(Stage("composing and checking the receipt"))
    model = ModelFile(name=MODEL_FILE, sha256=sha256_hex(model_file), bytes=len(model_file))
    extracts = [
        witnessed(seat.log.extract(case.job.job_id), seat.log, case.witnesses, case.clock())
        for seat in case.parties.seats
    ]
    logs = {seat.log.origin: seat.log for seat in case.parties.seats}
    receipt = compose_receipt(
        receipt_id=str(uuid4()),
        issuer=HUB,
        signer=case.parties.hub.party.signer,
        clock=case.clock,
        job=case.job.model_dump(mode="json"),
        manifests=case.agreement.manifest_envelopes,
        request=case.agreement.request_envelope,
        model=model,
        extracts=extracts,
        consistency=consistency_links(
            {one.origin: one for one in extracts},
            lambda origin, old, new: logs[origin].consistency_proof(old, new),
        ),
        credentials=credentials_of(seat.party for seat in case.parties.seats),
    )
    write_new(case.staging / RECEIPT_FILE, receipt, mode=READABLE)
    write_trust(case.staging / TRUST_FOLDER, _trust_entries(case))
    accept = TestRandomness.REFUSE if case.test_seed is None else TestRandomness.ACCEPT
    policy = VerificationPolicy(test_randomness=accept, witnesses=len(case.witnesses))
    verifier = Verifier(Trust.load(case.staging / TRUST_FOLDER), full_registry(), policy)
    return verifier.verify(receipt, model_artifact(model_file))


def _trust_entries(case: Case) -> list[TrustEntry]:
    entries = [
        TrustEntry(Role(seat.party.role), seat.party.name, seat.party.signer.public_key.pem.encode())
        for seat in case.parties.seats
    ]
    entries += [
        TrustEntry(Role.HOSPITAL, site, manifest.hospital.public_key.encode())
        for site, manifest in case.agreement.manifests.items()
    ]
    developer = case.agreement.request.ai_developer
    entries.append(TrustEntry(Role.DEVELOPER, developer.id, developer.public_key.encode()))
    entries += [TrustEntry(Role.WITNESS, one.name, one.public_key.pem.encode()) for one in case.witnesses]
    entries += [
        TrustEntry(Role.TEE_ROOT, name, certificate_pem(der))
        for name, der in sorted(case.attester.roots.items())
    ]
    return entries
