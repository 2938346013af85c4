"""Segments of a local audit stream: one file, or all of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from cloister.core.errors import CloisterError
from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.artifacts.signers import Signers
from cloister.evidence.artifacts.verdict import ArtifactVerdict, Demands
from cloister.evidence.checks import Check, Outcome, failed, not_run, passed
from cloister.evidence.errors import DemandError
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, parse_held
from cloister.evidence.segments.directory import verify_directory
from cloister.evidence.segments.verdict import SegmentVerdict
from cloister.evidence.segments.verify import verify_segment
from cloister.evidence.trust import Trust


def verify_segments(source: Path | bytes, trust: Trust, demands: Demands) -> ArtifactVerdict:
    """Judge a segment, or all segments of a folder.

    Args:
        source: the segment's file, whose name counts too, or its bytes; or the folder.
        trust: the pinned keys; hubs, sites and enclaves sign segments.
        demands: the checkpoints held outside the writing process, of which there has to be one at least; who
            opens the segments' secrets; whose segments they are, and the chains of keys that aren't pinned.

    Returns:
        The verdict: a segment's checks, and ``segment-signer`` after ``segment-marks``. A folder's checks are
        those of all its segments, and ``stream-complete`` and ``stream-clock``.

    Raises:
        DemandError: ``evidence.demand_foreign`` if a party is demanded that writes no segments.
        InputError: a file can't be opened.
    """
    try:
        signers = Signers(trust, demands)
    except DemandError:
        raise
    except CloisterError as error:
        return ArtifactVerdict(ArtifactKind.SEGMENT, (failed("segment-signer", error.message),))
    try:
        found = [parse_held(data) for data in demands.held]
    except CloisterError as error:
        return ArtifactVerdict(ArtifactKind.SEGMENT, (failed("segment-held", error.message),))
    held = [one for file in found for one in file] or None
    unreadable = sum(one.unreadable for one in found)
    if isinstance(source, Path) and source.is_dir():
        checks, segments = _folder(source, signers, held, demands)
    else:
        verdict = verify_segment(source, keys=signers.keys, held=held, secrets=demands.segment_secrets)
        checks, segments = _with_signer(verdict, signers), {"": verdict}
    if unreadable:
        checks = tuple(_telling(one, f"{unreadable} held lines can't be read") for one in checks)
    return ArtifactVerdict(ArtifactKind.SEGMENT, checks, _facts(segments, signers))


def _folder(
    folder: Path, signers: Signers, held: list[SegmentCheckpoint] | None, demands: Demands
) -> tuple[tuple[Check, ...], Mapping[str, SegmentVerdict]]:
    stream = verify_directory(folder, keys=signers.keys, held=held, secrets=demands.segment_secrets)
    made = {name: _with_signer(one, signers) for name, one in stream.segments.items()}
    ids = dict.fromkeys(check.id for checks in made.values() for check in checks)
    return (*(_over_all(one, made) for one in ids), *stream.checks), stream.segments


def _with_signer(verdict: SegmentVerdict, signers: Signers) -> tuple[Check, ...]:
    return (*verdict.checks[:2], signers.check(verdict), *verdict.checks[2:])


def _telling(check: Check, more: str) -> Check:
    return replace(check, detail=f"{check.detail}; {more}") if check.id == "segment-held" else check


def _over_all(check_id: str, segments: Mapping[str, Iterable[Check]]) -> Check:
    """One check over every segment that makes it: what any of them failed, else what any didn't run."""
    made = [(name, check) for name, checks in segments.items() for check in checks if check.id == check_id]
    for outcome, ended in ((Outcome.FAILED, failed), (Outcome.NOT_RUN, not_run)):
        found = [f"{name}: {check.detail}" for name, check in made if check.outcome is outcome]
        if found:
            rest = f"; and {len(found) - 3} more" if len(found) > 3 else ""
            return ended(check_id, "; ".join(found[:3]) + rest)
    return passed(check_id, made[0][1].detail if len(made) == 1 else f"in {len(made)} segments")


def _facts(segments: Mapping[str, SegmentVerdict], signers: Signers) -> dict[str, str]:
    facts = {
        "streams": ", ".join(sorted({one.header.stream for one in segments.values() if one.header})),
        "signed by": ", ".join(signers.names(segments)),
        "segments": str(len(segments)),
        "events": str(sum(one.entries for one in segments.values())),
        "endings": ", ".join(sorted({one.ending.value for one in segments.values()})),
    }
    unverified = sum(one.unverified for one in segments.values())
    if unverified:
        facts["unverified, and no events"] = f"{unverified} lines"
    return facts
