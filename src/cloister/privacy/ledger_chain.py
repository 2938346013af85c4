"""The chain of a ledger's entries: what is new in it is checked, entry by entry, before it counts."""

from __future__ import annotations

from sqlalchemy import Connection

from cloister.privacy.ledger_entries import LedgerState, entry_hash, read_entry
from cloister.privacy.ledger_file import damaged
from cloister.privacy.ledger_store import LedgerStore


def catch_up(state: LedgerState, store: LedgerStore, connection: Connection) -> None:
    """Take in what was written since.

    Args:
        state: What is known of the ledger; brought up to date.
        store: Its entries.
        connection: A transaction of the store.

    Raises:
        LedgerError: ``ledger.corrupt`` where the chain is broken, or lost what was known of it;
            ``ledger.newer_version``.
    """
    name = store.name
    if not state.length and not store.has_table(connection):
        raise damaged(name)
    rows = store.rows(connection, max(0, state.length - 1))
    if state.length:
        # The entry known last is read again: a shortened or rewritten ledger shows here.
        if not rows or rows[0][0] != state.length - 1 or rows[0][3] != state.head:
            raise damaged(name)
        rows = rows[1:]
    for sequence, previous, body, digest in rows:
        # The header is read before the chain is judged: a newer version may chain in another way.
        recorded = read_entry(sequence, body)
        if sequence != state.length or previous != state.head:
            raise damaged(name)
        if digest != entry_hash(sequence, previous, body):
            raise damaged(name)
        state.apply(recorded, digest)
    if not state.length:
        raise damaged(name)
