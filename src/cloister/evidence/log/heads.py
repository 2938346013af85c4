"""The heads of a log that this process has signed or seen: a database that is set back under it is refused.

Rules kept here:

1. A head is taken only if one of the log's keys signed it.
2. It must continue every head that was signed or seen before.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sqlalchemy import Connection

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint
from cloister.evidence.errors import LogError
from cloister.evidence.log.store import FORMAT, log_mismatch, read_head
from cloister.evidence.log.stored_tree import StoredTree, blamed_on
from cloister.evidence.witness.rules import rolled_back


class KnownHeads:
    """The newest head of one log that is known here. It may be used from several threads.

    Args:
        log: the log's place, as messages call it.
        origin: its name.
        keys: the keys that may have signed a head of it.
    """

    def __init__(self, log: str, origin: str, keys: Sequence[PublicKey]) -> None:
        self._log = log
        self._origin = origin
        self._keys = tuple(keys)
        self._verified: tuple[str, Checkpoint] | None = None
        self._newest: Checkpoint | None = None
        self._advancing = threading.Lock()

    def read(self, connection: Connection) -> Checkpoint:
        """The head that the database shows, verified.

        Raises:
            LogError: ``evidence.log_mismatch`` if it isn't signed by the log's key;
                ``evidence.log_rolled_back`` if it doesn't continue what was known.
        """
        # Taken before the database is asked: what it shows then can't be older, whatever others append.
        newest = self._newest
        row = read_head(connection)
        if row is None or row[0] != FORMAT:
            raise log_mismatch(self._log, "it has no head of a known format")
        known = self._verified
        if known is not None and known[0] == row[1]:
            head = known[1]
        else:
            with blamed_on(self._log, "its head is not this log's, or not signed by its key"):
                head = parse_checkpoint(row[1])
                self._verify(head)
            self._verified = row[1], head
        if newest is None or (head.size, head.root) != (newest.size, newest.root):
            if newest is not None:
                self._require_continuation(connection, newest, head)
            self.advance(head)
        return head

    def advance(self, head: Checkpoint) -> None:
        """Remember a head as the newest, unless a newer one is known by now."""
        with self._advancing:
            if self._newest is None or head.size > self._newest.size:
                self._newest = head

    def _require_continuation(self, connection: Connection, newest: Checkpoint, head: Checkpoint) -> None:
        if head.size < newest.size:
            raise rolled_back(self._origin, head.size, newest.size)
        if StoredTree(connection, self._log).root_at(newest.size, head) != newest.root:
            raise LogError(
                "evidence.log_rolled_back",
                f"The first {newest.size} entries of {self._origin} are not those that this process has "
                "signed or seen.",
                "The database was replaced while it was open. Stop what writes to it, and restore the newest "
                "copy.",
            )

    def _verify(self, head: Checkpoint) -> None:
        for key in self._keys[:-1]:
            try:
                return verify_checkpoint(head, self._origin, key)
            except CloisterError:
                continue
        return verify_checkpoint(head, self._origin, self._keys[-1])
