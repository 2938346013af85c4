"""All segments of a folder together: a segment that was removed, exchanged or doubled is named.

Rules kept here:

1. A process's segments are numbered without gap, and each later one names the place where the one before
   ended; a forked process names where its parent stood. What is named has to be there, as it is named.
2. A segment that somebody outside holds a checkpoint of has to be there, and those before it. Removing all
   segments of a process is seen by this alone.
3. A file that isn't a segment of its name is a finding, never skipped. No segments are no stream.
4. What is missing is counted, and only its first names are written out: a number in a name costs nothing.
5. Between two segments of a process no more time passes than between two of its marks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.checks import Check, Outcome, judged, not_run
from cloister.evidence.segments.checkpoint import SegmentCheckpoint
from cloister.evidence.segments.layout import SUFFIX, Header, Link, SegmentId, parse_opening
from cloister.evidence.segments.lines import SegmentLines
from cloister.evidence.segments.pace import silence_between
from cloister.evidence.segments.secrets import SecretsOpener
from cloister.evidence.segments.verdict import SegmentVerdict
from cloister.evidence.segments.verify import verify_segment

NAMED: Final = 10
"""How many missing segments are named at most."""


@dataclass(frozen=True, slots=True)
class StreamVerdict:
    """What was found in a folder.

    Attributes:
        segments: the verdict on each file, by its name.
        missing: the names of the first segments that have to be there and aren't, by process and number.
        absent: how many there are of them in all.
        checks: ``stream-complete`` and ``stream-clock``; and ``segment-held``, not run, where there is
            neither a segment nor what somebody holds of one.
    """

    segments: Mapping[str, SegmentVerdict]
    missing: tuple[str, ...]
    absent: int
    checks: tuple[Check, ...]

    @property
    def accepted(self) -> bool:
        """Whether there are segments, nothing is missing and every check of all passed."""
        made = [*self.checks, *(check for one in self.segments.values() for check in one.checks)]
        return bool(self.segments) and all(check.outcome is Outcome.PASSED for check in made)


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
    files = {path.name.removesuffix(SUFFIX): path for path in sorted(directory.glob(f"*{SUFFIX}"))}
    links: dict[str, list[Link]] = defaultdict(list)
    for header in map(_header, files.values()):
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
            held=None if held is None else outside[name],
            secrets=secrets,
            links=links[name],
        )
        for name, path in files.items()
    }
    known = {*files, *links, *(name for name, all_ in outside.items() if _any_genuine(all_, keys))}
    gaps = _Gaps(known, set(files))
    missing = tuple(islice(gaps.names(), NAMED))
    problems = [] if files else ["there is no segment"]
    problems += [f"segment {name} is missing" for name in missing[:3]]
    if gaps.count > 3:
        problems.append(f"{gaps.count} are missing in all")
    checks = [judged("stream-complete", problems, f"{len(files)} segments"), _clock(verdicts.values())]
    if not files and held is None:
        checks.append(not_run("segment-held", "no checkpoints held outside were given"))
    return StreamVerdict(verdicts, missing, gaps.count, tuple(checks))


def _clock(segments: Iterable[SegmentVerdict]) -> Check:
    """No process was silent between two of its segments."""
    by_name = {str(one.header.id): one for one in segments if one.header is not None}
    problems = []
    for name, one in by_name.items():
        header = one.header
        before = by_name.get(header.previous.segment) if header and header.previous else None
        silence = silence_between(before.last, header) if header and before and before.last else 0
        if silence:
            problems.append(f"nothing was signed for {silence / 1e6:.1f} s before segment {name}")
    return judged("stream-clock", problems, "no process was silent between its segments")


def _header(path: Path) -> Header | None:
    """A file's header; where there is none, the file's own verdict says so."""
    with SegmentLines(path) as lines:
        try:
            return parse_opening(next(iter(lines), b""))[1]
        except CloisterError:
            return None


class _Gaps:
    """What has to be there: every segment that is known, and those of its process before it."""

    def __init__(self, known: Iterable[str], present: set[str]) -> None:
        self._last: dict[tuple[str, int, str], int] = defaultdict(int)
        self._present: dict[tuple[str, int, str], set[int]] = defaultdict(set)
        for name in known:
            try:
                one = SegmentId.parse(name)
            except CloisterError:
                continue
            process = (one.boot, one.pid, one.process)
            self._last[process] = max(self._last[process], one.number)
            if name in present:
                self._present[process].add(one.number)

    @property
    def count(self) -> int:
        """How many are missing."""
        return sum(last - len(self._present[process]) for process, last in self._last.items())

    def names(self) -> Iterator[str]:
        """Their names; to be taken one by one, since there may be a thousand million."""
        for process, last in sorted(self._last.items()):
            there = self._present[process]
            if len(there) < last:
                for number in range(1, last + 1):
                    if number not in there:
                        yield str(SegmentId(*process, number))


def _any_genuine(checkpoints: Iterable[SegmentCheckpoint], keys: Sequence[PublicKey]) -> bool:
    for one in checkpoints:
        for key in keys:
            try:
                one.verify(key)
            except CloisterError:
                continue
            return True
    return False
