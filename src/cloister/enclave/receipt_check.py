"""The receipt check "attestation": every verdict is reached again from the raw evidence in the receipt.

Rules kept here:

* The policy comes from the hospitals' signed manifests, the site's key and the platform roots from the
  verifier's own trust; the hub's word on any of them only has to agree.
* Certificates are held against the recorded time of evaluation, which lies before the statement of it.
* A site whose update went into the model has a TRUSTED verdict that was stated before its first round.
* No nonce was used twice.
"""

from collections.abc import Iterator

from cloister.core.canonical import b64decode
from cloister.core.clock import fixed_clock, parse_time
from cloister.core.errors import CloisterError
from cloister.enclave.attestation.model import AppraisalPolicy, Binding, Evidence
from cloister.enclave.attestation.record import verdict_fields
from cloister.enclave.attestation.trust import TrustStore
from cloister.enclave.attestation.verifier import Verifier
from cloister.evidence.checks import Check, CheckRegistry, failed, judged
from cloister.evidence.context import ReceiptContext
from cloister.evidence.predicates import AttestationVerdict, Role
from cloister.evidence.record import JobRecord

ATTESTATION_CHECK_ID = "attestation"


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
        if isinstance(policy, Exception):
            raise policy
        evaluated_at, recorded_at = parse_time(stated.evaluated_at), parse_time(stated.recorded_at)
        key = context.trust.key(Role.SITE, stated.site, key_id=stated.site_key_id, at=evaluated_at)
        binding = Binding(
            nonce=b64decode(stated.nonce),
            site_key_id=key.key_id,
            job_id=record.job.job_id,
            policy_id=policy.sha256,
        )
        evidence = Evidence(
            b64decode(stated.evidence.report), tuple(b64decode(text) for text in stated.evidence.chain)
        )
        verifier = Verifier(trust, fixed_clock(evaluated_at))
        verdict = verifier.verify(evidence, expected=binding, policy=policy)
    except (CloisterError, ValueError) as error:
        yield error.message if isinstance(error, CloisterError) else "the manifest's terms are not sound"
        return
    if record.opened_at is None or not record.opened_at <= evaluated_at <= recorded_at:
        yield "evaluated outside the time between the job's opening and the statement"
    again = verdict_fields(stated.site, verdict, binding, policy)
    written = stated.model_dump(mode="json")
    different = [name for name, value in again.items() if written[name] != value]
    if different:
        now = verdict.code or "trusted"
        yield f"stated {', '.join(different)} differ from what its evidence gives ({now})"


def _unattested(context: ReceiptContext, verdicts: tuple[AttestationVerdict, ...]) -> Iterator[str]:
    record = context.record
    by_site: dict[str, list[AttestationVerdict]] = {}
    for one in verdicts:
        by_site.setdefault(one.site, []).append(one)
    for site in record.participants:
        rounds = record.used.get(site, ())
        stated = [one for one in by_site.get(site, ()) if rounds and one.sequence < rounds[0].sequence]
        if not stated or stated[-1].status != "TRUSTED":
            yield f"{site}: took part without a TRUSTED verdict before its first round"
