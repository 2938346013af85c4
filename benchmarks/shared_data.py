"""Where the sections find the real records they train on: they do not travel with the project."""

from __future__ import annotations

import os
from pathlib import Path


class AbsentError(Exception):
    """What a section needs isn't on this machine; the message names it."""


def data_folder(name: str) -> Path:
    """Return a data set's folder in ``CLOISTER_DATA``, else ``../shared/data``."""
    project = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("CLOISTER_DATA") or project.parent / "shared" / "data") / name
    if not folder.is_dir():
        raise AbsentError(f"{name} is not on this machine (set CLOISTER_DATA)")
    return folder
