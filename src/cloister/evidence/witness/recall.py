"""What a party's own log says it holds of other logs: the floor under its book of checkpoints.

A book is a folder of small files. Whoever empties it would let another party's log begin a new past, if the
holder's own log, in which each checkpoint taken was stated with its note, were not asked. Rules kept here:

1. A book holds at least the newest checkpoint of each log that its holder has stated; what is missing is
   taken from the statement, and what contradicts it is an error.
2. The log is read from its end, and no further back than to what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint
from cloister.evidence.predicates.log import held_checkpoints, may_hold
from cloister.evidence.statement import open_statement
from cloister.evidence.witness.book import CheckpointBook

if TYPE_CHECKING:
    from cloister.evidence.log import LogReader

_BLOCK: Final = 512


def require_recalled(book: CheckpointBook, log: LogReader, origins: Iterable[str]) -> None:
    """Let a book hold at least what its holder's log says it holds.

    Args:
        book: the holder's.
        log: the holder's.
        origins: the names of the logs that are looked for.

    Raises:
        EvidenceError: ``evidence.log_inconsistent`` if the book contradicts the log;
            ``evidence.log_mismatch`` if the log is broken.
        StorageError: what is missing can't be written.
    """
    for stated in newest_stated(log, origins):
        book.bring_back(stated)


def newest_stated(log: LogReader, origins: Iterable[str]) -> Iterator[Checkpoint]:
    """The newest checkpoint that a log's owner stated to hold of each of these logs, where there is one.

    Args:
        log: the owner's log.
        origins: the names of the other logs.

    Raises:
        EvidenceError: ``evidence.log_mismatch`` if the log is broken.
    """
    wanted, end = set(origins), log.size
    while wanted and end > 0:
        start = max(end - _BLOCK, 0)
        for entry in reversed(list(log.entries(start, end))):
            if not may_hold(entry.envelope.payload):
                continue
            for one in held_checkpoints(open_statement(entry.envelope).predicate):
                if one.origin in wanted:
                    wanted.discard(one.origin)
                    yield parse_checkpoint(one.note)
        end = start
