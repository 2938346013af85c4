"""What to do with a log that was refused: how much of it is still good, and moving that to a new log.

Nothing here is called by the log itself: recovery is a person's decision, and what others hold decides it.

Rules kept here:

1. Only entries that lead to a checkpoint somebody else holds are good, whatever the log's tree and head say.
2. The old log is read, never changed. The new one is complete up to the checkpoint, or it is refused.
3. A statement is put where it says that it belongs, wherever it lay.
4. Entries beyond the newest good checkpoint are lost with it: whoever holds a newer one will see a roll-back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from cloister.core.database import database_name
from cloister.core.keys import Signer
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.log.group import PendingEntry, Ticket
from cloister.evidence.log.log import EvidenceLog
from cloister.evidence.log.places import stated_place
from cloister.evidence.log.store import ROWS_AT_ONCE, Store, StoredEntry, log_mismatch, read_range
from cloister.evidence.merkle import CompactRange, leaf_hash


def recoverable_size(place: Path | str, *, origin: str, checkpoints: Sequence[Checkpoint]) -> int:
    """Find how far a log's entries are good, whatever became of its tree and head.

    Args:
        place: the log's SQLite file, or the URL of its PostgreSQL database.
        origin: the log's name.
        checkpoints: heads of the log that others hold, their signatures verified by the caller.

    Returns:
        The size of the largest of them that the entries lead to; 0 if there is none.

    Raises:
        LogError: ``evidence.log_missing``.
        StorageError: if the database can't be read at all.
    """
    held = {(one.size, one.root) for one in checkpoints if one.origin == origin}
    tree, good = CompactRange(), 0
    with closing(Store.open(place, origin, whole=False)) as store:
        for block in _blocks(store, max((size for size, _ in held), default=0)):
            for one in block:
                tree.append(one.leaf)
                if (tree.size, tree.root()) in held:
                    good = tree.size
    return good


def recover_log(
    place: Path | str, target: Path | str, *, checkpoint: Checkpoint, signer: Signer
) -> EvidenceLog:
    """Move the entries that lead to a checkpoint into a new log.

    Args:
        place: the old log.
        target: where the new one is begun: a file that is not there, or another PostgreSQL database.
        checkpoint: the newest head that others hold, its signature verified by the caller.
        signer: the party's key.

    Returns:
        The new log, of the checkpoint's size and root.

    Raises:
        LogError: ``evidence.log_mismatch`` if the old entries don't lead to the checkpoint;
            ``evidence.log_exists`` if the target is taken.
        StorageError: if either can't be read or written.
    """
    origin, name = checkpoint.origin, database_name(place)
    if recoverable_size(place, origin=origin, checkpoints=[checkpoint]) != checkpoint.size:
        raise log_mismatch(name, f"its entries don't lead to the checkpoint of size {checkpoint.size}")
    log = EvidenceLog.create(target, origin=origin, signer=signer)
    try:
        with closing(Store.open(place, origin, whole=False)) as store:
            for block in _blocks(store, checkpoint.size):
                ticket = Ticket(block)
                log.commit_tickets((ticket,))
                ticket.result()
        whole = log.verify().root == checkpoint.root
    except BaseException:
        log.close()
        raise
    if not whole:
        log.close()
        raise log_mismatch(name, "it changed while it was read")
    return log


def _blocks(store: Store, end: int) -> Iterator[list[PendingEntry]]:
    """The entries from the first on, until one is missing or ``end`` is reached."""
    start = 0
    while start < end:
        try:
            with store.snapshot() as connection:
                found = read_range(connection, start, min(start + ROWS_AT_ONCE, end))
        except LogError:
            return
        block = []
        for index, one in enumerate(found, start):
            if one.index != index:
                break
            block.append(PendingEntry(one.data, leaf_hash(one.data), *_place(one)))
        yield block
        start += len(block)
        if len(block) < ROWS_AT_ONCE:
            return


def _place(stored: StoredEntry) -> tuple[str, int]:
    try:
        stated = stated_place(stored.envelope)
    except EvidenceError:
        stated = None
    return stated or (stored.stream, stored.position)
