"""Checks on an audit export: its order, its chains, and that nothing of what was asked for is left out.

Rules kept here:

1. A job's chain runs from its first statement to the closing one that counts them. Parties that the job names
   and whose logs aren't here are named.
2. A span of time is a gapless range of the log that holds every entry dated in it; what bounds the range
   other than its owner's clock, `bounds` says.
3. Exports form a chain: each names the one before, as the exporter's own log states it, and the log's own
   stream is unbroken from there to the statement that this export was asked for.
4. Times in a log never run backwards but for the moments in which entries queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Final, cast

from cloister.core.clock import parse_time
from cloister.evidence.checks import Check, judged
from cloister.evidence.custody.bundle import asked_subject
from cloister.evidence.custody.record import ExportRecord, chains
from cloister.evidence.extract import log_origin, log_owner, log_stream
from cloister.evidence.predicates import (
    Access,
    AttestationVerdict,
    Export,
    JobClosed,
    JobOpened,
    Role,
    RoundAggregated,
    held_checkpoints,
)
from cloister.evidence.trust import Trust

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far the clocks of two parties may differ."""
QUEUE_TOLERANCE: Final = timedelta(minutes=1)
"""How far times in one log may run backwards: writers on one machine take the time before they queue."""


def check_order(record: ExportRecord, trust: Trust) -> Check:
    """Entries stand in their log's order; a chain's times never run backwards, a log's hardly."""
    problems: list[str] = []
    exported_at = parse_time(record.bundle.body.exported_at)
    for group in record.statements.values():
        problems += [
            f"{after.place} stands after entry {before.entry.index}"
            for before, after in pairwise(group)
            if before.entry.index >= after.entry.index
        ]
        latest = None
        for one in group:
            moment = parse_time(one.predicate.recorded_at)
            if latest is not None and moment < latest - QUEUE_TOLERANCE:
                problems.append(f"{one.place} is dated before entries that the log holds before it")
            latest = moment if latest is None else max(latest, moment)
        if latest is not None and latest > exported_at + CLOCK_TOLERANCE:
            problems.append(f"{group[-1].origin}: the export is dated before what it holds")
        for chain in chains(group).values():
            problems += [
                f"{after.place} is dated before the statement it follows"
                for before, after in pairwise(chain)
                if before.predicate.recorded_at > after.predicate.recorded_at
            ]
    return judged("statement-order", problems, "in the order of the logs")


def check_chain(record: ExportRecord, trust: Trust) -> Check:
    """What one party stated about one job forms one chain, in which each statement names the one before."""
    problems: list[str] = []
    count = 0
    for origin, group in record.statements.items():
        for stream, chain in chains(group).items():
            count += 1
            first = chain[0].predicate
            if (first.sequence == 0) != (first.previous is None):
                problems.append(f"{chain[0].place}: only a chain's first statement names none before it")
            for before, after in pairwise(chain):
                if after.predicate.sequence != before.predicate.sequence + 1:
                    problems.append(
                        f"{after.place}: statement {before.predicate.sequence + 1} of {after.owner} "
                        f"about {stream} is missing"
                    )
                elif after.predicate.previous != before.entry.envelope.payload_sha256:
                    problems.append(f"{after.place}: it follows another statement than the one before it")
            closings = [one for one in chain if isinstance(one.predicate, JobClosed)]
            if any(one is not chain[-1] for one in closings):
                problems.append(f"{origin}: there are statements about {stream} after the closing one")
            if closings and stream == log_stream(origin):
                problems.append(f"{closings[0].place}: a log's own stream is never closed")
    return judged("statement-chain", problems, f"{count} unbroken chains")


def check_completeness(record: ExportRecord, trust: Trust) -> Check:
    """Nothing of what was asked for is left out."""
    selection = record.bundle.body.selection
    if selection.job_id is not None:
        problems = [problem for origin in record.extracts for problem in _job_problems(record, origin)]
        owners = sorted(log_owner(origin)[1] for origin, group in record.statements.items() if group)
        if not owners:
            problems.append("no log holds a statement about the job")
        done = f"all that {', '.join(owners)} stated about the job, as each closing statement counts it"
        return judged("completeness", problems, f"{done}; {_others(record)}")
    problems = [problem for origin in record.extracts for problem in _span_problems(record, origin)]
    if cast(str, selection.end) > record.bundle.body.exported_at:
        problems.append("the export was made before the period had ended")
    shown = len(record.all) - len(record.selected)
    done = f"{len(record.selected)} entries, and {shown} beside them: a gapless range of each log"
    return judged("completeness", problems, f"{done}; {_others(record)}")


def absent_logs(record: ExportRecord) -> tuple[str, ...]:
    """The logs of parties that a job in the export names, and that are not in it."""
    named: set[str] = set()
    for one in record.selected:
        if isinstance(one.predicate, JobOpened):
            named.update(log_origin(Role.SITE, site) for site in one.predicate.sites)
        elif isinstance(one.predicate, AttestationVerdict):
            named.add(log_origin(Role.SITE, one.predicate.site))
        named.update(held.origin for held in held_checkpoints(one.predicate))
    return tuple(sorted(named - record.extracts.keys()))


def unopened_jobs(record: ExportRecord) -> tuple[str, ...]:
    """The jobs in the export about which no statement here says which parties take part."""
    own = {log_stream(origin) for origin in record.extracts}
    opened = {one.predicate.job_id for one in record.selected if isinstance(one.predicate, JobOpened)}
    return tuple(sorted({one.predicate.job_id for one in record.selected} - own - opened))


def _others(record: ExportRecord) -> str:
    absent, unopened = absent_logs(record), unopened_jobs(record)
    told = [f"not here, though named in it: {', '.join(absent)}"] if absent else []
    if unopened:
        told.append(f"which parties took part isn't said here for {len(unopened)} jobs")
    return "; ".join(told) or "no party that it names is left out"


def _job_problems(record: ExportRecord, origin: str) -> Iterator[str]:
    group = record.statements[origin]
    if record.bundle.body.logs[origin].span is not None:
        yield f"{origin}: a range of indices doesn't belong into the export of a job"
    if any(one.predicate.job_id != record.bundle.body.selection.job_id for one in group):
        yield f"{origin}: it gave a statement of another job"
    if not group:
        if origin != record.exporter_origin:
            yield f"{origin}: a log without a statement about the job"
        elif _took_part(record, *log_owner(origin)):
            yield f"{origin}: its owner took part in the job, and nothing that it stated about it is here"
        return
    if group[0].predicate.sequence != 0:
        yield f"{origin}: the first statement about the job is missing"
    last = group[-1].predicate
    if not isinstance(last, JobClosed):
        yield f"{origin}: the job isn't closed for its party, so nothing shows where its statements end"
    elif last.statements != len(group):
        yield f"{origin}: {last.statements} statements were made about the job, and {len(group)} are here"


def _took_part(record: ExportRecord, role: Role, party: str) -> bool:
    """Whether what others stated about the job shows that a party has stated something, too.

    No site states anything about a job that no hub opened, and no update is used that a site didn't release.
    """
    if role is Role.HUB:
        return any(record.statements.values())
    return any(
        isinstance(one.predicate, RoundAggregated) and party in one.predicate.updates
        for one in record.selected
    )


def _span_problems(record: ExportRecord, origin: str) -> Iterator[str]:
    selection, log = record.bundle.body.selection, record.bundle.body.logs[origin]
    start, end = cast(str, selection.start), cast(str, selection.end)
    size = record.extracts[origin].checkpoint.size
    group = record.statements[origin]
    if log.span is None or not log.span.start <= log.span.end <= size:
        yield f"{origin}: it doesn't say which range of the log lies in the period"
        return
    indices = [one.entry.index for one in group]
    first = min(max(log.span.start - 1, 0), indices[0]) if indices else max(log.span.start - 1, 0)
    stop = min(log.span.end + 1, size)
    stop = max(stop, indices[-1] + 1) if indices else stop
    if indices != list(range(first, first + len(indices))) or len(indices) != stop - first:
        missing = sorted(set(range(first, min(stop, first + len(indices) + 1))) - set(indices))
        where = f"entry {missing[0]}" if missing else "an entry"
        yield f"{origin}: {where} is missing from the range {first} to {stop - 1}, or one too many is there"
        return
    for one in group:
        when = one.predicate.recorded_at
        if one.entry.index < log.span.start and when >= start:
            yield f"{one.place}: it is not before the period, and isn't told to be of it"
        if one.entry.index >= log.span.end and when < end:
            yield f"{one.place}: it is not after the period, and isn't told to be of it"


def check_custody(record: ExportRecord, trust: Trust) -> Check:
    """Each log shows its own stream from the export before to this one being asked for, without a break."""
    problems: list[str] = []
    for origin, log in record.bundle.body.logs.items():
        problems += _own_problems(record, origin)
        exports = [one for one in record.statements[origin] if isinstance(one.predicate, Export)]
        before = record.own[origin][0] if log.previous is not None and record.own[origin] else None
        problems += [
            f"{one.place}: an export is stated outside of the log's own stream"
            for one in exports
            if one.predicate.job_id != log_stream(origin)
        ]
        problems += [
            f"{after.place}: it states another predecessor than the export stated before it"
            for earlier, after in pairwise(exports)
            if cast(Export, after.predicate).previous_export_sha256
            != cast(Export, earlier.predicate).bundle_sha256
        ]
        newer = exports[-1].entry.index if exports else -1
        if newer > (before.entry.index if before is not None else -1):
            problems.append(f"{origin}: a later export than the one named as the one before is stated")
    named = sum(log.previous is not None for log in record.bundle.body.logs.values())
    first = len(record.extracts) - named
    told = [f"{named} logs name the export made before"] if named else []
    told += [f"{first} logs say that this is their first"] if first else []
    return judged("custody", problems, f"{', '.join(told)}; no export in between is stated")


def _own_problems(record: ExportRecord, origin: str) -> Iterator[str]:
    own, previous = record.own[origin], record.bundle.body.logs[origin].previous
    stream, asked = log_stream(origin), asked_subject(record.bundle.body.export_id)
    if not own:
        yield f"{origin}: it doesn't state that this export was asked for"
        return
    if any(one.predicate.job_id != stream for one in own):
        yield f"{origin}: something else is shown as the log's own stream"
    first, last = own[0], own[-1]
    if previous is None:
        if first.predicate.sequence != 0:
            yield f"{origin}: it is said to be the first, and the log's own stream isn't shown from the start"
    elif not isinstance(first.predicate, Export) or first.predicate.bundle_sha256 != previous:
        yield f"{origin}: the log doesn't state the export named as the one before"
    for before, after in pairwise(own):
        if after.entry.index <= before.entry.index:
            yield f"{after.place} stands after entry {before.entry.index}"
        if after.predicate.sequence != before.predicate.sequence + 1:
            yield f"{origin}: statement {before.predicate.sequence + 1} of its own stream is missing"
        elif after.predicate.previous != before.entry.envelope.payload_sha256:
            yield f"{after.place}: it follows another statement than the one before it"
    yield from (
        f"{one.place}: another export than the one named as the one before was made"
        for one in own[previous is not None :]
        if isinstance(one.predicate, Export)
    )
    if not (isinstance(last.predicate, Access) and asked in last.statement.subjects):
        yield f"{origin}: its own stream doesn't end in the statement that this export was asked for"
    known = {one.entry.index: one.entry.envelope.payload_sha256 for one in own}
    yield from (
        f"{one.place}: it is of the log's own stream, and isn't shown there"
        for one in record.statements[origin]
        if one.predicate.job_id == stream
        and first.entry.index <= one.entry.index <= last.entry.index
        and known.get(one.entry.index) != one.entry.envelope.payload_sha256
    )
