"""An audit export as an artifact: recognised, judged, and held to the exports before it and to witnesses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloister.evidence.artifacts import ArtifactKind, ArtifactVerdict, Demands, find_kind, verify_artifact
from cloister.evidence.checks import CheckRegistry
from cloister.evidence.custody import EXPORT_CHECK_IDS
from tests.evidence.custody.house import House

Exported = tuple[House, list[bytes]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """A site and the three exports it made."""
    with House(tmp_path_factory.mktemp("house")) as house:
        house.job()
        yield house, [house.export(house.of_job(), "north", ()) for _ in range(3)]


def judge(house: House, bundle: bytes, demands: Demands | None = None) -> ArtifactVerdict:
    return verify_artifact(bundle, house.trust, demands or Demands(), CheckRegistry)


def test_an_export_is_recognised_and_accepted(exported: Exported) -> None:
    house, (first, *_) = exported
    verdict = judge(house, first)
    assert find_kind(first) is ArtifactKind.EXPORT
    assert verdict.accepted
    assert [check.id for check in verdict.checks] == [*EXPORT_CHECK_IDS, "witnesses"]
    assert verdict.facts["exported by"] == "site north"


def test_a_changed_export_is_refused(exported: Exported) -> None:
    house, (first, *_) = exported
    assert not judge(house, first.replace(b'"recipient":"', b'"recipient":"x')).accepted
    assert not judge(house, first[:-1]).accepted


def test_an_export_follows_the_ones_before_it(exported: Exported) -> None:
    house, (first, second, third) = exported
    assert judge(house, third, Demands(previous=(first, second))).accepted
    assert judge(house, second, Demands(previous=(first,))).accepted


def test_a_missing_export_is_located(exported: Exported) -> None:
    house, (first, _, third) = exported
    (broken,) = judge(house, third, Demands(previous=(first,))).failures
    assert broken.id == "custody-chain"
    assert "doesn't follow" in broken.detail


def test_an_earlier_export_that_is_not_sound_breaks_the_chain(exported: Exported) -> None:
    house, (first, second, _) = exported
    forged = first.replace(b'"recipient":"', b'"recipient":"x')
    (broken,) = judge(house, second, Demands(previous=(forged,))).failures
    assert broken.id == "custody-chain"
    assert "export 1 is refused" in broken.detail


def test_an_export_whose_logs_lack_the_witnesses_wanted_is_refused(exported: Exported) -> None:
    house, (first, *_) = exported
    assert [check.id for check in judge(house, first, Demands(witnesses=1)).failures] == ["witnesses"]
