"""What an artifact is, found by how it begins.

A wrong guess can't do harm: whatever it is taken for, it then has to be exactly that.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Final


class ArtifactKind(StrEnum):
    """The kinds of evidence that can be verified on their own."""

    RECEIPT = "receipt"
    CHECKPOINT = "checkpoint"
    LOG = "log"
    SEGMENT = "segment"
    EXPORT = "export"


_BEGINNINGS: Final = (
    (ArtifactKind.RECEIPT, re.compile(rb'\s*\{\s*"body"\s*:\s*\{\s*"checkpoints"\s*:')),
    (ArtifactKind.EXPORT, re.compile(rb'\s*\{\s*"body"\s*:\s*\{\s*"claims_not_made"\s*:')),
    (ArtifactKind.SEGMENT, re.compile(rb'\{"at":"[^"]*","kind":"open","n":1,')),
    (ArtifactKind.CHECKPOINT, re.compile(rb"[^\s]+\n[0-9]+\n[A-Za-z0-9+/=]+\n")),
)


def find_kind(artifact: bytes | Path) -> ArtifactKind | None:
    """Tell what an artifact is.

    Args:
        artifact: how a file begins, 4 KiB or all of it, or a folder.

    Returns:
        Its kind, or None if it begins like none of them.
    """
    if isinstance(artifact, Path):
        if (artifact / "checkpoint").is_file():
            return ArtifactKind.LOG
        return ArtifactKind.SEGMENT if any(artifact.glob("*.jsonl")) else None
    for kind, beginning in _BEGINNINGS:
        if beginning.match(artifact):
            return kind
    return None
