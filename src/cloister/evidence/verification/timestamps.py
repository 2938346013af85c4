"""The check on a receipt's timestamps: who says when it was there, under roots that the verifier pinned.

Dates in a receipt are the word of who signed it, and a key whose certificate has expired can still sign with
an older date. Who asks for a timestamp is therefore given one of soon after the receipt's date, at which the
certificates still held; nothing else bounds from above when a key was used.
"""

from __future__ import annotations

from datetime import datetime

from cloister.core.canonical import b64decode
from cloister.core.clock import format_time, parse_time
from cloister.core.errors import CloisterError
from cloister.evidence.checks import Check, judged, not_run, passed
from cloister.evidence.context import ReceiptContext
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import Role
from cloister.evidence.receipt import signature_of
from cloister.evidence.verification.acceptance import CLOCK_TOLERANCE, TimestampRule

CHECK_ID = "timestamp"


def check_timestamp(context: ReceiptContext) -> Check:
    """Each timestamp is of the hub's signature, by a pinned authority, not before the receipt's date.

    Where one is asked for, the earliest was given soon after that date.
    """
    stamps = context.receipt.timestamps
    if not stamps:
        if context.policy.timestamp is TimestampRule.REQUIRED:
            return judged(CHECK_ID, ["a timestamp is asked for, and there is none"], "")
        return passed(CHECK_ID, "none, and none asked for")
    problems: list[str] = []
    times: list[datetime] = []
    if len(set(stamps)) != len(stamps):
        problems.append("a timestamp stands there twice")
    message = signature_of(context.receipt)
    try:
        for number, one in enumerate(stamps, start=1):
            try:
                times.append(_verified_time(b64decode(one), message, context))
            except CloisterError as error:
                problems.append(f"timestamp {number}: {error.message}")
    except ImportError:
        return not_run(CHECK_ID, "rfc3161-client is not installed, or too old: pip install '.[verify]'")
    issued_at = parse_time(context.body.issued_at)
    if any(one < issued_at - CLOCK_TOLERANCE for one in times):
        problems.append("the receipt's signature was there before the receipt says it was issued")
    policy = context.policy
    asked_for = policy.timestamp is TimestampRule.REQUIRED
    if asked_for and times and min(times) > issued_at + policy.timestamp_within:
        problems.append(
            f"the earliest timestamp is of {format_time(min(times))}, too long after the receipt's date"
        )
    return judged(CHECK_ID, problems, f"signed no later than {format_time(min(times))}" if times else "")


def stamped_by(context: ReceiptContext) -> datetime | None:
    """The time by which the receipt was signed, where the verifying party asks for an authority's word on it.

    None where it doesn't ask; and where no timestamp holds, for then `check_timestamp` refuses the receipt.
    """
    if context.policy.timestamp is not TimestampRule.REQUIRED:
        return None
    times: list[datetime] = []
    for one in context.receipt.timestamps:
        try:
            times.append(_verified_time(b64decode(one), signature_of(context.receipt), context))
        except (CloisterError, ImportError):
            continue
    return min(times, default=None)


def _verified_time(response: bytes, message: bytes, context: ReceiptContext) -> datetime:
    from cryptography.x509 import load_pem_x509_certificate
    from rfc3161_client import VerificationError, VerifierBuilder

    from cloister.evidence.timestamp import decode_response, stamped_at

    roots = context.trust.roots(Role.TSA)
    if not roots:
        raise EvidenceError(
            "evidence.timestamp_invalid", "No time-stamping authority is pinned (tsa/<name>.pem)."
        )
    at = stamped_at(response, message)
    for pem in roots.values():
        try:
            verifier = VerifierBuilder(roots=[load_pem_x509_certificate(pem)]).build()
            verifier.verify_message(decode_response(response), message)
        except (VerificationError, ValueError):
            continue
        return at
    raise EvidenceError("evidence.timestamp_invalid", "No pinned time-stamping authority vouches for it.")
