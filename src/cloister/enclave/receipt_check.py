"""The receipt checks "attestation" and "attestation-today": every verdict reached again from raw evidence.

Rules kept here:

* The policy comes from the hospitals' signed manifests, the site's key and the platform roots from the
  verifier's own trust; the hub's word on any of them only has to agree.
* Certificates are held against the recorded time of evaluation, which lies before the statement of it.
* A site whose update went into a round was TRUSTED by the last verdict on it that was stated before.
* No nonce was used twice.
* What got the key to a site's records is what its manifest asks for (`release_check`).
* The hub chose the vendors' documents in the receipt. "attestation-today" judges the same evidence by the
  verifying party's own, of today: certificates at the recorded time, documents now. It says both, and never
  changes what "attestation" says of the time itself. Where today's documents don't say, it isn't run; a
  manifest that does without a vendor's list answers for the job, and not for who asks about today.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloister.core.canonical import b64decode
from cloister.core.clock import fixed_clock, parse_time
from cloister.core.errors import CloisterError
from cloister.enclave.attestation.binding import Binding
from cloister.enclave.attestation.checks import CheckOutcome
from cloister.enclave.attestation.collateral import Collateral
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.attestation.record import collateral_of, verdict_fields
from cloister.enclave.attestation.trust import TrustStore
from cloister.enclave.attestation.verdict import Status, Verdict
from cloister.enclave.attestation.verifier import Verifier
from cloister.enclave.release_check import release_problems
from cloister.evidence.checks import Check, CheckRegistry, failed, judged, not_run
from cloister.evidence.context import ReceiptContext
from cloister.evidence.predicates import AttestationVerdict, Role
from cloister.evidence.record import JobRecord

ATTESTATION_CHECK_ID = "attestation"
TODAY_CHECK_ID = "attestation-today"
_NOTHING: Final = Collateral()
_SAYS_NOTHING: Final = frozenset(
    {
        "attestation.collateral_missing",
        "attestation.collateral_expired",
        "attestation.not_yet_valid",
        "attestation.revocation_unknown",
    }
)
"""Codes by which documents refuse because they are absent or out of date, and not for what they say."""


def register_attestation_check(registry: CheckRegistry) -> None:
    """Plug the check into a verifier's registry.

    Args:
        registry: of the evidence room.
    """
    registry.register(ATTESTATION_CHECK_ID, check_attestation)


def check_attestation(context: ReceiptContext) -> Check:
    """Judge all attestation verdicts of a receipt's job again.

    Args:
        context: the receipt, its record and the pinned trust.

    Returns:
        Passed, or failed with what differs.
    """
    record = context.record
    verdicts = record.by(record.issuer, AttestationVerdict)
    try:
        trust = TrustStore.from_certificates(context.trust.tee_roots.values())
    except CloisterError as error:
        return failed(ATTESTATION_CHECK_ID, f"trusted platform roots: {error.message}")
    problems: list[str] = []
    nonces = [verdict.nonce for verdict in verdicts]
    if len(set(nonces)) != len(nonces):
        problems.append("a nonce was used for two verdicts")
    policy = _agreed(record)
    for verdict in verdicts:
        problems.extend(f"{verdict.site}: {text}" for text in _differences(verdict, context, trust, policy))
    problems.extend(_unattested(context, verdicts))
    problems.extend(release_problems(record))
    simulated = sum(verdict.simulated for verdict in verdicts)
    detail = f"{len(verdicts)} platform verdict(s) reached again from the raw evidence"
    if simulated:
        detail += f"; {simulated} SIMULATED - NOT HARDWARE"
    return judged(ATTESTATION_CHECK_ID, problems, detail)


def _agreed(record: JobRecord) -> AppraisalPolicy | CloisterError | ValueError:
    """What every manifest allows, or why nothing is; looked at once for all verdicts."""
    try:
        return AppraisalPolicy.agreed_by(one.terms.attestation for one in record.manifests.values())
    except (CloisterError, ValueError) as error:
        return error


def register_check_of_today(registry: CheckRegistry, collateral: Collateral, now: datetime) -> None:
    """Plug the check by the verifying party's own documents into a verifier's registry.

    Args:
        registry: of the evidence room.
        collateral: the vendors' documents that the party has.
        now: the time they have to hold at.
    """
    registry.register(TODAY_CHECK_ID, lambda context: check_today(context, collateral, now))


def check_today(context: ReceiptContext, collateral: Collateral, now: datetime) -> Check:
    """Judge all TRUSTED verdicts of a receipt's job by what is known today.

    Args:
        context: the receipt, its record and the pinned trust.
        collateral: the vendors' documents that the verifying party has; those in the receipt count beside
            them, as far as they still hold, and what they revoke.
        now: the time documents have to hold at.

    Returns:
        Passed; failed where today's documents refuse a machine; not run where they don't say.
    """
    record = context.record
    try:
        trust = TrustStore.from_certificates(context.trust.tee_roots.values())
    except CloisterError as error:
        return failed(TODAY_CHECK_ID, f"trusted platform roots: {error.message}")
    policy = _agreed(record)
    trusted = [
        one for one in record.by(record.issuer, AttestationVerdict) if one.status == Status.TRUSTED.value
    ]
    refused: list[str] = []
    unknown: list[str] = []
    for stated in trusted:
        try:
            verdict = _judge_again(stated, context, trust, policy, collateral, now).verdict
        except (CloisterError, ValueError) as error:
            refused.append(f"{stated.site}: {_said(error)}")
            continue
        if verdict.codes:
            words = f"{stated.site}: at the time TRUSTED; by what is known today: {_today(verdict)}"
            (unknown if _SAYS_NOTHING.issuperset(verdict.codes) else refused).append(words)
    if unknown and not refused:
        return not_run(TODAY_CHECK_ID, "; ".join(unknown[:3]))
    return judged(
        TODAY_CHECK_ID,
        [*refused, *unknown],
        f"{len(trusted)} platform verdict(s), TRUSTED at the time, and still so by what is known today",
    )


def _today(verdict: Verdict) -> str:
    """What refuses, with its check's sentence; what a document says comes before what none says."""
    checks = [one for one in verdict.checks if one.outcome is CheckOutcome.FAILED]
    place = next((at for at, code in enumerate(verdict.codes) if code not in _SAYS_NOTHING), 0)
    words = verdict.codes[place].removeprefix("attestation.").replace("_", " ")
    if len(checks) != len(verdict.codes):
        return words
    return f"{words} ({checks[place].name}: {checks[place].detail.removesuffix('.')})"


@dataclass(frozen=True)
class _Again:
    """A stated verdict reached again, with what it was reached for."""

    verdict: Verdict
    binding: Binding
    policy: AppraisalPolicy
    evaluated_at: datetime


def _judge_again(
    stated: AttestationVerdict,
    context: ReceiptContext,
    trust: TrustStore,
    policy: AppraisalPolicy | CloisterError | ValueError,
    besides: Collateral = _NOTHING,
    known_at: datetime | None = None,
) -> _Again:
    """Judge the evidence of a stated verdict at its recorded time.

    Raises:
        CloisterError: something of it isn't sound, or no key of the site's is pinned.
        ValueError: a manifest's terms or the collateral aren't sound.
    """
    if isinstance(policy, Exception):
        raise policy
    evaluated_at = parse_time(stated.evaluated_at)
    key = context.trust.key(Role.SITE, stated.site, key_id=stated.site_key_id, at=evaluated_at)
    binding = Binding(
        nonce=b64decode(stated.nonce),
        key_id=key.key_id,
        job_id=context.record.job.job_id,
        policy_id=policy.sha256,
    )
    evidence = Evidence.from_json(stated.evidence.model_dump(mode="json"))
    of_the_time = collateral_of((one.kind, one.data) for one in stated.collateral)
    collateral = Collateral.joined(of_the_time.documents, besides.documents)
    verifier = Verifier(trust, fixed_clock(evaluated_at), collateral, known_at)
    asked = policy if known_at is None else policy.model_copy(update={"without_revocation": ()})
    verdict = verifier.verify(evidence, expected=binding, policy=asked)
    return _Again(verdict, binding, policy, evaluated_at)


def _said(error: CloisterError | ValueError) -> str:
    return error.message if isinstance(error, CloisterError) else "the manifest's terms are not sound"


def _differences(
    stated: AttestationVerdict,
    context: ReceiptContext,
    trust: TrustStore,
    policy: AppraisalPolicy | CloisterError | ValueError,
) -> Iterator[str]:
    record = context.record
    if stated.site not in record.manifests:
        yield "no manifest of this site"
        return
    try:
        recorded_at = parse_time(stated.recorded_at)
        again = _judge_again(stated, context, trust, policy)
    except (CloisterError, ValueError) as error:
        yield _said(error)
        return
    if record.opened_at is None or not record.opened_at <= again.evaluated_at <= recorded_at:
        yield "evaluated outside the time between the job's opening and the statement"
    fields = verdict_fields(stated.site, again.verdict, again.binding, again.policy)
    written = stated.model_dump(mode="json")
    different = [name for name, value in fields.items() if written[name] != value]
    if different:
        now = again.verdict.code or "trusted"
        yield f"stated {', '.join(different)} differ from what its evidence gives ({now})"


def _unattested(context: ReceiptContext, verdicts: tuple[AttestationVerdict, ...]) -> Iterator[str]:
    record = context.record
    by_site: dict[str, list[AttestationVerdict]] = {}
    for one in verdicts:
        by_site.setdefault(one.site, []).append(one)
    for site in record.participants:
        for used in record.used.get(site, ()):
            stated = [one for one in by_site.get(site, ()) if one.sequence < used.sequence]
            if not stated or stated[-1].status != Status.TRUSTED.value:
                yield f"{site}: took part in round {used.round} without a TRUSTED verdict before it"
                break
