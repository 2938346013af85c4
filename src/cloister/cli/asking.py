"""Who asks something of a workspace's parties, and the workspace they ask about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.evidence.custody.access import Actor
    from cloister.workflow.workspace import Workspace


def acting(name: str | None, role: str, purpose: str) -> Actor:
    """Who asks: the account this process runs under, and what they call themselves.

    Args:
        name: their own name for themselves, if any.
        role: in what role.
        purpose: why.

    Returns:
        What the log will state.
    """
    from cloister.evidence.custody.access import Actor
    from cloister.workflow.audit import operating_system_user

    account = operating_system_user()
    return Actor(account if name is None else f"{account} as {name}", role, purpose)


@contextmanager
def existing_workspace(folder: Path | None) -> Iterator[Workspace]:
    """Open the workspace that is asked about; unlike for a run, none is made.

    Args:
        folder: what was typed; None for the settings' one.

    Raises:
        InputError: there is no workspace, or the settings are wrong.
        StorageError: it can't be opened, or another process works in it.
    """
    from cloister.core.settings import load_settings
    from cloister.workflow.audit import require_workspace
    from cloister.workflow.workspace import open_workspace

    settings = load_settings({"workspace": folder})
    with open_workspace(require_workspace(settings.workspace), settings=settings) as opened:
        yield opened
