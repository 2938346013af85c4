"""All segments of a folder together: a segment that was removed, exchanged or doubled is named.

Rules kept here:

1. A process's segments are numbered without gap, and each later one names the place where the one before
   ended; a forked process names where its parent stood. What is named has to be there, as it is named.
2. A segment that somebody outside holds a checkpoint of has to be there. Removing all segments of a process
   is seen by this alone.
3. A file that isn't a segment of its name is a finding, never skipped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.checks import Check, Outcome, judged
from cloister.evidence.segments.checkpoint import SegmentCheckpoint
from cloister.evidence.segments.layout import SUFFIX, Header, Link, SegmentId, parse_opening
from cloister.evidence.segments.lines import SegmentLines
from cloister.evidence.segments.secrets import SecretsOpener
from cloister.evidence.segments.verify import SegmentVerdict, verify_segment


@dataclass(frozen=True, slots=True)
class StreamVerdict:
    """What was found in a folder.

    Attributes:
        segments: the verdict on each file, by its name.
        missing: the names of segments that have to be there and aren't, sorted.
        complete: the check ``stream-complete``.
    """

    segments: Mapping[str, SegmentVerdict]
    missing: tuple[str, ...]
    complete: Check

    @property
    def accepted(self) -> bool:
        """Whether nothing is missing and every segment is accepted."""
        return self.complete.outcome is Outcome.PASSED and all(one.accepted for one in self.segments.values())


def verify_directory(
    directory: Path,
    *,
    keys: Sequence[PublicKey],
    held: Iterable[SegmentCheckpoint] | None,
    secrets: SecretsOpener | None = None,
) -> StreamVerdict:
    """Judge all segments of a folder, each by itself and all together.

    Args:
        directory: the folder; only files named as segments are looked at.
        keys: the keys that may sign checkpoints.
        held: checkpoints that somebody outside the writing processes holds, None where none can be had.
        secrets: who can open the segments' secrets, None for third parties.

    Returns:
        A verdict over all of them.

    Raises:
        InputError: a file can't be opened.
    """
    files = sorted(directory.glob(f"*{SUFFIX}"))
    headers = {path: _header(path) for path in files}
    links: dict[str, list[Link]] = defaultdict(list)
    for header in headers.values():
        for link in (header.parent, header.previous) if header else ():
            if link is not None:
                links[link.segment].append(link)
    outside: dict[str, list[SegmentCheckpoint]] = defaultdict(list)
    for one in held or ():
        outside[one.segment].append(one)
    verdicts = {
        path.name: verify_segment(
            path,
            keys=keys,
            held=None if held is None else outside[path.name.removesuffix(SUFFIX)],
            secrets=secrets,
            links=links[path.name.removesuffix(SUFFIX)],
        )
        for path in files
    }
    present = {path.name.removesuffix(SUFFIX) for path in files}
    wanted = (
        _numbered(present) | set(links) | {name for name, all_ in outside.items() if _any_genuine(all_, keys)}
    )
    missing = tuple(sorted(wanted - present))
    problems = [f"segment {name} is missing" for name in missing]
    return StreamVerdict(verdicts, missing, judged("stream-complete", problems, f"{len(files)} segments"))


def _header(path: Path) -> Header | None:
    """A file's header; where there is none, the file's own verdict says so."""
    with SegmentLines(path) as lines:
        try:
            return parse_opening(next(iter(lines), b""))[1]
        except CloisterError:
            return None


def _numbered(present: Iterable[str]) -> set[str]:
    """The segments that come before those that are there."""
    wanted = set()
    for name in present:
        try:
            last = SegmentId.parse(name)
        except CloisterError:
            continue
        wanted |= {
            str(SegmentId(last.boot, last.pid, last.process, number)) for number in range(1, last.number)
        }
    return wanted


def _any_genuine(checkpoints: Iterable[SegmentCheckpoint], keys: Sequence[PublicKey]) -> bool:
    for one in checkpoints:
        for key in keys:
            try:
                one.verify(key)
            except CloisterError:
                continue
            return True
    return False
