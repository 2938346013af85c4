"""Ways to change a finished job's receipt, as an outsider would and as a hub that signs its lies would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from cloister.core.canonical import JSON, b64encode, canonicalize, parse
from cloister.core.keys import FileKeyStore, Signer
from cloister.evidence import Predicate, Role, Trust, decode_statement, log_origin
from cloister.evidence.envelope import envelope_from_json
from cloister.evidence.receipt import signed_bytes
from cloister.evidence.verifier import TestRandomness, Verdict, VerificationPolicy, Verifier, model_artifact
from cloister.workflow.checks import full_registry
from cloister.workflow.outcome import JobOutcome

Body = dict[str, JSON]
BodyEdit = Callable[[Body], None]
HUB_LOG = log_origin(Role.HUB, "hub")
SITE_LOG = log_origin(Role.SITE, "northgate")


def parts(value: JSON) -> dict[str, JSON]:
    return cast(dict[str, JSON], value)


def entries(body: Body) -> list[dict[str, JSON]]:
    return cast(list[dict[str, JSON]], body["statements"])


def predicate_of(entry: dict[str, JSON]) -> Predicate:
    return decode_statement(envelope_from_json(entry["envelope"]).payload).predicate


def party_key(workspace: Path, role: str, name: str) -> Signer:
    """The private key of a party that a workspace plays."""
    return FileKeyStore(workspace / "parties" / role / name / "keys").load(role)


def edited_receipt(receipt: bytes, edit: BodyEdit, signer: Signer | None = None) -> bytes:
    """A receipt with another body, in canonical form, and signed anew if there is a key to sign with."""
    document = cast(dict[str, JSON], parse(receipt))
    body = cast(Body, document["body"])
    edit(body)
    if signer is not None:
        signature = b64encode(signer.sign(signed_bytes(body)))
        document["signature"] = {"key_id": signer.public_key.key_id, "sig": signature}
    return canonicalize(document)


def judge(
    outcome: JobOutcome,
    *,
    receipt: bytes | None = None,
    model: bytes | None = None,
    accept: TestRandomness = TestRandomness.REFUSE,
) -> Verdict:
    """What a stranger finds who holds a job's files, or changed ones."""
    content = outcome.model.read_bytes() if model is None else model
    verifier = Verifier(
        Trust.load(outcome.trust), full_registry(), VerificationPolicy(test_randomness=accept)
    )
    return verifier.verify(
        outcome.receipt.read_bytes() if receipt is None else receipt,
        model_artifact(content),
    )


def failed(verdict: Verdict) -> list[str]:
    """Names of the checks that did not pass."""
    return [check.id for check in verdict.failures]
