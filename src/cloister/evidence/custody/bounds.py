"""What bounds the period of an export, beside the word of the log's owner.

An owner dates its own entries, and can add one today that is dated last year. So nothing that it writes shows
that the entries it left out lie before or after the period. What shows it is what somebody else saw then:

* before: a head of the log that already held every entry left out, seen no later than the period began; or an
  export before this one, itself bounded, that ended where this one begins;
* after: a head that held none of the entries left out, seen when the period was over. It shows that they
  weren't shown to whoever saw it; an owner who had kept them back could date them later as well. A statement
  says what its party had been shown when it wrote it, which came to it up to a round before.

Rules kept here:

1. Nothing counts that the owner could write alone: a sighting is a witness's cosignature, or a statement of
   another party in its own log about a head that the owner signed.
2. A head counts only if it is the past of the log as exported: its root is computed from the entries shown.
3. What nobody bounds is the owner's word, and is called that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cloister.core.clock import format_time, parse_time
from cloister.core.errors import CloisterError
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint, verify_checkpoint, verify_cosignature
from cloister.evidence.checks import Check, judged, not_run, passed
from cloister.evidence.custody.completeness import CLOCK_TOLERANCE
from cloister.evidence.custody.record import ExportedStatement, ExportRecord
from cloister.evidence.custody.shown import Range
from cloister.evidence.extract import log_owner
from cloister.evidence.predicates import Role, held_checkpoints
from cloister.evidence.trust import Trust

OWNERS_WORD = "ON ITS OWNER'S WORD ALONE"


@dataclass(frozen=True, slots=True)
class Outside:
    """What a verifying party holds beside an export, and what it settles for.

    Attributes:
        held: heads of logs that it kept, each a note; those that pinned witnesses cosigned have a time.
        previous: exports made before this one, oldest first.
        owners_word: whether an owner's word will do for what lies outside a period.
        now: the verifying party's time; None where it has no clock.
    """

    held: tuple[bytes, ...] = ()
    previous: tuple[bytes, ...] = ()
    owners_word: bool = False
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A head of a log, as somebody other than its owner saw it.

    Attributes:
        size: how many entries the log had.
        root: its root.
        at: when, by the clock of whoever saw it.
        who: who that was, for people.
    """

    size: int
    root: bytes
    at: datetime
    who: str

    def __str__(self) -> str:
        return f"{self.who} saw {self.size} entries at {format_time(self.at)[:19]}Z"


@dataclass(frozen=True, slots=True)
class Bounded:
    """What an export shows of one log, and what bounds it.

    Attributes:
        range: the entries shown.
        start: when the period begins.
        before: what shows that the entries before the range lie before the period; None for the owner's word.
        after: likewise for those after it.
        seen: the newest head that somebody else saw; None if nobody did, and the log could be another one.
        problems: what contradicts the owner.
    """

    range: Range
    start: str
    before: str | None
    after: str | None
    seen: Seen | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """An export that was made before, whose own checks passed.

    Attributes:
        export_id: its id.
        logs: what it shows of each log; nothing for the export of a job.
    """

    export_id: str
    logs: Mapping[str, Bounded]


def bound_period(
    record: ExportRecord, trust: Trust, outside: Outside, earlier: Sequence[Earlier]
) -> dict[str, Bounded]:
    """Find what bounds the range of each log in the export of a period.

    Args:
        record: the export.
        trust: the keys believed.
        outside: what is held beside it.
        earlier: the exports before it, oldest first.

    Returns:
        By log; nothing for the export of a job.
    """
    selection = record.bundle.body.selection
    if selection.start is None or selection.end is None:
        return {}
    start, end = parse_time(selection.start), parse_time(selection.end)
    found: dict[str, Bounded] = {}
    for origin, extract in record.extracts.items():
        shown = Range(extract)
        if not shown.gapless:
            found[origin] = Bounded(shown, selection.start, None, None, None, ())
            continue
        seen = sightings(record, origin, trust, outside)
        roots = shown.roots(one.size for one in seen)
        problems = [*_contradictions(origin, shown, seen, roots, end), *_forks(origin, shown, earlier)]
        sound = [one for one in seen if roots.get(one.size) == one.root]
        before = _before(shown, sound, start) or _continues(origin, shown, earlier, selection.start)
        newest = max(sound, key=lambda one: (one.size, one.at), default=None)
        found[origin] = Bounded(
            shown, selection.start, before, _after(shown, sound, end), newest, tuple(problems)
        )
    return found


def check_period(record: ExportRecord, bounded: Mapping[str, Bounded], outside: Outside) -> Check:
    """What lies outside of the period is bounded by somebody else than the owner, or its word is accepted."""
    if record.bundle.body.selection.job_id is not None:
        return passed("period", "a job and no period: its closing statements bound it")
    problems = [problem for one in bounded.values() for problem in one.problems]
    problems += [
        f"{origin}: there is a gap in it" for origin, one in bounded.items() if not one.range.gapless
    ]
    if problems:
        return judged("period", problems, "")
    told = "; ".join(f"{origin}: {_described(one)}" for origin, one in bounded.items())
    if not on_owners_word(bounded):
        return passed("period", told)
    if outside.owners_word:
        return passed("period", f"{OWNERS_WORD}, which was accepted: {told}")
    return not_run("period", f"nobody else bounds it, and its owner's word wasn't accepted: {told}")


def on_owners_word(bounded: Mapping[str, Bounded]) -> bool:
    """Whether anything outside of the period is so on its owner's word alone."""
    return any(one.before is None or one.after is None for one in bounded.values())


def check_held(record: ExportRecord, trust: Trust, held: Sequence[bytes]) -> Check:
    """The logs, as exported, have the roots that the heads held from before state, as far as can be told."""
    problems: list[str] = []
    same = other = 0
    at = parse_time(record.bundle.body.exported_at)
    ranges = {origin: Range(extract) for origin, extract in record.extracts.items()}
    for data in held:
        try:
            note = parse_checkpoint(data.decode("utf-8", "replace"))
            _verify_owner(note, trust, at)
        except CloisterError as error:
            problems.append(f"a held checkpoint can't be used: {error.message}")
            continue
        shown = ranges.get(note.origin)
        told = {} if shown is None or not _is_range(record, shown) else shown.roots([note.size])
        if shown is not None and note.size == shown.size:
            told = {note.size: shown.extract.checkpoint.root}
        if note.size not in told:
            other += 1
        elif told[note.size] != note.root:
            problems.append(f"{note.origin}: its first {note.size} entries are not those it had: rewritten")
        else:
            same += 1
    rest = f"; {other} can't be compared with what is shown" if other else ""
    if not problems and not same:
        return not_run("held-checkpoints", f"none can be compared with what is shown, of {other}")
    return judged("held-checkpoints", problems, f"it has the root of each of {same} held{rest}")


def _is_range(record: ExportRecord, shown: Range) -> bool:
    return record.bundle.body.selection.job_id is None and shown.gapless


def sightings(record: ExportRecord, origin: str, trust: Trust, outside: Outside) -> list[Seen]:
    """Every head of a log that somebody other than its owner saw, as far as it can be believed."""
    notes = [record.extracts[origin].checkpoint]
    for text in (
        *record.bundle.body.logs[origin].heads,
        *(one.decode("utf-8", "replace") for one in outside.held),
    ):
        try:
            notes.append(parse_checkpoint(text))
        except CloisterError:
            continue  # It bounds nothing.
    found = [one for note in notes if note.origin == origin for one in _cosigned(note, trust)]
    return [*found, *_stated(record, origin, trust)]


def _cosigned(note: Checkpoint, trust: Trust) -> Iterator[Seen]:
    named = {one.name for one in note.signatures}
    for witness in trust.parties(Role.WITNESS):
        if witness not in named:
            continue
        try:
            at = verify_cosignature(note, witness, trust.key(Role.WITNESS, witness))
        except CloisterError:
            continue  # It bounds nothing.
        yield Seen(note.size, note.root, at, f"witness {witness}")


def _stated(record: ExportRecord, origin: str, trust: Trust) -> Iterator[Seen]:
    for one in record.proven:
        if one.origin == origin:
            continue
        for held in held_checkpoints(one.predicate):
            if held.origin != origin:
                continue
            at = parse_time(one.predicate.recorded_at)
            if _is_owners(held.note, trust, at):
                yield Seen(held.size, bytes.fromhex(held.root), at, _teller(one))


def _teller(one: ExportedStatement) -> str:
    return f"{one.role.value} {one.owner} (as it states in its log)"


def _is_owners(note: str, trust: Trust, at: datetime) -> bool:
    try:
        _verify_owner(parse_checkpoint(note), trust, at)
    except CloisterError:
        return False
    return True


def _verify_owner(note: Checkpoint, trust: Trust, at: datetime) -> None:
    keys = trust.keys(*log_owner(note.origin), at=at)
    for position, key in enumerate(keys, start=1):
        try:
            return verify_checkpoint(note, note.origin, key)
        except CloisterError:
            if position == len(keys):
                raise
    return None


def _contradictions(
    origin: str, shown: Range, seen: Sequence[Seen], roots: Mapping[int, bytes], end: datetime
) -> Iterator[str]:
    for one in seen:
        if one.size in roots and roots[one.size] != one.root:
            yield f"{origin}: {one}, and they are others than are here"
        elif shown.stop < one.size and one.at < end - CLOCK_TOLERANCE:
            yield f"{origin}: {one}, within the period; from entry {shown.stop} on they are left out"


def _before(shown: Range, sound: Sequence[Seen], start: datetime) -> str | None:
    if shown.first == 0:
        return "none is before them"
    fit = [one for one in sound if one.size >= shown.first and one.at <= start]
    if not fit:
        return None
    return f"the {shown.first} before them were there when {max(fit, key=lambda one: one.at)}"


def _after(shown: Range, sound: Sequence[Seen], end: datetime) -> str | None:
    if shown.stop == shown.size:
        return "none is after them"
    fit = [one for one in sound if one.size <= shown.stop and one.at >= end]
    if not fit:
        return None
    newest = max(fit, key=lambda one: one.at)
    return f"of the {shown.size - shown.stop} after them none was shown when {newest}"


def _continues(origin: str, shown: Range, earlier: Sequence[Earlier], start: str) -> str | None:
    for one in reversed(earlier):
        known = one.logs.get(origin)
        if known is None or known.before is None or known.problems or known.start > start:
            continue
        if max(known.range.first, shown.first) <= min(known.range.stop, shown.stop):
            return (
                f"they continue, without a gap, what export {one.export_id} shows "
                f"from entry {known.range.first} on, where {known.before}"
            )
    return None


def _forks(origin: str, shown: Range, earlier: Sequence[Earlier]) -> Iterator[str]:
    """Where an export and one before it show two pasts of one log."""
    for one in earlier:
        known = one.logs.get(origin)
        if known is None:
            continue
        if known.range.size > shown.size:
            yield f"{origin}: export {one.export_id} had {known.range.size} entries, here are {shown.size}"
        sizes = (min(known.range.stop, shown.stop), known.range.size)
        here, there = shown.roots(sizes), known.range.roots(sizes)
        if any(here[size] != there[size] for size in here.keys() & there.keys()):
            yield f"{origin}: export {one.export_id} shows another past of it"


def _described(one: Bounded) -> str:
    shown = one.range
    before = one.before or f"that the {shown.first} before them lie before the period: {OWNERS_WORD}"
    after = one.after or (
        f"that the {shown.size - shown.stop} after them lie after the period: {OWNERS_WORD}"
    )
    what = f"entries {shown.first} to {shown.stop - 1} of {shown.size}" if shown.stop else "no entries"
    seen = (
        one.seen or "nobody known here saw a head of it, so that it is the only log of this name is not shown"
    )
    return f"{what}; {before}; {after}; {seen}"
