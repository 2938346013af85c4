"""Commands that read records, spend a budget or open data keys: the immune system is on while they do.

A job has it on by itself, and the parties state what is noticed. These commands mostly have no party: what is
noticed is said on standard error. They make no folder for its state: without a workspace, or a keeper's
folder, nothing is kept.
"""

from __future__ import annotations

import os.path
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.cli.text import printable

if TYPE_CHECKING:
    from cloister.core.settings import Settings


@contextmanager
def watched(settings: Settings, folder: Path | None = None) -> Iterator[None]:
    """Have cloister's own functions watched while a command works.

    Args:
        settings: of this process.
        folder: where the state is kept, if it is there; None for the settings' workspace.

    Raises:
        ImmuneError: ``immune.setting_invalid`` for rules that can't be, before anything is done.
        InputError: they can't be read.
    """
    from cloister.workflow.immunity import immunity

    place = settings.workspace if folder is None else folder
    with immunity(settings, place if os.path.isdir(place) else None) as noticing:  # noqa: PTH112 - never raises
        try:
            yield
        finally:
            for one in noticing.noticed:
                what = one.function or "the immune system"
                said = f"cloister: noticed {one.incident_class} at {what}: {one.response}"
                print(printable(f"{said} (entry {one.event_id} of the immune audit)"), file=sys.stderr)
