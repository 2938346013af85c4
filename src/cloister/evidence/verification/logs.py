"""Checks on the receipt and its logs: who signed, what is logged, in which order, with nothing missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Final, cast

from cloister.core.canonical import JSON
from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.parallel import in_parallel
from cloister.evidence.checkpoint import verify_checkpoint
from cloister.evidence.checks import Check, judged
from cloister.evidence.context import ReceiptContext
from cloister.evidence.envelope import verify_envelope
from cloister.evidence.extract import log_origin, log_owner, verify_entry
from cloister.evidence.key_order import by_former, document_place, entry_place, head_place, misplaced
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    Evaluation,
    JobClosed,
    JobOpened,
    ManifestAccepted,
    Release,
    RequestDecided,
    Role,
    RoundAggregated,
    UpdateReleased,
)
from cloister.evidence.receipt import signature_of
from cloister.evidence.record import JobRecord, LoggedStatement
from cloister.evidence.requirements import missing_keys, missing_statements
from cloister.evidence.verification.acceptance import CLOCK_TOLERANCE
from cloister.evidence.verification.timestamps import stamped_by

KEY_ID_PREFIX: Final = "sha256:"


def check_receipt_signature(context: ReceiptContext) -> Check:
    """The issuing hub, as pinned, signed every byte of the body.

    A certified key held when the receipt says it was issued, and also at the earliest timestamp, where the
    verifying party asks for one.
    """
    problems: list[str] = []
    try:
        named = context.receipt.signature.key_id
        at = parse_time(context.body.issued_at)
        key = context.trust.key(Role.HUB, context.body.issuer, key_id=named, at=at)
        if named != key.key_id:
            problems.append("the receipt is signed by another key than the hub's")
        else:
            key.verify(signature_of(context.receipt), context.signed)
            stamped = stamped_by(context)
            if stamped is not None:
                context.trust.key(Role.HUB, context.body.issuer, key_id=named, at=stamped)
    except CloisterError as error:
        problems.append(error.message)
    issuer = context.body.issuer
    former = by_former(context.trust, Role.HUB, issuer, [context.receipt.signature.key_id])
    return judged("receipt-signature", problems, f"signed by hub {issuer}{former}")


def check_trust(context: ReceiptContext) -> Check:
    """Every party the receipt speaks of is pinned, or certified, in its role; every log is one of theirs."""
    record, trust = context.record, context.trust
    sites = sorted({one.owner for one in record.logged if one.role is Role.SITE} | set(record.job.clients))
    needed = [(Role.HUB, record.issuer), (Role.DEVELOPER, record.request.terms.ai_developer.id)]
    needed += [(role, site) for site in sites for role in (Role.SITE, Role.HOSPITAL)]
    certified = context.body.credentials
    pinned = {(role, party) for role in {role for role, _ in needed} for party in trust.parties(role)}
    problems = [
        f"no key is pinned or certified for {role.value}/{party}"
        for role, party in needed
        if (role, party) not in pinned and f"{role.value}/{party}" not in certified
    ]
    problems += [
        f"{place} has no part in the job, yet a certificate here"
        for place in sorted(certified.keys() - {f"{role.value}/{party}" for role, party in needed})
    ]
    allowed = {
        log_origin(Role.HUB, record.issuer),
        *(log_origin(Role.SITE, one) for one in record.job.clients),
    }
    problems += [f"{origin} is no log of this job" for origin in sorted(record.checkpoints.keys() - allowed)]
    held = f"; {trust.revocation_lists or 'no'} revocation list(s) held" if certified else ""
    return judged("trust", problems, f"{len(needed)} parties, {len(certified)} of them certified{held}")


def check_checkpoint_signatures(context: ReceiptContext) -> Check:
    """Each log's head is signed by the key pinned for the log's owner, or one that it used before.

    A certified key held at the last statement, and also at the receipt's earliest timestamp, where the
    verifying party asks for one.
    """
    problems: list[str] = []
    stamped = stamped_by(context)
    for origin, checkpoint in context.record.checkpoints.items():
        try:
            keys = context.trust.keys(*log_owner(origin), at=_last_stated(context, origin))
            if stamped is not None:
                still = context.trust.keys(*log_owner(origin), at=stamped)
                keys = tuple(key for key in keys if key in still)
            verify_checkpoint(checkpoint, origin, *keys)
        except CloisterError as error:
            problems.append(f"{origin}: {error.message}")
    return judged("checkpoint-signature", problems, f"{len(context.record.checkpoints)} signed log heads")


def _last_stated(context: ReceiptContext, origin: str) -> datetime:
    """When the log's owner signed its head: with the last statement, as far as anybody here can tell."""
    chain = context.record.chains.get(origin)
    return parse_time(chain[-1].predicate.recorded_at if chain else context.body.issued_at)


def check_log_inclusion(context: ReceiptContext) -> Check:
    """Each statement is proven to be in its log, at its index, under the log's signed head."""
    problems: list[str] = []
    for one in context.record.logged:
        try:
            verify_entry(one.entry, context.record.checkpoints[one.log])
        except CloisterError as error:
            problems.append(f"{one.log} entry {one.entry.index}: {error.message}")
    return judged("log-inclusion", problems, f"{len(context.record.logged)} statements proven in their logs")


def check_statement_signatures(context: ReceiptContext) -> Check:
    """Each statement is signed by its log's owner, who names itself in it and may make such a statement.

    Where the owner changed its key, each key signed what lies in the log before the next one's.
    """
    logged = context.record.logged
    found = in_parallel(lambda one: tuple(_signature_problems(context, one)), logged)
    problems = [problem for each in found for problem in each] or _order_of_keys(context)
    owners: dict[tuple[Role, str], set[str]] = {}
    for one in logged:
        owners.setdefault((one.role, one.owner), set()).add(_named(one))
    former = [
        f"; {role.value} {party}{told}"
        for (role, party), ids in sorted(owners.items())
        if (told := by_former(context.trust, role, party, ids))
    ]
    return judged(
        "statement-signature",
        problems,
        f"{len(logged)} statements signed by their party{''.join(former)}",
    )


def _order_of_keys(context: ReceiptContext) -> list[str]:
    """What is signed with a key that its party had given up by then."""
    record, problems = context.record, []
    hub = log_origin(Role.HUB, context.body.issuer)
    for origin, chain in record.chains.items():
        head = record.checkpoints[origin]
        signed = [entry_place(one.entry.index, _named(one)) for one in chain]
        keys = context.trust.keys(*log_owner(origin), at=_last_stated(context, origin))
        signed += head_place(head, keys)
        if origin == hub:
            signed.append(document_place(head, "the receipt", context.receipt.signature.key_id))
        problems += misplaced(origin, signed, context.trust)
    return problems


def _named(one: LoggedStatement) -> str:
    return one.entry.envelope.signatures[0].key_id


def _signature_problems(context: ReceiptContext, one: LoggedStatement) -> Iterator[str]:
    where = f"{one.log} entry {one.entry.index}"
    if one.predicate.party != one.owner:
        yield f"{where}: it names {one.predicate.party} as its party"
    if one.role not in one.predicate.ROLES:
        yield f"{where}: a {one.role.value} may not state {one.predicate.TYPE}"
    try:
        at = parse_time(one.predicate.recorded_at)
        key = context.trust.key(one.role, one.owner, key_id=_named(one), at=at)
        verify_envelope(one.entry.envelope, key)
    except CloisterError as error:
        yield f"{where}: {error.message}"


def check_statement_order(context: ReceiptContext) -> Check:
    """Statements stand in their logs' order, and each log's order is that of its party's chain and clock."""
    problems: list[str] = []
    places = [(one.log, one.index) for one in context.body.statements]
    for earlier, later in pairwise(places):
        if earlier >= later:
            problems.append(f"{later[0]} entry {later[1]} stands after {earlier[0]} entry {earlier[1]}")
    for chain in context.record.chains.values():
        for before, after in pairwise(chain):
            if before.predicate.sequence >= after.predicate.sequence:
                problems.append(f"{after.log} entry {after.entry.index} was stated before the one it follows")
            elif before.predicate.recorded_at > after.predicate.recorded_at:
                problems.append(f"{after.log} entry {after.entry.index} is dated before the one it follows")
    problems += _causal_problems(context.record)
    hub = context.record.chains.get(log_origin(Role.HUB, context.body.issuer), ())
    if hub and context.body.issued_at < hub[-1].predicate.recorded_at:
        problems.append("the receipt is dated before the hub's last statement")
    issued_at = parse_time(context.body.issued_at)
    for closed in context.record.of(JobClosed):
        if parse_time(closed.recorded_at) > issued_at + CLOCK_TOLERANCE:
            problems.append(f"the receipt is dated before {closed.party} closed the job")
    return judged("statement-order", problems, "in the order of the logs")


def _causal_problems(record: JobRecord) -> Iterator[str]:
    """Where one statement has to come before another whatever the clocks say, the chains must show it."""
    hub = record.issuer
    for opened in record.by(hub, JobOpened):
        if opened.sequence != 0:
            yield f"{hub}: something was stated before the job was opened"
    rounds = record.by(hub, RoundAggregated)
    if [one.round for one in rounds] != sorted(one.round for one in rounds):
        yield f"{hub}: the rounds were not aggregated in order"
    trusted = {
        one.site: one.sequence for one in record.by(hub, AttestationVerdict) if one.status == "TRUSTED"
    }
    for one in rounds:
        if any(trusted.get(site, -1) > one.sequence for site in one.updates):
            yield f"{hub}: a site took part in round {one.round} before it was attested"
    for kind in (Evaluation, Release):
        if any(rounds and found.sequence < rounds[-1].sequence for found in record.by(hub, kind)):
            yield f"{hub}: the model was judged before the last round"
    for site in record.involved:
        yield from (f"{site}: {problem}" for problem in _site_causal_problems(record, site))


def _site_causal_problems(record: JobRecord, site: str) -> Iterator[str]:
    spends = {one.round: one.sequence for one in record.by(site, BudgetSpend) if one.purpose == "training"}
    first_spend = min((one.sequence for one in record.by(site, BudgetSpend)), default=0)
    for kind in (ManifestAccepted, RequestDecided, DataCommitment):
        if any(found.sequence > first_spend for found in record.by(site, kind)):
            yield "it spent budget before manifest, decision and data were stated"
    for released in record.by(site, UpdateReleased):
        if spends.get(released.round, -1) > released.sequence:
            yield f"it released round {released.round} before it stated the cost"


def check_statement_chain(context: ReceiptContext) -> Check:
    """Each party's statements are of this job and form one chain up to its closing, about what they name."""
    problems: list[str] = []
    job_id = context.record.job.job_id
    if context.body.job_id != job_id:
        problems.append("the receipt names another job than the one it holds")
    chains = context.record.chains
    for origin, chain in chains.items():
        previous: str | None = None
        for position, one in enumerate(chain):
            where = f"{origin} entry {one.entry.index}"
            if one.predicate.job_id != job_id:
                problems.append(f"{where}: it is of another job")
            if one.predicate.sequence != position:
                problems.append(f"{where}: statement {position} of its party is missing")
                break
            if one.predicate.previous != previous:
                problems.append(f"{where}: it follows another statement than the one before it")
            previous = one.entry.envelope.payload_sha256
            if not _about_what_it_states(context.record, one):
                problems.append(f"{where}: it is about something else than what it states")
        if any(isinstance(one.predicate, JobClosed) for one in chain[:-1]):
            problems.append(f"{origin}: there are statements after the closing one")
    return judged("statement-chain", problems, f"{len(chains)} unbroken chains")


def _about_what_it_states(record: JobRecord, one: LoggedStatement) -> bool:
    """Whether each subject is the job, or something that the statement names by hash."""
    of_job = {record.job_sha256, sha256_hex(record.job.job_id.encode("ascii"))}
    others = {subject.sha256 for subject in one.statement.subjects} - of_job
    return not others or others <= _hashes_named(one)


def _hashes_named(one: LoggedStatement) -> set[str]:
    named: set[str] = set()
    parts: list[JSON] = [cast(JSON, one.predicate.model_dump(mode="json"))]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
        elif isinstance(part, str):
            named.add(part.removeprefix(KEY_ID_PREFIX))
    return named


def check_statements_complete(context: ReceiptContext) -> Check:
    """Every statement such a job needs is there, and as many of each party as it says it made."""
    record = context.record
    problems = list(dict.fromkeys((*missing_statements(record), *missing_keys(record))))
    silent = [origin for origin in context.record.checkpoints if origin not in context.record.chains]
    problems += [f"{origin}: a log without a statement" for origin in sorted(silent)]
    return judged("statements-complete", problems, f"{len(context.record.logged)} statements, none missing")
