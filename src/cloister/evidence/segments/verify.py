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
5. Lines behind the last mark are chained and signed by nobody: anybody may have written them. They are
   counted as unverified and are no events of the segment, unless their tags were computed again. Tags count
   only under a header that is signed: anybody can seal secrets to a public key.
6. A line is a canonical JSON object of its kind, or it doesn't hold.
7. Entries that were lost and a process that was silent are told by checks, not in a footnote.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Final

from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.core.symmetric import hmac_sha256
from cloister.evidence.checks import Check, failed, not_run, passed
from cloister.evidence.errors import SegmentError
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, State, parse_mark
from cloister.evidence.segments.events import EventForms
from cloister.evidence.segments.layout import (
    BEFORE_THE_FIRST,
    MAX_LINE_BYTES,
    TAG_BYTES,
    TIP_BYTES,
    Header,
    Link,
    parse_opening,
)
from cloister.evidence.segments.lines import SegmentLines
from cloister.evidence.segments.pace import Pace
from cloister.evidence.segments.ratchet import next_key
from cloister.evidence.segments.secrets import SecretsOpener
from cloister.evidence.segments.verdict import Broken, Ending, SegmentVerdict, check_unbroken

_AT = slice(7, 34)
_TAG = re.compile(rb',"tag":"[0-9a-f]{64}')
_LATER: Final = ("segment-held", "segment-end", "segment-lost", "segment-clock")


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
        ``segment-links`` (only with links), ``segment-held``, ``segment-end``, ``segment-lost`` and
        ``segment-clock``.

    Raises:
        InputError: the file can't be opened.
    """
    walk: _Walk | None = None
    broken: Broken | None = None
    with SegmentLines(source) as lines:
        try:
            stream = iter(lines)
            first = next(stream, b"")
            at, header = _header(first, source.name if isinstance(source, Path) else None)
            walk = _Walk(at, header, keys, held, secrets, links)
            walk.follow(first, stream)
            walk.end(lines.torn)
        except Broken as found:
            broken = found
    if walk is None:
        ids = ("segment-marks", *(["segment-tags"] if secrets else []), *_LATER)
        checks = (
            check_unbroken("segment-chain", broken),
            *(not_run(one, "there is no header") for one in ids),
        )
        return SegmentVerdict(None, None, 0, 0, 0, 0, 0, None, Ending.OPEN, 1, checks)
    return walk.verdict(broken)


def _header(first: bytes, file_name: str | None) -> tuple[str, Header]:
    try:
        at, header = parse_opening(first)
    except SegmentError as error:
        raise Broken("segment-chain", 1, error.message) from None
    if file_name not in (None, header.id.file_name):
        raise Broken("segment-chain", 1, f"the file is named {file_name}, and is segment {header.id}")
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
        self._opened = at
        self._pace = Pace(at, header)
        self._agreed = self._lines = self._marks = self._signed = self._vouched = 0
        self._marks_signed = 0
        self._last: SegmentCheckpoint | None = None
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
        tip, key, latest, places = BEFORE_THE_FIRST, self._root, self._opened.encode(), self._places
        fits = EventForms(self._header.cipher).fits
        closed = False
        for number, line in enumerate(chain((first,), rest), 1):
            self._lines = number - 1
            before, body = tip, line[:-TIP_BYTES]
            tip = sha256(before + body).digest()
            if not line.endswith(b'","tip":"' + hexlify(tip) + b'"}') or len(line) > MAX_LINE_BYTES:
                raise Broken("segment-chain", number, "it doesn't follow from its content and what is before")
            content = body[:-TAG_BYTES]
            if key is None:
                if not _TAG.fullmatch(body, len(content)):
                    raise Broken("segment-chain", number, "it has no tag")
            else:
                tag = hmac_sha256(key, before + content)
                if not body.endswith(b',"tag":"' + hexlify(tag)):
                    raise Broken("segment-tags", number, "its tag is not the writer's for this place")
                key = next_key(key)
            at = line[_AT]
            if at < latest:
                self._pace.set_back(number, latest, at)
            latest = at
            if number in places:
                self._compare(line, number, before, tip)
            if closed:
                raise Broken("segment-chain", number, "it follows the closing mark")
            kind = b',"kind":"entry","n":%d' % number
            if content.endswith(kind):
                if not fits(line, len(content) - len(kind)):
                    raise Broken("segment-chain", number, "its event or time has not the one form")
            elif number > 1:
                closed = self._mark(line, number, before) is State.CLOSED
        self._lines = number

    def end(self, torn: bytes) -> None:
        """What stands behind the last line, and what should have."""
        behind = [one for lines, held in self._held.items() if lines >= self._lines for one in held]
        missing = max((one.lines for one in behind if self._genuine(one)), default=0)
        if missing:
            raise Broken(
                "segment-held",
                self._lines + 1,
                f"the segment ends after line {self._lines}; a checkpoint held outside vouches for "
                f"{missing} lines and the mark behind them",
            )
        if any(link.lines > self._lines for link in self._links):
            reason = f"the segment ends after line {self._lines}; another segment's header knows more lines"
            raise Broken("segment-links", self._lines + 1, reason)
        if torn and self._ending is Ending.CLOSED:
            raise Broken("segment-chain", self._lines + 1, "bytes follow the closing mark")
        if torn:
            self._ending = Ending.TORN

    def _compare(self, line: bytes, number: int, before: bytes, tip: bytes) -> None:
        """Hold a line against what others say of it."""
        since = self._agreed + 1
        which = f"of lines {since} to {number} at least one is not what"
        for link in self._links:
            if link.lines == number and link.head != tip.hex():
                raise Broken("segment-links", since, f"{which} another segment's header says")
        held = self._held.get(number - 1, ())
        mark = parse_mark(line, number, before, self._name) if held else None
        for one in held:
            if one != mark and self._genuine(one):
                raise Broken("segment-held", since, f"{which} a checkpoint held outside vouches for")
        self._agreed = number

    def _mark(self, line: bytes, number: int, before: bytes) -> State:
        mark = parse_mark(line, number, before, self._name)
        if mark is None:
            raise Broken("segment-chain", number, "it is neither an event nor a mark of this segment")
        if self._key is not None:
            try:
                mark.verify(self._key)
            except CloisterError:
                raise Broken("segment-marks", number, "its signature is not the segment's key's") from None
            self._signed, self._marks_signed, self._last = number, self._marks + 1, mark
        if mark in self._held.get(number - 1, ()):
            self._vouched = number
        if mark.state is State.CLOSED:
            self._ending = Ending.CLOSED
        self._marks += 1
        self._pace.mark(mark, number)
        return mark.state

    def verdict(self, broken: Broken | None) -> SegmentVerdict:
        """All checks, in their order."""
        tagged = self._root is not None and self._signed > 0
        proven, marks = (self._lines, self._marks) if tagged else (self._signed, self._marks_signed)
        entries = max(0, proven - 1 - marks)
        made = [check_unbroken("segment-chain", broken, f"{self._lines} lines, {entries} of them events")]
        if self._key is None:
            made.append(
                failed(
                    "segment-marks", f"the segment is signed by a key that isn't pinned: {self._header.key}"
                )
            )
        elif self._signed == 0 and broken is None:
            made.append(failed("segment-marks", "no mark signs the segment"))
        else:
            made.append(check_unbroken("segment-marks", broken, f"signed up to line {self._signed}"))
        if self._unopened is not None:
            made.append(not_run("segment-tags", self._unopened))
        elif self._with_secrets:
            made.append(check_unbroken("segment-tags", broken, f"{self._lines} tags"))
        if self._links:
            made.append(check_unbroken("segment-links", broken, f"as {len(self._links)} other headers say"))
        made += [
            self._check_held(broken),
            self._check_end(broken, proven),
            self._check_lost(),
            self._pace.check(),
        ]
        return SegmentVerdict(
            header=self._header,
            opened=self._opened,
            lines=self._lines,
            proven=proven,
            entries=entries,
            signed=self._signed,
            vouched=self._vouched,
            last=self._last,
            ending=self._ending,
            broken_at=None if broken is None else broken.line,
            checks=tuple(made),
        )

    def _check_held(self, broken: Broken | None) -> Check:
        if not self._compared:
            return not_run("segment-held", "no checkpoints held outside were given")
        if broken is not None:
            return check_unbroken("segment-held", broken)
        if self._forged:
            return failed(
                "segment-held", f"{self._forged} held checkpoints are not signed by the segment's key"
            )
        if not self._vouched:
            return failed("segment-held", "nobody outside holds a checkpoint of this segment")
        return passed("segment-held", f"vouched for up to line {self._vouched}")

    def _check_end(self, broken: Broken | None, proven: int) -> Check:
        if broken is not None:
            return not_run("segment-end", f"line {broken.line} doesn't hold")
        if self._ending is Ending.CLOSED:
            return passed("segment-end", "closed by its writer")
        how = "in the middle of a line" if self._ending is Ending.TORN else "without a closing mark"
        if not self._vouched:
            return failed("segment-end", f"it ends {how}, and nobody vouches for where")
        behind, unproven = self._lines - self._vouched, self._lines - proven
        return passed(
            "segment-end",
            f"it ends {how}: its process runs or was stopped; {behind} lines behind {self._vouched} were "
            f"acknowledged to nobody; unverified, {unproven} lines",
        )

    def _check_lost(self) -> Check:
        lost = self._header.lost
        if lost:
            return failed("segment-lost", f"{lost} entries were taken before it and never became durable")
        return passed("segment-lost", "no entry was lost before it")
