"""Whatever a party hands over as evidence, judged by one function: receipt, checkpoint, log, segment, export.

Rules kept here:

1. Pure: bytes, pinned keys and demands go in, a verdict comes out; no network, no database, no clock. Only
   the files of a log's tiles are read on the way, since nobody holds a whole log in memory.
2. What an artifact is follows from its content, not from its name. What is none of these is refused.
3. A verdict always lists its checks; one that couldn't be made counts as failed.
4. A demand that means nothing for an artifact is refused and not dropped.
"""

from cloister.evidence.artifacts.dispatch import verify_artifact
from cloister.evidence.artifacts.kinds import ArtifactKind, find_kind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands, OwnersWord, Simulation

__all__ = [
    "ArtifactKind",
    "ArtifactVerdict",
    "Demands",
    "OwnersWord",
    "Simulation",
    "find_kind",
    "verify_artifact",
]
