"""Checks on an audit export: its order, its chains, and that nothing of what was asked for is left out.

Rules kept here:

1. A job's chain runs from its first statement to the closing one that counts them.
2. A span of time is a gapless range of the log, with a neighbour outside the span on either side.
3. Exports form a chain: each names the one before, as the exporter's own log states it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Final, cast

from cloister.core.clock import parse_time
from cloister.evidence.checks import Check, judged
from cloister.evidence.custody.record import ExportRecord, chains
from cloister.evidence.extract import log_owner, log_stream
from cloister.evidence.predicates import Export, JobClosed
from cloister.evidence.trust import Trust

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
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
            if latest is not None and moment < latest - CLOCK_TOLERANCE:
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
        return judged("completeness", problems, done)
    problems = [problem for origin in record.extracts for problem in _span_problems(record, origin)]
    if cast(str, selection.end) > record.bundle.body.exported_at:
        problems.append("the export was made before the period had ended")
    done = (
        f"{len(record.selected)} entries, a gapless range of each log between neighbours outside the period"
    )
    return judged("completeness", problems, done)


def _job_problems(record: ExportRecord, origin: str) -> Iterator[str]:
    group = record.statements[origin]
    if record.bundle.body.logs[origin].span is not None:
        yield f"{origin}: a range of indices doesn't belong into the export of a job"
    if any(one.predicate.job_id != record.bundle.body.selection.job_id for one in group):
        yield f"{origin}: it gave a statement of another job"
    if not group:
        if origin != record.exporter_origin:
            yield f"{origin}: a log without a statement about the job"
        return
    if group[0].predicate.sequence != 0:
        yield f"{origin}: the first statement about the job is missing"
    last = group[-1].predicate
    if not isinstance(last, JobClosed):
        yield f"{origin}: the job isn't closed for its party, so nothing shows where its statements end"
    elif last.statements != len(group):
        yield f"{origin}: {last.statements} statements were made about the job, and {len(group)} are here"


def _span_problems(record: ExportRecord, origin: str) -> Iterator[str]:
    selection, log = record.bundle.body.selection, record.bundle.body.logs[origin]
    start, end = cast(str, selection.start), cast(str, selection.end)
    size = record.extracts[origin].checkpoint.size
    group = record.statements[origin]
    if log.span is None or not log.span.start <= log.span.end <= size:
        yield f"{origin}: it doesn't say which range of the log lies in the period"
        return
    first, stop = max(log.span.start - 1, 0), min(log.span.end + 1, size)
    indices = [one.entry.index for one in group]
    if indices != list(range(first, first + len(indices))) or len(indices) != stop - first:
        missing = sorted(set(range(first, min(stop, first + len(indices) + 1))) - set(indices))
        where = f"entry {missing[0]}" if missing else "an entry"
        yield f"{origin}: {where} is missing from the range {first} to {stop - 1}, or one too many is there"
        return
    for one in group:
        when = one.predicate.recorded_at
        if one.entry.index < log.span.start and when >= start:
            yield f"{one.place}: it is not before the period, so there may be more of it before"
        if one.entry.index >= log.span.end and when < end:
            yield f"{one.place}: it is not after the period, so there may be more of it after"


def check_custody(record: ExportRecord, trust: Trust) -> Check:
    """Each log names the export made from it before, as it states it; stated exports form a chain."""
    problems: list[str] = []
    for origin, log in record.bundle.body.logs.items():
        exports = [one for one in record.statements[origin] if isinstance(one.predicate, Export)]
        before = record.previous.get(origin)
        stated = before.predicate if before is not None else None
        if log.previous is not None and (
            not isinstance(stated, Export) or stated.bundle_sha256 != log.previous.sha256
        ):
            problems.append(f"{origin}: the log doesn't state the export named as the one before")
        problems += [
            f"{one.place}: an export is stated outside of the log's own stream"
            for one in (*exports, *([before] if before is not None else []))
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
    named = len(record.previous)
    first = len(record.extracts) - named
    told = [f"{named} logs name the export made before"] if named else []
    told += [f"{first} logs say that this is their first"] if first else []
    return judged("custody", problems, ", ".join(told))
