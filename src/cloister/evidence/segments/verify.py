"""Whether a segment is what its writer wrote, whole, from public keys and from what others hold of it.

Rules kept here:

1. Pure: no clock, no network, no database. It always answers, and names the first line that doesn't hold.
2. Third parties need no secret: marks are signed, and a checkpoint held outside the writing process must be
   in the segment, at its line. That finds every edit, deletion, reordering, duplicate and insertion, a tail
   that was cut off, and a past rewritten with a stolen signing key.
3. Who can open the segment's secrets also recomputes every tag: a past that was rewritten by who stole all
   keys of a running process is found at its first line, also where nobody held a checkpoint.
4. Without checkpoints held outside, an end that was cut off can't be told from one that a kill left. Then
   ``segment-held`` is not run, and a segment without closing mark is not accepted.
5. What is judged are bytes. `read_entries` reads them strictly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Final

from cloister.core.canonical import b64decode
from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError, InputError
from cloister.core.keys import PublicKey
from cloister.core.symmetric import hmac_sha256
from cloister.evidence.checks import Check, Outcome, failed, judged, not_run, passed
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, State
from cloister.evidence.segments.layout import (
    BEFORE_THE_FIRST,
    MAX_LINE_BYTES,
    TAG_BYTES,
    TIP_BYTES,
    Cipher,
    Header,
    Kind,
    Link,
    parse_line,
    parse_opening,
    tag_member,
    tip_member,
)
from cloister.evidence.segments.lines import SegmentLines
from cloister.evidence.segments.ratchet import next_key
from cloister.evidence.segments.secrets import SecretsOpener

CLOCK_TOLERANCE: Final = timedelta(seconds=1)
"""How far a writer's clock may step against the time since the boot."""

_AT = slice(7, 34)
_CLEAR = (b'","event":{', b'},"kind":"entry","n":%d')
_ENCRYPTED = (b'","event":"', b'","kind":"entry","n":%d')
_LATER = ("segment-held", "segment-end", "segment-clock")
_MARK_LINE = frozenset({"at", "kind", "mark", "n", "tag", "tip"})
_MARK = frozenset({"head", "sig", "state", "uptime"})


class Ending(StrEnum):
    """How a segment ends."""

    CLOSED = "closed"
    """With its closing mark."""
    OPEN = "open"
    """With a whole line: its process is running, was killed, or its end was cut off."""
    TORN = "torn"
    """In the middle of a line: its process was killed, the disk was full, or its end was cut off."""


@dataclass(frozen=True, slots=True)
class SegmentVerdict:
    """What was found.

    Attributes:
        header: what the segment says of itself, None where it can't be read.
        lines: how many lines hold, from the first.
        entries: how many of them are events.
        signed: up to which line marks in the segment sign it.
        vouched: up to which line checkpoints held outside vouch for it.
        ending: how it ends.
        broken_at: the first line that doesn't hold, or may not; None where all do.
        checks: every check, with its reason.
    """

    header: Header | None
    lines: int
    entries: int
    signed: int
    vouched: int
    ending: Ending
    broken_at: int | None
    checks: tuple[Check, ...]

    @property
    def accepted(self) -> bool:
        """Whether every check passed."""
        return all(check.outcome is Outcome.PASSED for check in self.checks)


class _Broken(Exception):  # noqa: N818 - it never leaves this module
    def __init__(self, check: str, line: int, reason: str) -> None:
        super().__init__(reason)
        self.check, self.line, self.reason = check, line, reason


def verify_segment(
    source: Path | bytes,
    *,
    keys: Sequence[PublicKey],
    held: Iterable[SegmentCheckpoint] | None,
    secrets: SecretsOpener | None = None,
    links: Sequence[Link] = (),
) -> SegmentVerdict:
    """Judge one segment.

    Args:
        source: its file, whose name counts too, or its bytes.
        keys: the keys that may sign this stream's checkpoints, today's and former ones.
        held: checkpoints that somebody outside the writing process holds, also of other segments; None where
            none can be had.
        secrets: who can open the segment's secrets, to recompute its tags; None for third parties.
        links: what the headers of other segments say of this one.

    Returns:
        A verdict with the checks ``segment-chain``, ``segment-marks``, ``segment-tags`` (only with secrets),
        ``segment-links`` (only with links), ``segment-held``, ``segment-end`` and ``segment-clock``.

    Raises:
        InputError: the file can't be opened.
    """
    walk: _Walk | None = None
    broken: _Broken | None = None
    with SegmentLines(source) as lines:
        try:
            stream = iter(lines)
            first = next(stream, b"")
            at, header = _header(first, source.name if isinstance(source, Path) else None)
            walk = _Walk(at, header, keys, held, secrets, links)
            walk.follow(first, stream)
            walk.end(lines.torn)
        except _Broken as found:
            broken = found
    if walk is None:
        ids = ("segment-marks", *(["segment-tags"] if secrets else []), *_LATER)
        checks = (_break("segment-chain", broken), *(not_run(one, "there is no header") for one in ids))
        return SegmentVerdict(None, 0, 0, 0, 0, Ending.OPEN, 1, checks)
    return walk.verdict(broken)


def _header(first: bytes, file_name: str | None) -> tuple[str, Header]:
    try:
        at, header = parse_opening(first)
    except SegmentError as error:
        raise _Broken("segment-chain", 1, error.message) from None
    if file_name not in (None, header.id.file_name):
        raise _Broken("segment-chain", 1, f"the file is named {file_name}, and is segment {header.id}")
    return at, header


class _Walk:
    def __init__(
        self,
        at: str,
        header: Header,
        keys: Sequence[PublicKey],
        held: Iterable[SegmentCheckpoint] | None,
        secrets: SecretsOpener | None,
        links: Sequence[Link],
    ) -> None:
        self._header = header
        self._name = str(header.id)
        self._key = next((key for key in keys if key.key_id == header.key), None)
        self._root: bytes | None = None
        self._unopened: str | None = None
        if secrets is not None:
            try:
                self._root = secrets.open(header).root
            except CloisterError as error:
                self._unopened = error.message
        self._with_secrets = secrets is not None
        self._compared = held is not None
        self._forged = 0
        self._held: dict[int, list[SegmentCheckpoint]] = {}
        for one in held or ():
            if one.segment == self._name:
                self._held.setdefault(one.lines, []).append(one)
        self._links = [link for link in links if link.segment == self._name]
        self._places = {link.lines for link in self._links} | {lines + 1 for lines in self._held}
        self._clock: list[str] = []
        self._latest = at
        self._reference = (_moment(at), header.uptime)
        self._silence = self._agreed = 0
        self._lines = self._marks = self._signed = self._vouched = 0
        self._ending = Ending.OPEN

    def _genuine(self, one: SegmentCheckpoint) -> bool:
        """Whether the segment's writer signed a checkpoint that isn't among its marks."""
        try:
            if self._key is not None:
                one.verify(self._key)
                return True
        except CloisterError:
            pass
        self._forged += 1
        return False

    def follow(self, first: bytes, rest: Iterator[bytes]) -> None:
        """Every line, in order, until one doesn't hold."""
        tip, key, latest, places = BEFORE_THE_FIRST, self._root, self._latest.encode(), self._places
        start, end = _CLEAR if self._header.cipher is Cipher.NONE else _ENCRYPTED
        closed = False
        for number, line in enumerate(chain((first,), rest), 1):
            self._lines = number - 1
            before, body = tip, line[:-TIP_BYTES]
            tip = sha256(before + body).digest()
            if not line.endswith(tip_member(tip)) or len(line) > MAX_LINE_BYTES:
                raise _Broken(
                    "segment-chain", number, "it doesn't follow from the line before and its content"
                )
            content = body[:-TAG_BYTES]
            if key is not None:
                if not body.endswith(tag_member(hmac_sha256(key, before + content))):
                    raise _Broken("segment-tags", number, "its tag is not the writer's for this place")
                key = next_key(key)
            at = line[_AT]
            if at < latest:
                self._set_back(number, latest, at)
            latest = at
            if number in places:
                self._compare(line, number, before, tip)
            if closed:
                raise _Broken("segment-chain", number, "it follows the closing mark")
            if not (content.startswith(start, 34) and content.endswith(end % number)) and number > 1:
                closed = self._mark(line, number, before) is State.CLOSED
        self._lines = number

    def end(self, torn: bytes) -> None:
        """What stands behind the last line, and what should have."""
        behind = [one for lines, held in self._held.items() if lines >= self._lines for one in held]
        missing = max((one.lines for one in behind if self._genuine(one)), default=0)
        if missing:
            raise _Broken(
                "segment-held",
                self._lines + 1,
                f"the segment ends after line {self._lines}; a checkpoint held outside vouches for "
                f"{missing} lines and the mark behind them",
            )
        if any(link.lines > self._lines for link in self._links):
            reason = f"the segment ends after line {self._lines}; another segment's header knows more lines"
            raise _Broken("segment-links", self._lines + 1, reason)
        if torn and self._ending is Ending.CLOSED:
            raise _Broken("segment-chain", self._lines + 1, "bytes follow the closing mark")
        if torn:
            self._ending = Ending.TORN

    def _compare(self, line: bytes, number: int, before: bytes, tip: bytes) -> None:
        """Hold a line against what others say of it."""
        since = self._agreed + 1
        which = f"of lines {since} to {number} at least one is not what"
        for link in self._links:
            if link.lines == number and link.head != tip.hex():
                raise _Broken("segment-links", since, f"{which} another segment's header says")
        held = self._held.get(number - 1, ())
        mark = _parse_mark(line, number, before, self._name) if held else None
        for one in held:
            if one != mark and self._genuine(one):
                raise _Broken("segment-held", since, f"{which} a checkpoint held outside vouches for")
        self._agreed = number

    def _mark(self, line: bytes, number: int, before: bytes) -> State:
        mark = _parse_mark(line, number, before, self._name)
        if mark is None:
            raise _Broken("segment-chain", number, "it is neither an event nor a mark of this segment")
        if self._key is not None:
            try:
                mark.verify(self._key)
            except CloisterError:
                raise _Broken("segment-marks", number, "its signature is not the segment's key's") from None
            self._signed = number
        if mark in self._held.get(number - 1, ()):
            self._vouched = number
        if mark.state is State.CLOSED:
            self._ending = Ending.CLOSED
        self._marks += 1
        self._tell_time(mark, number)
        return mark.state

    def _tell_time(self, mark: SegmentCheckpoint, number: int) -> None:
        moment, (earlier, uptime) = _moment(mark.at), self._reference
        passed_by = timedelta(microseconds=mark.uptime - uptime)
        self._silence = max(self._silence, mark.uptime - uptime)
        if moment is None or earlier is None or passed_by < timedelta(0):
            self._clock.append(f"line {number} is of no time that follows")
        elif abs(moment - earlier - passed_by) > CLOCK_TOLERANCE:
            self._clock.append(f"by line {number} the clock was set by {moment - earlier - passed_by}")
        self._reference = (moment, mark.uptime)

    def _set_back(self, number: int, latest: bytes, at: bytes) -> None:
        earlier, moment = (_moment(one.decode("ascii", "replace")) for one in (latest, at))
        if earlier is None or moment is None or earlier - moment > CLOCK_TOLERANCE:
            self._clock.append(f"line {number} is earlier than the line before")

    def verdict(self, broken: _Broken | None) -> SegmentVerdict:
        """All checks, in their order."""
        entries = max(0, self._lines - 1 - self._marks)
        made = [_break("segment-chain", broken, f"{self._lines} lines, {entries} of them events")]
        if self._key is None:
            made.append(
                failed(
                    "segment-marks", f"the segment is signed by a key that isn't pinned: {self._header.key}"
                )
            )
        elif self._signed == 0 and broken is None:
            made.append(failed("segment-marks", "no mark signs the segment"))
        else:
            made.append(_break("segment-marks", broken, f"signed up to line {self._signed}"))
        if self._unopened is not None:
            made.append(not_run("segment-tags", self._unopened))
        elif self._with_secrets:
            made.append(_break("segment-tags", broken, f"{self._lines} tags"))
        if self._links:
            made.append(_break("segment-links", broken, f"as {len(self._links)} other headers say"))
        made += [
            self._check_held(broken),
            self._check_end(broken),
            judged("segment-clock", self._clock, self._pace()),
        ]
        return SegmentVerdict(
            self._header,
            self._lines,
            entries,
            self._signed,
            self._vouched,
            self._ending,
            None if broken is None else broken.line,
            tuple(made),
        )

    def _check_held(self, broken: _Broken | None) -> Check:
        if not self._compared:
            return not_run("segment-held", "no checkpoints held outside were given")
        if broken is not None:
            return _break("segment-held", broken)
        if self._forged:
            return failed(
                "segment-held", f"{self._forged} held checkpoints are not signed by the segment's key"
            )
        if not self._vouched:
            return failed("segment-held", "nobody outside holds a checkpoint of this segment")
        return passed("segment-held", f"vouched for up to line {self._vouched}")

    def _check_end(self, broken: _Broken | None) -> Check:
        if broken is not None:
            return not_run("segment-end", f"line {broken.line} doesn't hold")
        if self._ending is Ending.CLOSED:
            return passed("segment-end", "closed by its writer")
        how = "in the middle of a line" if self._ending is Ending.TORN else "without a closing mark"
        if not self._vouched:
            return failed("segment-end", f"it ends {how}, and nobody vouches for where")
        behind = self._lines - self._vouched
        return passed(
            "segment-end",
            f"it ends {how}: its process runs or was stopped; {behind} lines behind line {self._vouched} "
            "were acknowledged to nobody",
        )

    def _pace(self) -> str:
        return (
            f"no step of more than {CLOCK_TOLERANCE.seconds} s; longest silence {self._silence / 1e6:.1f} s"
        )


def _parse_mark(line: bytes, number: int, before: bytes, segment: str) -> SegmentCheckpoint | None:
    try:
        members = parse_line(line)
        mark = members.get("mark")
        if not isinstance(mark, dict) or set(members) != _MARK_LINE or set(mark) != _MARK:
            return None
        at, head, sig, state, uptime = members["at"], mark["head"], mark["sig"], mark["state"], mark["uptime"]
        if members["kind"] != Kind.MARK or members["n"] != number or head != before.hex():
            return None
        if not isinstance(at, str) or not isinstance(sig, str) or type(uptime) is not int or uptime < 0:
            return None
        return SegmentCheckpoint(segment, number - 1, before, State(str(state)), at, uptime, b64decode(sig))
    except (CloisterError, ValueError):
        return None


def _moment(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except InputError:
        return None


def _break(check: str, broken: _Broken | None, detail: str = "") -> Check:
    if broken is None:
        return passed(check, detail)
    if broken.check == check:
        return failed(check, f"line {broken.line}: {broken.reason}")
    return not_run(check, f"line {broken.line} doesn't hold")
