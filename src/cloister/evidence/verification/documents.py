"""Checks on the documents a job stands on: each hospital's manifest, the request, the job consented to."""

from __future__ import annotations

from collections.abc import Iterator

from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.checks import Check, judged
from cloister.evidence.context import ReceiptContext
from cloister.evidence.envelope import Envelope, verify_envelope
from cloister.evidence.predicates import JobOpened, ManifestAccepted, RequestDecided, Role
from cloister.evidence.terms import MANIFEST_TYPE, REQUEST_TYPE


def check_manifests(context: ReceiptContext) -> Check:
    """Each site's manifest is its hospital's, in force, the one it works under, and allows the hub's code."""
    record = context.record
    problems = [f"no manifest of {site}" for site in record.job.clients if site not in record.manifests]
    problems += [
        f"a manifest of {site}, no site of the job" for site in record.manifests if site not in record.clients
    ]
    for site in sorted(record.manifests):
        problems += [f"{site}: {problem}" for problem in _manifest_problems(context, site)]
    runs = {one.code_measurement for one in record.by(record.issuer, JobOpened)}
    problems += [
        f"{site}: the hub runs code that the manifest doesn't allow"
        for site, signed in sorted(record.manifests.items())
        if not runs.issubset(frozenset(signed.terms.attestation.allowed_measurements))
    ]
    return judged("manifest", problems, f"{len(record.manifests)} manifests signed and in force")


def _manifest_problems(context: ReceiptContext, site: str) -> Iterator[str]:
    signed = context.record.manifests[site]
    terms, digest = signed.terms, signed.envelope.payload_sha256
    if terms.hospital.id != site:
        yield "the manifest is another hospital's"
    yield from _signed_by(
        context, Role.HOSPITAL, site, signed.envelope, MANIFEST_TYPE, terms.hospital.public_key
    )
    for one in context.record.by(site, ManifestAccepted):
        stated = (one.hospital_id, one.manifest_id, one.version, one.epsilon_budget, one.delta_budget)
        guardrails = terms.privacy_guardrails
        written = (
            terms.hospital.id,
            terms.manifest_id,
            terms.version,
            guardrails.epsilon_budget,
            guardrails.delta_budget,
        )
        if one.manifest_sha256 != digest or stated != written:
            yield "the site works under another manifest"
        if not terms.validity.holds_at(parse_time(one.recorded_at)):
            yield "the manifest was not in force when the site accepted it"
    for decided in context.record.by(site, RequestDecided):
        if decided.manifest_sha256 != digest:
            yield "the site decided under another manifest"


def check_request(context: ReceiptContext) -> Check:
    """The request is the developer's, each site that trained approved it and this job, the hub opened it."""
    record = context.record
    request = record.request
    problems = list(
        _signed_by(
            context,
            Role.DEVELOPER,
            request.terms.ai_developer.id,
            request.envelope,
            REQUEST_TYPE,
            request.terms.ai_developer.public_key,
        )
    )
    for site in record.involved:
        problems += [f"{site}: {problem}" for problem in _decision_problems(context, site)]
    terms = (tuple(sorted(record.job.clients)), record.job.rounds, record.job.strategy)
    for opened in record.by(record.issuer, JobOpened):
        if opened.job_sha256 != record.job_sha256:
            problems.append("the hub opened another job")
        if (tuple(opened.sites), opened.rounds, opened.strategy) != terms:
            problems.append("the hub opened a job with other sites, rounds or strategy")
    return judged("request", problems, f"approved by {len(record.involved)} sites, for this job")


def _decision_problems(context: ReceiptContext, site: str) -> Iterator[str]:
    record = context.record
    asked = record.request.terms.of_site(site)
    manifest = record.manifests.get(site)
    if asked is None:
        yield "the request doesn't ask for this site"
    elif manifest is not None and asked.manifest_sha256 != manifest.envelope.payload_sha256:
        yield "the request was written for another manifest"
    for one in record.by(site, RequestDecided):
        if not one.approved or one.reasons:
            yield "the site did not approve"
        if one.request_sha256 != record.request.envelope.payload_sha256:
            yield "the site approved another request"
        if one.job_sha256 != record.job_sha256:
            yield "the site consented to another job"


def _signed_by(
    context: ReceiptContext, role: Role, party: str, envelope: Envelope, payload_type: str, named_pem: str
) -> Iterator[str]:
    if envelope.payload_type != payload_type:
        yield "the document is of another type"
    try:
        named = PublicKey.from_pem(named_pem).key_id
        key = context.trust.key(role, party, key_id=named, at=context.record.opened_at)
        if named != key.key_id:
            yield f"the document names another key than the one pinned for {role.value}/{party}"
        verify_envelope(envelope, key)
    except CloisterError as error:
        yield error.message
