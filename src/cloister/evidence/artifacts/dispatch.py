"""One door for every artifact. The code of a kind is loaded when one of it comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.evidence.artifacts.kinds import ArtifactKind, find_kind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands
from cloister.evidence.checks import failed

if TYPE_CHECKING:
    from cloister.evidence.checks import CheckRegistry
    from cloister.evidence.trust import Trust


def verify_artifact(
    artifact: bytes | Path,
    trust: Trust,
    demands: Demands,
    registry: Callable[[], CheckRegistry],
    *,
    kind: ArtifactKind | None = None,
) -> ArtifactVerdict:
    """Judge an artifact, whatever it is.

    Args:
        artifact: a file's bytes; or a path, for the folder of a log's tiles, a segment, a folder of segments.
        trust: the pinned keys.
        demands: what has to hold besides the artifact's own checks.
        registry: gives the checks of rooms above, asked for only where the artifact is a receipt.
        kind: what it has to be; by default what its content says, which a path to a file doesn't show.

    Returns:
        The verdict. It never raises for a bad artifact; one of no known kind fails the check
        ``artifact-kind``.

    Raises:
        DemandError: ``evidence.demand_foreign``.
        InputError: a file that a path leads to can't be opened.
    """
    found = kind or find_kind(artifact)
    if found is None:
        return _unfit(None, f"this is none of: {', '.join(ArtifactKind)}")
    demands.refuse_foreign(found)
    if found is ArtifactKind.SEGMENT:
        from cloister.evidence.artifacts.segments import verify_segments

        return verify_segments(artifact, trust, demands)
    if found is ArtifactKind.LOG:
        if isinstance(artifact, bytes):
            return _unfit(found, "a log is a folder of tiles, and this is a file")
        from cloister.evidence.artifacts.logs import verify_log

        return verify_log(artifact, trust, demands)
    if isinstance(artifact, Path):
        return _unfit(found, f"a {found.value} is a file, and this is a folder")
    if found is ArtifactKind.RECEIPT:
        from cloister.evidence.artifacts.receipts import verify_receipt

        return verify_receipt(artifact, trust, demands, registry())
    if found is ArtifactKind.EXPORT:
        from cloister.evidence.artifacts.exports import verify_export

        return verify_export(artifact, trust, demands)
    from cloister.evidence.artifacts.checkpoints import verify_checkpoint_note

    return verify_checkpoint_note(artifact, trust, demands)


def _unfit(kind: ArtifactKind | None, reason: str) -> ArtifactVerdict:
    return ArtifactVerdict(kind, (failed("artifact-kind", reason),))
