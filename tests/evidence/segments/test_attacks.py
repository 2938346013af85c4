"""What somebody who owns the machine can do to a segment, and what finds it."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize
from cloister.core.keys import Signer
from cloister.evidence.segments import (
    Ending,
    OpeningKey,
    SegmentLimits,
    SegmentVerdict,
    verify_directory,
    verify_segment,
)
from cloister.evidence.segments.chain import SegmentChain
from cloister.evidence.segments.checkpoint import SegmentCheckpoint, State, sign_segment
from cloister.evidence.segments.layout import parse_opening
from cloister.evidence.segments.secrets import SegmentSecrets
from tests.evidence.segments.conftest import Stream, failing

# 9 events, each acknowledged: header, mark, then an event and a mark each, then the closing mark.
LINES = 2 + 2 * 9 + 1
AT = "2026-11-21T14:00:00.000000Z"


def rows(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def assert_broken(verdict: SegmentVerdict, line: int, check: str) -> None:
    assert not verdict.accepted
    assert (verdict.broken_at, [one for one in failing(verdict) if one != "segment-clock"]) == (line, [check])


def test_an_honest_segment_is_accepted_by_third_parties_and_by_who_holds_the_secrets(stream: Stream) -> None:
    path = stream.written()
    for verdict in (stream.verify_as_third_party(path), stream.verify(path)):
        assert verdict.accepted, verdict.checks
        assert (verdict.lines, verdict.entries, verdict.vouched) == (LINES, 9, LINES)
        assert verdict.ending is Ending.CLOSED
        assert verdict.broken_at is None


def test_an_edited_event_is_found_at_its_line(stream: Stream) -> None:
    path = stream.written()
    edited = path.read_bytes().replace(b'"number":3', b'"number":4', 1)
    assert_broken(stream.verify_as_third_party(edited), 9, "segment-chain")


def test_an_edited_time_is_found_at_its_line(stream: Stream) -> None:
    lines = rows(stream.written())
    lines[8] = lines[8].replace(b'{"at":"2', b'{"at":"1')
    assert_broken(stream.verify_as_third_party(joined(lines)), 9, "segment-chain")


@pytest.mark.parametrize("line", range(1, LINES))
def test_a_deleted_line_is_found_where_it_was(stream: Stream, line: int) -> None:
    lines = rows(stream.written())
    del lines[line - 1]
    assert_broken(stream.verify_as_third_party(joined(lines)), line, "segment-chain")


def test_reordered_doubled_and_inserted_lines_are_found_at_the_first(stream: Stream) -> None:
    lines = rows(stream.written())
    swapped = [*lines[:6], lines[8], lines[7], lines[6], *lines[9:]]
    doubled = [*lines[:7], lines[6], *lines[7:]]
    inserted = [*lines[:7], b'{"at":"2026-11-21T14:00:00.000000Z","event":{}}', *lines[7:]]
    assert_broken(stream.verify_as_third_party(joined(swapped)), 7, "segment-chain")
    assert_broken(stream.verify_as_third_party(joined(doubled)), 8, "segment-chain")
    assert_broken(stream.verify_as_third_party(joined(inserted)), 8, "segment-chain")


@pytest.mark.parametrize("kept", range(1, LINES))
def test_a_tail_that_was_cut_off_is_found_by_a_checkpoint_held_outside(stream: Stream, kept: int) -> None:
    verdict = stream.verify_as_third_party(joined(rows(stream.written())[:kept]))
    assert_broken(verdict, kept + 1, "segment-held")


def test_without_held_checkpoints_a_cut_tail_is_not_accepted_but_not_told_from_a_kill(stream: Stream) -> None:
    data = joined(rows(stream.written())[:10])
    verdict = verify_segment(data, keys=[stream.signer.public_key], held=None)
    assert not verdict.accepted
    assert verdict.broken_at is None
    assert verdict.ending is Ending.OPEN
    assert failing(verdict) == ["segment-end"]


def test_a_past_rewritten_with_all_stolen_current_keys_contradicts_the_held_checkpoints(
    stream: Stream,
) -> None:
    data, forged = forged_past(stream)
    verdict = stream.verify_as_third_party(forged)
    assert_broken(verdict, 7, "segment-held")
    assert verify_segment(data, keys=[stream.signer.public_key], held=stream.held).accepted


def test_a_past_rewritten_with_all_stolen_current_keys_has_wrong_tags_even_where_nobody_held_anything(
    stream: Stream,
) -> None:
    _, forged = forged_past(stream)
    unseen = verify_segment(forged, keys=[stream.signer.public_key], held=None)
    assert failing(unseen) == []  # a third party alone can't know, and isn't told that all is well:
    assert not unseen.accepted
    with_secrets = verify_segment(forged, keys=[stream.signer.public_key], held=None, secrets=stream.opening)
    assert_broken(with_secrets, 7, "segment-tags")


def forged_past(stream: Stream) -> tuple[bytes, bytes]:
    """A segment, and the same with line 7 exchanged by who then stole the signer and the tagging key."""
    writer = stream.writer()
    for number in range(9):
        writer.append_durable({"number": number, "what": "call"})
    assert writer._flow.segment is not None
    key = bytes(writer._flow.segment.chain._ratchet._key)
    writer.close()
    data = stream.files()[-1].read_bytes()
    chain = stream.stolen(data, 6, key)
    lines = joined(data.split(b"\n")[:6])
    for number in range(2, 9):
        then = stream.held[number + 1]
        lines += chain.entry(then.at, canonicalize({"number": number, "what": "nothing"}))
        lines += chain.mark(then.at, then.uptime, State.RUNNING)[0]
    return data, lines + chain.mark(then.at, then.uptime, State.CLOSED)[0]


def test_lines_that_a_thief_of_the_current_key_adds_after_the_held_checkpoint_are_his_until_the_next_one(
    stream: Stream,
) -> None:
    """What stealing all keys does buy: the present. It is bounded by what was vouched for before."""
    writer = stream.writer()
    writer.append_durable({"number": 0})
    assert writer._flow.segment is not None
    key = bytes(writer._flow.segment.chain._ratchet._key)
    data = stream.files()[-1].read_bytes()
    chain = stream.stolen(data, 4, key)
    verdict = stream.verify(data + chain.entry(AT, b'{"number":1}'))
    assert (verdict.broken_at, verdict.vouched, verdict.lines) == (None, 4, 5)
    writer.close()


def test_a_segment_made_anew_with_a_stolen_signer_contradicts_its_held_opening(stream: Stream) -> None:
    path = stream.written()
    header = parse_opening(rows(path)[0])[1]
    secrets = SegmentSecrets.draw()
    anew = header.model_copy(update={"secrets": stream.opening.sealing_key.seal(secrets, header.id)})
    chain = SegmentChain(anew, secrets, stream.signer)
    lines = chain.open(AT) + chain.mark(AT, 1, State.RUNNING)[0]
    for _ in range(9):
        lines += chain.entry(AT, b'{"number":0}') + chain.mark(AT, 1, State.RUNNING)[0]
    lines += chain.mark(AT, 1, State.CLOSED)[0]
    assert (
        verify_segment(lines, keys=[stream.signer.public_key], held=None, secrets=stream.opening).broken_at
        is None
    )
    assert_broken(stream.verify(lines), 1, "segment-held")


def test_another_key_than_the_pinned_one_signs_nothing(stream: Stream, other_signer: Signer) -> None:
    path = stream.written()
    verdict = verify_segment(path, keys=[other_signer.public_key], held=stream.held)
    assert "segment-marks" in failing(verdict)
    stream.signer, honest = other_signer, stream.signer
    forged = stream.written()
    stream.signer = honest
    assert "segment-marks" in failing(stream.verify(forged))


def test_a_mark_with_anothers_signature_is_found_at_its_line(stream: Stream, other_signer: Signer) -> None:
    data = stream.written().read_bytes()
    chain = stream.stolen(data, 6, b"\0" * 32)
    chain._signer = other_signer
    forged = joined(data.split(b"\n")[:6]) + chain.entry(AT, b"{}") + chain.mark(AT, 1, State.CLOSED)[0]
    verdict = verify_segment(forged, keys=[stream.signer.public_key], held=None)
    assert_broken(verdict, 8, "segment-marks")


def test_a_checkpoint_of_a_fork_that_the_writer_signed_twice_is_found(stream: Stream) -> None:
    path = stream.written()
    real = stream.held[4]
    twin = sign_segment(
        real.segment, real.lines, b"\7" * 32, State.RUNNING, real.at, real.uptime, stream.signer
    )
    stream.held.append(twin)
    assert failing(stream.verify(path)) == ["segment-held"]


def test_a_forged_held_checkpoint_is_reported_and_does_not_accuse_the_segment(
    stream: Stream, other_signer: Signer
) -> None:
    path = stream.written()
    real = stream.held[4]
    lie = sign_segment(
        real.segment, real.lines, b"\7" * 32, State.RUNNING, real.at, real.uptime, other_signer
    )
    long_ = sign_segment(real.segment, 999, b"\7" * 32, State.RUNNING, real.at, real.uptime, other_signer)
    stream.held += [lie, long_]
    verdict = stream.verify(path)
    assert verdict.broken_at is None
    assert failing(verdict) == ["segment-held"]
    assert "2 held checkpoints are not signed" in next(
        c.detail for c in verdict.checks if c.id == "segment-held"
    )


def test_held_checkpoints_of_other_segments_vouch_for_nothing_here(stream: Stream) -> None:
    path = stream.written()
    mine = str(parse_opening(rows(path)[0])[1].id)
    stream.written()
    others = [one for one in stream.held if one.segment != mine]
    verdict = verify_segment(path, keys=[stream.signer.public_key], held=others)
    assert failing(verdict) == ["segment-held"]


def test_a_clock_that_was_set_back_is_reported_and_one_microsecond_is_not(stream: Stream) -> None:
    path = stream.written()
    assert stream.verify(path).accepted
    header = parse_opening(rows(path)[0])[1]
    for later, expected in (
        ("2026-11-21T13:59:58.000000Z", ["segment-clock"]),
        ("2026-11-21T13:59:59.999999Z", []),
    ):
        secrets = SegmentSecrets.draw()
        chain = SegmentChain(header, secrets, stream.signer)
        data = chain.open(AT) + chain.mark(AT, header.uptime, State.RUNNING)[0]
        data += chain.entry(later, b"{}") + chain.mark(later, header.uptime + 1, State.CLOSED)[0]
        verdict = verify_segment(data, keys=[stream.signer.public_key], held=None)
        assert failing(verdict) == expected


def test_a_clock_set_back_while_nothing_happened_is_seen_by_the_time_since_the_boot(stream: Stream) -> None:
    header = parse_opening(rows(stream.written())[0])[1]
    chain = SegmentChain(header, SegmentSecrets.draw(), stream.signer)
    data = chain.open(AT) + chain.mark(AT, header.uptime, State.RUNNING)[0]
    data += chain.mark(AT, header.uptime + 1_800_000_000, State.CLOSED)[0]
    assert failing(verify_segment(data, keys=[stream.signer.public_key], held=None)) == ["segment-clock"]


def test_a_segment_under_another_segments_name_is_refused(stream: Stream) -> None:
    first, second = stream.written(), stream.written()
    shutil.move(first, stream.directory / "kept")
    shutil.move(second, first)
    shutil.move(stream.directory / "kept", second)
    for path in (first, second):
        assert_broken(stream.verify(path), 1, "segment-chain")


def test_lines_of_another_process_do_not_fit(stream: Stream) -> None:
    first, second = rows(stream.written()), rows(stream.written())
    assert_broken(stream.verify(joined([*first[:6], *second[6:]])), 7, "segment-chain")


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_any_removed_segment_of_a_process_is_named(stream: Stream, removed: int) -> None:
    with stream.writer() as writer:
        for number in range(3):
            writer.append_durable({"number": number})
            writer.rotate()
    assert stream.verify_all().accepted
    gone = stream.files()[removed]
    gone.unlink()
    verdict = stream.verify_all()
    assert not verdict.accepted
    assert verdict.missing == (gone.stem,)


def test_the_removal_of_all_of_a_processs_segments_is_seen_by_what_others_hold(stream: Stream) -> None:
    path, other = stream.written(), stream.written()
    path.unlink()
    assert stream.verify_all().missing == (path.stem,)
    stream.held = [one for one in stream.held if one.segment == other.stem]
    assert stream.verify_all().accepted


def test_a_forged_checkpoint_of_a_segment_that_never_was_names_nothing_as_missing(
    stream: Stream, other_signer: Signer
) -> None:
    path = stream.written()
    name = path.stem[:-1] + "7"
    stream.held.append(sign_segment(name, 3, b"\7" * 32, State.RUNNING, AT, 1, other_signer))
    assert stream.verify_all().missing == ()


def test_an_earlier_segment_that_was_rewritten_contradicts_the_next_ones_header(stream: Stream) -> None:
    with stream.writer() as writer:
        writer.append_durable({"number": 0})
        writer.rotate()
        writer.append_durable({"number": 1})
    first = stream.files()[0]
    chain = stream.stolen(first.read_bytes(), 2, b"\0" * 32)
    forged = chain.entry(AT, b"{}") + chain.mark(AT, 1, State.RUNNING)[0] + chain.mark(AT, 2, State.CLOSED)[0]
    first.write_bytes(joined(rows(first)[:2]) + forged)
    verdict = verify_directory(stream.directory, keys=[stream.signer.public_key], held=None)
    assert failing(verdict.segments[first.name])[0] == "segment-links"


def test_a_file_that_is_no_segment_is_a_finding(stream: Stream) -> None:
    path = stream.written()
    for content in (b"", b"\n", b"{}\n", b"\0" * 4096, b"x" * 300_000, b"[" * 100_000 + b"\n"):
        stray = stream.directory / "stray.jsonl"
        stray.write_bytes(content)
        verdict = stream.verify_all()
        assert not verdict.accepted
        assert verdict.segments["stray.jsonl"].header is None
        assert verdict.segments[path.name].accepted


def test_bytes_behind_the_closing_mark_are_found(stream: Stream) -> None:
    data = stream.written().read_bytes()
    assert_broken(stream.verify(data + b"x"), LINES + 1, "segment-chain")
    assert_broken(stream.verify(data + b"\n"), LINES + 1, "segment-chain")
    chain = stream.stolen(data, LINES, b"\0" * 32)
    verdict = verify_segment(
        data + chain.mark(AT, 1, State.RUNNING)[0], keys=[stream.signer.public_key], held=None
    )
    assert_broken(verdict, LINES + 1, "segment-chain")


def test_secrets_of_another_auditor_leave_tags_not_run(stream: Stream) -> None:
    path = stream.written()
    verdict = verify_segment(
        path, keys=[stream.signer.public_key], held=stream.held, secrets=OpeningKey.generate()
    )
    assert not verdict.accepted
    assert [check.id for check in verdict.checks if check.outcome.value == "not_run"] == ["segment-tags"]


def test_segments_longer_than_a_block_are_read_whole(stream: Stream) -> None:
    with stream.writer(limits=SegmentLimits(entries_per_mark=50)) as writer:
        for number in range(3000):
            writer.append({"number": number, "text": "x" * 200})
    path = stream.files()[-1]
    assert path.stat().st_size > 3 * 256 * 1024
    verdict = stream.verify(path)
    assert verdict.accepted
    assert verdict.entries == 3000
    assert max(b.lines - a.lines for a, b in pairwise(stream.held)) <= 51


def test_a_checkpoint_equal_but_for_its_signature_is_not_the_segments(
    stream: Stream, other_signer: Signer
) -> None:
    path = stream.written()
    real = stream.held[3]
    stream.held[3] = SegmentCheckpoint(
        real.segment,
        real.lines,
        real.head,
        real.state,
        real.at,
        real.uptime,
        other_signer.sign(real.signed()),
    )
    assert failing(stream.verify(path)) == ["segment-held"]
