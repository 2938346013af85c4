"""Which statements a job needs before a receipt may speak of it.

One pure function, by which the composer refuses to issue and the verifier refuses to accept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    Evaluation,
    JobClosed,
    JobOpened,
    KeyRelease,
    ManifestAccepted,
    Predicate,
    Release,
    RequestDecided,
    Role,
    RoundAggregated,
    UpdateReleased,
    WorkerSealed,
)
from cloister.evidence.record import JobRecord

_HUB_ONCE: tuple[type[Predicate], ...] = (JobOpened, Evaluation, Release)
_SITE_ONCE: tuple[type[Predicate], ...] = (ManifestAccepted, RequestDecided, DataCommitment, WorkerSealed)


def missing_statements(record: JobRecord) -> tuple[str, ...]:
    """Name every statement that is missing, or made more than once where once is meant.

    Required: the hub's opening, one aggregate per round, one verdict that trusts each site that took part
    or spent budget, the evaluation and the release; of each such site its manifest, decision and data,
    the worker it sealed, where the model was approved the one release of its data key (`missing_keys`), and
    for each round it took part in the budget spent and the update released; and of the hub and of every site
    of the job, whether it took part or not, a closing statement that counts as many statements as there are.
    Otherwise a hub could call a site absent and keep back the log in which that site states what it spent.
    Each site that completed the job states the closing statement of the hub that is here, and no site states
    another: a hub may write two endings into its log, but the sites were shown one.

    Args:
        record: the job's record.

    Returns:
        One line per problem; none if the record is complete.
    """
    return tuple(_problems(record))


def missing_keys(record: JobRecord) -> tuple[str, ...]:
    """Name every site whose data key wasn't released once.

    A run that was started without protection gets no keys, and its model is never approved. It has a receipt
    nevertheless, so that what happened can be shown; a verifier asks for the keys in any case, and refuses.

    Args:
        record: the job's record.

    Returns:
        One line per problem.
    """
    return tuple(_keys(record))


def _problems(record: JobRecord) -> Iterator[str]:
    hub = record.issuer
    for kind in _HUB_ONCE:
        yield from _once(record, hub, kind)
    rounds = Counter(one.round for one in record.by(hub, RoundAggregated))
    for number in range(record.job.rounds):
        if rounds[number] != 1:
            yield f"{hub}: {rounds[number]} aggregates of round {number}"
    if extra := sorted(number for number in rounds if number >= record.job.rounds):
        yield f"{hub}: aggregates of rounds the job doesn't have: {extra[:5]}"
    if strange := sorted(record.used.keys() - record.clients):
        yield f"{hub}: aggregates of sites the job doesn't have: {', '.join(strange[:5])}"
    if not record.participants:
        yield "no site took part in any round"
    for site in sorted(record.clients - record.manifests.keys()):
        yield f"{site}: no manifest"
    verdicts = record.by(hub, AttestationVerdict)
    trusted = Counter(one.site for one in verdicts if one.status == "TRUSTED")
    for site in record.involved:
        yield from _site(record, site, trusted[site])
    if all(one.approved for one in record.by(hub, Release)):
        yield from _keys(record)
    yield from _closings(record)


def _keys(record: JobRecord) -> Iterator[str]:
    for site in record.involved:
        released = sum(one.outcome == "released" for one in record.by(site, KeyRelease))
        if released != 1:
            yield f"{site}: {released} releases of its data key"


def _site(record: JobRecord, site: str, trusted: int) -> Iterator[str]:
    for kind in _SITE_ONCE:
        yield from _once(record, site, kind)
    if trusted != 1:
        yield f"{record.issuer}: {trusted} attestation verdicts that trust {site}"
    spends = Counter(one.round for one in record.by(site, BudgetSpend) if one.purpose == "training")
    updates = Counter(one.round for one in record.by(site, UpdateReleased))
    for one in record.used.get(site, ()):
        if spends[one.round] != 1:
            yield f"{site}: {spends[one.round]} training spends in round {one.round}"
        if updates[one.round] != 1:
            yield f"{site}: {updates[one.round]} released updates in round {one.round}"


def _closings(record: JobRecord) -> Iterator[str]:
    made = Counter(one.owner for one in record.logged)
    last = max(record.by(record.issuer, RoundAggregated), key=lambda one: one.round, default=None)
    finishers = {record.issuer, *(last.updates if last else ())}
    endings = _hub_endings(record)
    for party in sorted({record.issuer, *made, *record.job.clients}):
        closings = record.by(party, JobClosed)
        if not made[party]:
            yield f"{party}: no extract of its log"
        elif len(closings) != 1:
            yield f"{party}: {len(closings)} closing statements"
        elif closings[0].statements != made[party]:
            yield f"{party}: closed after {closings[0].statements} statements, but {made[party]} are here"
        elif closings[0].outcome != "completed" and party in finishers:
            yield f"{party}: the job was not completed"
        elif party != record.issuer:
            yield from _ending(party, closings[0], endings)


def _hub_endings(record: JobRecord) -> Mapping[tuple[str, str], int]:
    """The hub's closing statements here, by log and hash, and where in the log each is."""
    return {
        (one.log, one.entry.envelope.payload_sha256): one.entry.index
        for one in record.logged
        if isinstance(one.predicate, JobClosed) and one.role is Role.HUB and one.owner == record.issuer
    }


def _ending(party: str, closing: JobClosed, endings: Mapping[tuple[str, str], int]) -> Iterator[str]:
    named = closing.hub_ending
    if named is None:
        if closing.outcome == "completed":
            yield f"{party}: it completed the job, and doesn't state how the hub ended it"
        return
    index = endings.get((named.origin, named.statement_sha256))
    if index is None:
        yield f"{party}: it states another ending of the hub than the one here"
    elif index >= named.size:
        yield f"{party}: it states the hub's ending in a log that is too short to hold it"


def _once(record: JobRecord, party: str, kind: type[Predicate]) -> Iterator[str]:
    found = len(record.by(party, kind))
    if found != 1:
        yield f"{party}: {found} statements of {kind.TYPE}"
