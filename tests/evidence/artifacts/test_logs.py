"""A log's tiles as an artifact: accepted whole, refused for any change, held to what was seen before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.core.keys import Signer
from cloister.evidence import EvidenceLog, Trust, TrustEntry
from cloister.evidence.artifacts import ArtifactKind, ArtifactVerdict, Demands, find_kind, verify_artifact
from cloister.evidence.checkpoint import sign_checkpoint
from cloister.evidence.checks import CheckRegistry
from cloister.evidence.log import export_tiles
from cloister.evidence.predicates import Role
from tests.evidence.log.places import ORIGIN, item


@dataclass(frozen=True)
class Published:
    """A log of 300 entries as tiles, its key, and its heads at some sizes."""

    tiles: Path
    trust: Trust
    signer: Signer
    heads: dict[int, bytes]

    def judge(self, demands: Demands | None = None) -> ArtifactVerdict:
        return verify_artifact(self.tiles, self.trust, demands or Demands(), CheckRegistry)


@pytest.fixture
def published(tmp_path: Path, signer: Signer) -> Published:
    heads = {}
    with EvidenceLog.create(tmp_path / "log.sqlite", origin=ORIGIN, signer=signer) as log:
        for size in (7, 256, 300):
            log.append_many([item(signer, number) for number in range(log.size, size)])
            heads[size] = log.checkpoint().encode().encode()
        export_tiles(log, tmp_path / "tiles")
    trust = Trust([TrustEntry(Role.SITE, "north", signer.public_key.pem.encode())])
    return Published(tmp_path / "tiles", trust, signer, heads)


def refused(verdict: ArtifactVerdict) -> list[str]:
    return [check.id for check in verdict.failures]


def test_a_folder_of_tiles_is_recognised_and_accepted(published: Published) -> None:
    assert find_kind(published.tiles) is ArtifactKind.LOG
    verdict = published.judge()
    assert verdict.accepted, verdict.failures
    assert verdict.facts["entries"] == "300"


def test_the_log_begins_as_every_held_checkpoint_says(published: Published) -> None:
    assert published.judge(Demands(held=tuple(published.heads.values()))).accepted


def test_any_changed_file_is_found(published: Published) -> None:
    files = [path for path in published.tiles.rglob("*") if path.is_file()]
    assert len(files) > 4
    for path in files:
        before = path.read_bytes()
        for at in (0, len(before) // 2, len(before) - 1):
            path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
            assert not published.judge().accepted, path
        path.unlink()
        assert not published.judge().accepted, path
        path.write_bytes(before)
    assert published.judge().accepted


def test_a_log_that_was_rewritten_is_found_with_what_was_held(published: Published) -> None:
    other = sign_checkpoint(ORIGIN, 7, b"\x01" * 32, published.signer).encode().encode()
    verdict = published.judge(Demands(held=(other,)))
    assert refused(verdict) == ["held-checkpoints"]
    assert "rewritten" in verdict.failures[0].detail


def test_a_log_that_was_rolled_back_is_found_with_what_was_held(published: Published) -> None:
    later = sign_checkpoint(ORIGIN, 301, b"\x01" * 32, published.signer).encode().encode()
    verdict = published.judge(Demands(held=(later,)))
    assert refused(verdict) == ["held-checkpoints"]
    assert "rolled back" in verdict.failures[0].detail


def test_a_held_checkpoint_of_another_key_proves_nothing(
    published: Published, new_signer: Callable[[str], Signer]
) -> None:
    forged = sign_checkpoint(ORIGIN, 7, b"\x01" * 32, new_signer("forger")).encode().encode()
    assert refused(published.judge(Demands(held=(forged,)))) == ["held-checkpoints"]


def test_witnesses_may_be_wanted(published: Published) -> None:
    assert refused(published.judge(Demands(witnesses=1))) == ["witnesses"]


def test_a_log_of_an_owner_who_is_not_pinned_is_refused(published: Published, other_signer: Signer) -> None:
    pem = other_signer.public_key.pem.encode()
    verdict = verify_artifact(
        published.tiles, Trust([TrustEntry(Role.SITE, "north", pem)]), Demands(), CheckRegistry
    )
    assert refused(verdict) == ["checkpoint-signature", "log-entries", "statement-chains"]
