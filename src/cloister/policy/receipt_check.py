"""The receipt verifier's ``policy`` check: every hospital's decision is made again.

Rules kept here:

- Manifests and the request are opened with the keys that the verifying party pinned, whatever other
  checks have found.
- The decision is recomputed from the documents, the facts that the site wrote down and the job in the
  receipt; it has to be the one that was stated, reason for reason, and it has to be an approval.
- The facts have to be those of the same site, about the records it committed to, at the time it says.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.evidence.checks import Check, judged
from cloister.evidence.context import ReceiptContext
from cloister.evidence.predicates import DataCommitment, JobOpened, RequestDecided, Role
from cloister.evidence.record import JobRecord
from cloister.evidence.trust import Trust
from cloister.policy.decision import CLOCK_TOLERANCE, DecisionFacts, decide
from cloister.policy.job_decision import JobTerms, decide_job, job_terms
from cloister.policy.manifest import open_manifest
from cloister.policy.request import TrainingRequest, open_request

POLICY_CHECK_ID = "policy"


def check_policy(context: ReceiptContext) -> Check:
    """Decide again on the request and the job, for every site of a receipt.

    Args:
        context: The receipt's record and the pinned keys.

    Returns:
        The check, failed if any decision isn't the one stated or isn't an approval.
    """
    record = context.record
    problems = policy_problems(record, context.trust)
    return judged(POLICY_CHECK_ID, problems, f"{len(_sites(record))} decisions made again, all approvals")


def policy_problems(record: JobRecord, trust: Trust) -> list[str]:
    """Name everything that speaks against the decisions in a job's record.

    Args:
        record: The job's documents and statements.
        trust: The pinned keys.
    """
    try:
        named, at = record.request.envelope.signatures[0].key_id, record.opened_at
        developer = trust.key(Role.DEVELOPER, record.request.terms.ai_developer.id, key_id=named, at=at)
        request = open_request(record.request.envelope, developer)
        terms = _terms(record)
    except CloisterError as error:
        return [error.message]
    return [
        f"{site}: {problem}"
        for site in _sites(record)
        for problem in _at_site(site, record, trust, request, terms)
    ]


def _sites(record: JobRecord) -> list[str]:
    return sorted({*record.participants, *(one.party for one in record.of(RequestDecided))})


def _terms(record: JobRecord) -> JobTerms:
    opened = record.by(record.issuer, JobOpened)
    return job_terms(
        record.job_json,
        datasets={one.party: one.dataset_sha256 for one in record.of(DataCommitment)},
        test_set=opened[0].test_set if opened else "",
    )


def _at_site(
    site: str, record: JobRecord, trust: Trust, request: TrainingRequest, terms: JobTerms
) -> Iterator[str]:
    decisions = record.by(site, RequestDecided)
    if len(decisions) != 1:
        yield f"{len(decisions)} decisions on the request"
        return
    if site not in record.manifests:
        yield "no manifest"
        return
    (stated,) = decisions
    try:
        envelope = record.manifests[site].envelope
        named, at = envelope.signatures[0].key_id, record.opened_at
        manifest = open_manifest(envelope, trust.key(Role.HOSPITAL, site, key_id=named, at=at))
        facts = DecisionFacts.model_validate(stated.facts)
    except CloisterError as error:
        yield error.message
        return
    except ValidationError:
        yield "the facts of the decision can't be read"
        return
    if stated.request_sha256 != request.sha256:
        yield "the decision is on another request"
    if stated.manifest_sha256 != manifest.sha256:
        yield "the decision is under another manifest"
    if stated.job_sha256 != record.job_sha256:
        yield "the decision is on another job"
    yield from _facts(site, facts, stated, record)
    reasons = (
        *decide(manifest, request, facts).reason_lines,
        *decide_job(manifest, request, terms).reason_lines,
    )
    yield from reasons
    if not stated.approved:
        yield "the request was refused"
    if stated.reasons != reasons or stated.approved == bool(reasons):
        yield "the decision made again is not the one stated"


def _facts(site: str, facts: DecisionFacts, stated: RequestDecided, record: JobRecord) -> Iterator[str]:
    if facts.site != site:
        yield "the decision rests on the facts of another site"
    for held in record.by(site, DataCommitment):
        committed = (held.dataset_sha256, held.records, held.subject_count)
        if committed != (facts.dataset_sha256, facts.records, facts.subjects):
            yield "the decision rests on other records than the site committed to"
        if (held.dataset_name, held.bounds_sha256) != (facts.dataset_name, facts.bounds_sha256):
            yield "the decision rests on another name or declaration than the site committed to"
    if abs(parse_time(facts.decided_at) - parse_time(stated.recorded_at)) > CLOCK_TOLERANCE:
        yield "the decision was written down at another time than it says it was made"
