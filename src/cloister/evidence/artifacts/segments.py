"""Segments of a local audit stream: one file, or all of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands
from cloister.evidence.checks import Check, Outcome, failed, not_run, passed
from cloister.evidence.predicates.base import Role
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, parse_held
from cloister.evidence.segments.directory import verify_directory
from cloister.evidence.segments.verify import SegmentVerdict, verify_segment
from cloister.evidence.trust import Trust

SIGNERS: Final = (Role.HUB, Role.SITE, Role.ENCLAVE)
"""Who runs processes that write segments."""


def verify_segments(source: Path | bytes, trust: Trust, demands: Demands) -> ArtifactVerdict:
    """Judge a segment, or all segments of a folder.

    Args:
        source: the segment's file, whose name counts too, or its bytes; or the folder.
        trust: the pinned keys; hubs, sites and enclaves sign segments.
        demands: the checkpoints held outside the writing process, and who opens the segments' secrets.

    Returns:
        The verdict. A folder's checks are those of all its segments, and ``stream-complete``.

    Raises:
        InputError: a file can't be opened.
    """
    signers = {
        trust.key(role, party): f"{role.value} {party}" for role in SIGNERS for party in trust.parties(role)
    }
    try:
        held = [one for data in demands.held for one in parse_held(data)]
    except CloisterError as error:
        return ArtifactVerdict(ArtifactKind.SEGMENT, (failed("segment-held", error.message),))
    outside = held if demands.held else None
    if isinstance(source, Path) and source.is_dir():
        return _folder(source, signers, outside, demands)
    verdict = verify_segment(source, keys=list(signers), held=outside, secrets=demands.segment_secrets)
    return ArtifactVerdict(ArtifactKind.SEGMENT, verdict.checks, _facts([verdict], signers))


def _folder(
    folder: Path,
    signers: Mapping[PublicKey, str],
    held: list[SegmentCheckpoint] | None,
    demands: Demands,
) -> ArtifactVerdict:
    stream = verify_directory(folder, keys=list(signers), held=held, secrets=demands.segment_secrets)
    ids = dict.fromkeys(check.id for one in stream.segments.values() for check in one.checks)
    checks = [_over_all(check_id, stream.segments) for check_id in ids]
    return ArtifactVerdict(
        ArtifactKind.SEGMENT, (*checks, stream.complete), _facts(list(stream.segments.values()), signers)
    )


def _over_all(check_id: str, segments: Mapping[str, SegmentVerdict]) -> Check:
    """One check over every segment that makes it: what any of them failed, else what any didn't run."""
    made = [(name, check) for name, one in segments.items() for check in one.checks if check.id == check_id]
    for outcome, ended in ((Outcome.FAILED, failed), (Outcome.NOT_RUN, not_run)):
        found = [f"{name}: {check.detail}" for name, check in made if check.outcome is outcome]
        if found:
            rest = f"; and {len(found) - 3} more" if len(found) > 3 else ""
            return ended(check_id, "; ".join(found[:3]) + rest)
    return passed(check_id, made[0][1].detail if len(made) == 1 else f"in {len(made)} segments")


def _facts(segments: list[SegmentVerdict], signers: Mapping[PublicKey, str]) -> dict[str, str]:
    names = {key.key_id: name for key, name in signers.items()}
    headers = [one.header for one in segments if one.header is not None]
    return {
        "streams": ", ".join(sorted({one.stream for one in headers})),
        "signed by": ", ".join(sorted({names[one.key] for one in headers if one.key in names})),
        "segments": str(len(segments)),
        "events": str(sum(one.entries for one in segments)),
        "endings": ", ".join(sorted({one.ending.value for one in segments})),
    }
