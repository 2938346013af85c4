"""Checks on what parties held of each other's logs, and on what witnesses saw of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.core.parallel import in_parallel
from cloister.evidence.checkpoint import verify_checkpoint, verify_cosignature
from cloister.evidence.checks import Check, judged
from cloister.evidence.context import ReceiptContext
from cloister.evidence.extract import log_origin, log_owner
from cloister.evidence.predicates import (
    Holding,
    Predicate,
    Role,
    RoundAggregated,
    UpdateReleased,
    held_checkpoints,
)
from cloister.evidence.predicates.log import checkpoint_held
from cloister.evidence.record import JobRecord
from cloister.evidence.witness.links import HeldLog, held_in, verify_link


def check_log_consistency(context: ReceiptContext) -> Check:
    """Every log here begins with what others held of it, and in each round hub and sites held the newest.

    In a round the hub must have held each site's log with that round's released update in it, and each of
    those sites the hub's log with the round before in it. Each such checkpoint, and each head of the hub's
    log in which a site says it was shown the hub's ending, is proven to be the past of the log head in the
    receipt; and each note that is held is signed by the log's owner, so that it convicts whoever later shows
    another past. Two sites that were shown different logs of the hub can't both have a proof.
    """
    record = context.record
    wrong: list[str] = []
    proven: set[HeldLog] = set()
    for section in context.body.consistency:
        try:
            link = section.link()
            checkpoint = record.checkpoints.get(link.origin)
            if checkpoint is None:
                wrong.append(f"a proof is of {link.origin}, whose head isn't here")
                continue
            verify_link(link, checkpoint)
        except CloisterError as error:
            wrong.append(f"{section.origin} at {section.size}: {error.message}")
            continue
        proven.add((link.origin, link.size, link.root.hex()))
    stated = {held: one.owner for one in record.logged for held in held_in(one.predicate)}
    problems = [
        f"{party} held {held[0]} with {held[1]} entries, which isn't proven to be the past of the log here"
        for held, party in sorted(stated.items())
        if held not in proven
    ]
    problems += [
        f"a proof is of {origin} with {size} entries, which nobody held"
        for origin, size, _ in sorted(proven - stated.keys())
    ]
    problems += [*_unseen(record), *_unsigned(context), *wrong]
    return judged(
        "log-consistency", problems, f"{len(proven)} checkpoints held by others lead to the logs here"
    )


def _unsigned(context: ReceiptContext) -> list[str]:
    """The notes held that the logs' owners didn't sign; one that several hold is looked at once."""
    holders: dict[str, Predicate] = {}
    for one in context.record.logged:
        for part in held_checkpoints(one.predicate):
            holders.setdefault(part.note, one.predicate)

    def problem(note: str) -> str | None:
        one, checkpoint = holders[note], checkpoint_held(note)
        try:
            keys = context.trust.keys(*log_owner(checkpoint.origin), at=parse_time(one.recorded_at))
            verify_checkpoint(checkpoint, checkpoint.origin, *keys)
        except CloisterError as error:
            size = checkpoint.size
            return f"{one.party} held a note of {checkpoint.origin} with {size} entries: {error.message}"
        return None

    return [found for found in in_parallel(problem, list(holders)) if found]


def _unseen(record: JobRecord) -> Iterator[str]:
    """Where, in a round, somebody didn't hold what they were to hold."""
    hub_log = log_origin(Role.HUB, record.issuer)
    held = {
        (one.log, one.predicate.round, part.origin): part.size
        for one in record.logged
        if isinstance(one.predicate, Holding)
        for part in held_checkpoints(one.predicate)
    }
    aggregated, released = _aggregated(record), _released(record)
    for number, (_, sites) in sorted(aggregated.items()):
        before = aggregated[number - 1][0] if number - 1 in aggregated else -1
        for site in sites:
            site_log = log_origin(Role.SITE, site)
            of_site = held.get((hub_log, number, site_log), 0)
            of_hub = held.get((site_log, number, hub_log), 0)
            if of_site <= released.get((site, number), 0):
                yield f"round {number}: the hub held no log of {site} with that round's update in it"
            if of_hub <= max(before, 0):
                yield f"round {number}: {site} held no log of the hub with the round before in it"


def _aggregated(record: JobRecord) -> Mapping[int, tuple[int, tuple[str, ...]]]:
    """By round, where the hub's log has its aggregate, and the sites that went into it."""
    return {
        one.predicate.round: (one.entry.index, tuple(sorted(one.predicate.updates)))
        for one in record.logged
        if isinstance(one.predicate, RoundAggregated) and one.owner == record.issuer and one.role is Role.HUB
    }


def _released(record: JobRecord) -> Mapping[tuple[str, int], int]:
    """By site and round, where the site's log has the update it released."""
    return {
        (one.owner, one.predicate.round): one.entry.index
        for one in record.logged
        if isinstance(one.predicate, UpdateReleased) and one.role is Role.SITE
    }


def check_witnesses(context: ReceiptContext, wanted: int) -> Check:
    """At least so many of the pinned witnesses cosigned each log's head; a cosignature of theirs must hold.

    Args:
        context: the receipt.
        wanted: k, the number of witnesses that the verifying party demands; n are those it pinned.
    """
    names = context.trust.parties(Role.WITNESS)
    problems: list[str] = []
    fewest = len(names)
    if wanted > len(names):
        problems.append(f"{wanted} witnesses are wanted, {len(names)} are pinned")
    for origin, checkpoint in sorted(context.record.checkpoints.items()):
        seen = 0
        for name in names:
            try:
                verify_cosignature(checkpoint, name, context.trust.key(Role.WITNESS, name))
            except CloisterError as error:
                if error.code != "evidence.cosignature_missing":
                    problems.append(f"{origin}: cosignature of {name}: {error.message}")
            else:
                seen += 1
        fewest = min(fewest, seen)
        if seen < wanted:
            problems.append(f"{origin}: {seen} of the pinned witnesses saw this head, {wanted} are wanted")
    return judged(
        "witnesses", problems, f"{wanted} wanted; each head was seen by {fewest} or more of {len(names)}"
    )
