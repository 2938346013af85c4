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
        artifact: a file's bytes, or the folder of a log's tiles.
        trust: the pinned keys.
        demands: what has to hold besides the artifact's own checks.
        registry: gives the checks of rooms above, asked for only where the artifact is a receipt.
        kind: what it has to be; by default what its content says.

    Returns:
        The verdict. It never raises for a bad artifact; one of no known kind fails the check
        ``artifact-kind``.

    Raises:
        DemandError: ``evidence.demand_foreign``.
    """
    found = kind or find_kind(artifact)
    if found is None or isinstance(artifact, Path) != (found is ArtifactKind.LOG):
        what = "a folder without a checkpoint in it" if isinstance(artifact, Path) else "this file"
        known = ", ".join(ArtifactKind) if found is None else found
        return ArtifactVerdict(found, (failed("artifact-kind", f"{what} is none of: {known}"),))
    demands.refuse_foreign(found)
    if found is ArtifactKind.RECEIPT:
        from cloister.evidence.artifacts.receipts import verify_receipt

        return verify_receipt(_bytes(artifact), trust, demands, registry())
    if found is ArtifactKind.EXPORT:
        from cloister.evidence.artifacts.exports import verify_export

        return verify_export(_bytes(artifact), trust, demands)
    from cloister.evidence.artifacts.checkpoints import verify_checkpoint_note

    return verify_checkpoint_note(_bytes(artifact), trust, demands)


def _bytes(artifact: bytes | Path) -> bytes:
    assert isinstance(artifact, bytes)
    return artifact
