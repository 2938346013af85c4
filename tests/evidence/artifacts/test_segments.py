"""Segments as an artifact: one file or a folder, with and without what others hold of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.core.keys import Signer
from cloister.evidence import Trust, TrustEntry
from cloister.evidence.artifacts import ArtifactKind, ArtifactVerdict, Demands, find_kind, verify_artifact
from cloister.evidence.checks import CheckRegistry
from cloister.evidence.predicates import Role
from cloister.evidence.segments import FileSink, OpeningKey, SegmentWriter
from tests.evidence.segments.test_unsigned_tail import forged


@dataclass(frozen=True)
class Stream:
    """A site's finished stream, what was kept outside, and who opens its secrets."""

    folder: Path
    file: Path
    held: bytes
    trust: Trust
    opening: OpeningKey

    def judge(self, source: Path | None = None, demands: Demands | None = None) -> ArtifactVerdict:
        place = source or self.file
        wanted = demands or Demands(held=(self.held,))
        return verify_artifact(place, self.trust, wanted, CheckRegistry, kind=ArtifactKind.SEGMENT)


@pytest.fixture
def stream(tmp_path: Path, new_signer: Callable[[str], Signer]) -> Stream:
    folder, sink = tmp_path / "audit", tmp_path / "sink.jsonl"
    folder.mkdir()
    signer, opening = new_signer("site"), OpeningKey.generate()
    outside = FileSink(sink)
    writer = SegmentWriter(folder, "immune", signer, opening.sealing_key, sinks=[outside])
    for number in range(10):
        writer.append({"call": number})
    writer.close()
    outside.close()
    (file,) = folder.iterdir()
    pem = signer.public_key.pem.encode()
    return Stream(folder, file, sink.read_bytes(), Trust([TrustEntry(Role.SITE, "north", pem)]), opening)


def refused(verdict: ArtifactVerdict) -> set[str]:
    return {check.id for check in verdict.failures}


def test_a_segment_is_recognised_by_how_it_begins(stream: Stream) -> None:
    assert find_kind(stream.file.read_bytes()[:4096]) is ArtifactKind.SEGMENT
    assert find_kind(stream.folder) is ArtifactKind.SEGMENT


def test_a_whole_segment_with_its_checkpoints_is_accepted(stream: Stream) -> None:
    verdict = stream.judge()
    assert verdict.accepted, verdict.failures
    assert verdict.facts["signed by"] == "site north"
    assert verdict.facts["events"] == "10"


def test_who_opens_its_secrets_has_its_tags_computed_again(stream: Stream) -> None:
    verdict = stream.judge(demands=Demands(held=(stream.held,), segment_secrets=stream.opening))
    assert verdict.accepted
    assert "segment-tags" in {check.id for check in verdict.checks}


def test_another_key_opens_nothing_and_the_check_is_not_run(stream: Stream) -> None:
    demands = Demands(held=(stream.held,), segment_secrets=OpeningKey.generate())
    assert refused(stream.judge(demands=demands)) == {"segment-tags"}


def test_without_checkpoints_held_outside_it_is_not_accepted(stream: Stream) -> None:
    assert refused(stream.judge(demands=Demands())) == {"segment-held"}


def test_an_edited_line_is_named(stream: Stream) -> None:
    stream.file.write_bytes(stream.file.read_bytes().replace(b'{"call":4}', b'{"call":5}'))
    verdict = stream.judge()
    assert not verdict.accepted
    assert any("line" in check.detail for check in verdict.failures)


def test_a_tail_that_was_cut_off_is_found_by_what_is_held(stream: Stream) -> None:
    lines = stream.file.read_bytes().splitlines(keepends=True)
    stream.file.write_bytes(b"".join(lines[:-3]))
    assert "segment-held" in refused(stream.judge())


def test_a_segment_that_nobody_pinned_signed_is_refused(stream: Stream, other_signer: Signer) -> None:
    pem = other_signer.public_key.pem.encode()
    other = Stream(
        stream.folder, stream.file, stream.held, Trust([TrustEntry(Role.SITE, "x", pem)]), stream.opening
    )
    assert {"segment-marks", "segment-signer"} <= refused(other.judge())


def test_a_folder_is_judged_as_a_whole(stream: Stream) -> None:
    assert stream.judge(stream.folder).accepted
    stream.file.unlink()
    (stream.folder / f"{'0' * 8}.jsonl").write_bytes(b"")
    assert "stream-complete" in refused(stream.judge(stream.folder))


def test_a_folder_names_the_segment_that_does_not_hold(stream: Stream) -> None:
    stream.file.write_bytes(stream.file.read_bytes().replace(b'{"call":4}', b'{"call":5}'))
    verdict = stream.judge(stream.folder)
    (chain,) = [check for check in verdict.failures if check.id == "segment-chain"]
    assert stream.file.name in chain.detail


def test_a_check_that_one_segment_could_not_make_was_not_run_for_the_folder(stream: Stream) -> None:
    verdict = stream.judge(stream.folder, Demands())
    assert [(one.id, one.outcome.value) for one in verdict.failures] == [("segment-held", "not_run")]


def test_checkpoints_that_are_none_hold_nothing(stream: Stream) -> None:
    """A file without a checkpoint in it is no file of checkpoints."""
    for source in (stream.file, stream.folder):
        for data in (b"", b"nothing\n"):
            verdict = stream.judge(source, Demands(held=(data,)))
            assert [(one.id, one.outcome.value) for one in verdict.failures] == [("segment-held", "not_run")]
            assert ("1 held lines can't be read" in verdict.failures[0].detail) == bool(data)


def test_held_lines_that_cannot_be_read_are_counted_and_take_nothing_from_the_others(stream: Stream) -> None:
    verdict = stream.judge(demands=Demands(held=(b'{"at":"20\n\n' + stream.held,)))
    assert verdict.accepted
    (held,) = [check.detail for check in verdict.checks if check.id == "segment-held"]
    assert "1 held lines can't be read" in held


@pytest.mark.parametrize("held", [(), (b"",)])
def test_an_empty_folder_is_no_evidence(stream: Stream, held: tuple[bytes, ...]) -> None:
    stream.file.unlink()
    verdict = stream.judge(stream.folder, Demands(held=held))
    assert refused(verdict) == {"stream-complete", "segment-held"}
    assert refused(stream.judge(stream.folder)) == {"stream-complete"}


def test_what_nobody_signed_is_told_and_counts_for_nothing(stream: Stream) -> None:
    """Anybody can carry on the chain of a segment that a kill left without its closing mark."""
    *lines, _, _ = stream.file.read_bytes().split(b"\n")
    held = b"\n".join(stream.held.split(b"\n")[:-3]) + b"\n"
    left = b"\n".join(lines) + b"\n"
    stream.file.write_bytes(forged(left, b'{"admin":"Dr Roy"}', b'{"admin":"Dr Roy"}'))
    demands = Demands(held=(held,))
    for source in (stream.file, stream.folder):
        verdict = stream.judge(source, demands)
        assert verdict.accepted, verdict.failures
        assert verdict.facts["events"] == "0"  # its ten waited for the closing mark
        assert verdict.facts["unverified, and no events"] == "12 lines"
    demands = Demands(held=(held,), segment_secrets=stream.opening)
    assert "segment-tags" in refused(stream.judge(demands=demands))
