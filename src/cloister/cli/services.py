"""What commands that serve have in common: how they are asked to stop, and whose log they write."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.evidence import Role
    from cloister.evidence.writer import StatementWriter


@contextmanager
def asked_to_stop(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM handled so, as long as this is open."""
    before = {one: signal.signal(one, handler) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, earlier in before.items():
            signal.signal(one, earlier)


@contextmanager
def own_log(folder: Path, role: Role, name: str) -> Iterator[StatementWriter]:
    """A log that belongs to no job, in a folder of its own; it and its key are made on first use.

    Args:
        folder: where it is; only its owner may enter it.
        role: in which role its owner states things.
        name: the owner's.
    """
    from cloister.core.clock import system_clock
    from cloister.core.keys import open_key_store
    from cloister.core.keys.folder import private_folder
    from cloister.core.settings import load_settings
    from cloister.evidence.extract import log_stream
    from cloister.evidence.writer import StatementWriter
    from cloister.workflow.party import LogPlaces, Party

    settings = load_settings({})
    store = open_key_store(settings, private_folder(folder) / "keys", owner=f"{role.value}/{name}")
    signer = store.load(role.value) if role.value in store.names() else store.generate(role.value)
    places = LogPlaces(outside=settings.held_checkpoints)
    party = Party(name, role.value, signer, folder, places)
    with party.open_log_to_show() as log:
        yield StatementWriter(log, signer, name, log_stream(party.origin), system_clock)
