"""Removing what is older than an audit is kept, so that it can't be mistaken for tampering, nor the reverse.

Rules kept here:

1. The segments of a process go together, when the last signed mark of all of them is old enough: a gap within
   a process's segments stays a finding.
2. What is still referred to stays: the segments of a process as long as those of one forked from it.
3. A segment that doesn't verify is never removed: it is evidence.
4. What is removed is first named, durably, in an entry of the audit that goes on, with the hash of its last
   signed line. Where that can't be written, nothing is removed.
"""

from __future__ import annotations

import fcntl
import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from cloister.core.clock import Clock, format_time, parse_time, system_clock
from cloister.core.errors import CloisterError
from cloister.core.files import storage_error, sync_directory
from cloister.evidence.checks import Outcome
from cloister.evidence.segments import SegmentId, SegmentVerdict, verify_directory
from cloister.evidence.segments.layout import SUFFIX
from cloister.immune.audit import AuditTrail
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_export import held_checkpoints
from cloister.immune.audit_folder import HELD_SUFFIX, AuditFolder

_MARK: Final = ".tidied"
_DAY: Final = 86_400.0
_Process: TypeAlias = tuple[str, int, str]
_OF_THE_WRITER = frozenset({"segment-clock", "segment-lost"})
"""Checks that say how a writer fared, and nothing against what it wrote."""


@dataclass(frozen=True, slots=True)
class AuditRetention:
    """How long one folder's audit is kept.

    Attributes:
        folder: where the audit is kept.
        trail: names what is removed.
        days: how long it is kept.
        checkpoints: a second folder that holds checkpoints; what can't be removed there does no harm.
        clock: the time now.
    """

    folder: AuditFolder
    trail: AuditTrail
    days: float
    checkpoints: Path | None = None
    clock: Clock = system_clock

    def remove_expired(self) -> tuple[str, ...]:
        """Remove the segments of processes that ended longer ago than the audit is kept.

        Returns:
            The names of the segments that were removed.

        Raises:
            StorageError: a file can't be removed; those before it are.
        """
        found = verify_directory(
            self.folder.segments,
            keys=self.folder.public_keys(),
            held=held_checkpoints(self.folder.checkpoints),
            secrets=self.folder.opening_keys(),
        )
        removed: list[str] = []
        for process in sorted(_expired(found.segments, self.clock() - timedelta(days=self.days))):
            for name, verdict in _of(found.segments, process):
                if not self._announce(name, verdict):
                    return tuple(removed)
            for name, _ in _of(found.segments, process):
                self._remove(name)
                removed.append(name)
        return tuple(removed)

    def tidy_once_a_day(self) -> tuple[str, ...]:
        """`remove_expired`, in one process of the folder a day, and only where a file is that old.

        Nothing is read but the files' times, until there is something to remove.

        Raises:
            StorageError: as `remove_expired`, or the folder can't be written.
        """
        now = self.clock()
        mark = self.folder.segments.parent / _MARK
        try:
            with mark.open("a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return ()
                seen = os.fstat(file.fileno())
                if seen.st_size and now.timestamp() - seen.st_mtime < _DAY:
                    return ()
                file.write(".")
                file.flush()
                os.utime(file.fileno(), (now.timestamp(), now.timestamp()))
                before = (now - timedelta(days=self.days)).timestamp()
                if all(path.stat().st_mtime >= before for path in self.folder.segments.iterdir()):
                    return ()
                return self.remove_expired()
        except OSError as error:
            raise storage_error(error, mark) from None

    def _announce(self, name: str, verdict: SegmentVerdict) -> bool:
        """Name what is removed, durably; whether that could be written."""
        last = verdict.last
        head = "" if last is None else f", last signed line {last.lines} with hash {last.head.hex()}"
        reason = f"segment {name.removesuffix(SUFFIX)} is older than {self.days:g} days{head}"
        event = AuditEvent(format_time(self.clock()), AuditKind.RETENTION, "remove", "", None, reason, name)
        return self.trail.record_durably(event)

    def _remove(self, name: str) -> None:
        held = f"{name.removesuffix(SUFFIX)}{HELD_SUFFIX}"
        for path in (self.folder.segments / name, self.folder.checkpoints / held):
            try:
                path.unlink(missing_ok=True)
                sync_directory(path.parent)
            except OSError as error:
                raise storage_error(error, path) from None
        if self.checkpoints is not None:
            with suppress(OSError):
                (self.checkpoints / held).unlink(missing_ok=True)


def _expired(segments: Mapping[str, SegmentVerdict], before: datetime) -> set[_Process]:
    """The processes whose segments are all sound and older, and that no kept process names."""
    ages: dict[_Process, list[bool]] = defaultdict(list)
    parents: dict[_Process, set[_Process]] = defaultdict(set)
    for name, verdict in segments.items():
        process = _process(name)
        if process is None:
            continue
        ages[process].append(_sound(verdict) and _ended_before(verdict, before))
        if verdict.header is not None and verdict.header.parent is not None:
            parent = SegmentId.parse(verdict.header.parent.segment)
            parents[process].add((parent.boot, parent.pid, parent.process))
    going = {process for process, old in ages.items() if all(old)}
    while True:
        named = {parent for process in ages.keys() - going for parent in parents[process]}
        if not going & named:
            return going
        going -= named


def _of(segments: Mapping[str, SegmentVerdict], process: _Process) -> list[tuple[str, SegmentVerdict]]:
    return [(name, verdict) for name, verdict in segments.items() if _process(name) == process]


def _process(name: str) -> _Process | None:
    """The process that a file is named after; None where it is no segment's name."""
    try:
        segment = SegmentId.parse(name.removesuffix(SUFFIX))
    except CloisterError:
        return None
    return segment.boot, segment.pid, segment.process


def _sound(verdict: SegmentVerdict) -> bool:
    return verdict.header is not None and all(
        check.outcome is Outcome.PASSED or check.id in _OF_THE_WRITER for check in verdict.checks
    )


def _ended_before(verdict: SegmentVerdict, before: datetime) -> bool:
    return verdict.last is not None and parse_time(verdict.last.at) < before
