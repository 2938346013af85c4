"""Attacks by a site on what it states of its worker's end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.evidence.predicates import Destruction
from cloister.evidence.predicates.custody import WORKER_LOOKS
from tests.evidence.attacks.edits import NeverUsed, detail, step
from tests.evidence.synthetic import Fields, Step, SyntheticJob, digest, verify

Lie = Callable[[list[Step]], None]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SyntheticJob:
    return SyntheticJob(tmp_path_factory.mktemp("destroyed")).run()


def looks(**outcomes: str) -> list[Fields]:
    by_name = {name.replace("-", "_"): name for name in WORKER_LOOKS}
    return [
        {"name": name, "outcome": outcomes.get(field, "passed"), "detail": ""}
        for field, name in by_name.items()
    ]


def stating(**changes: object) -> Lie:
    return lambda steps: step(steps, Destruction).update(changes)


def left_out(steps: list[Step]) -> None:
    steps[:] = [one for one in steps if one[0] is not Destruction]


def told_first(steps: list[Step]) -> None:
    (gone,) = [one for one in steps if one[0] is Destruction]
    steps.remove(gone)
    steps.insert(5, gone)


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (stating(checks=looks(process_reaped="failed"), method="wiped"), "process-reaped failed"),
        (stating(checks=looks(namespaces_empty="failed")), "namespaces-empty failed"),
        (stating(checks=looks(no_core_file="failed")), "no-core-file failed"),
        (stating(checks=looks(no_page_on_disk="failed")), "no-page-on-disk failed"),
        (
            stating(checks=looks(record_buffers_wiped="failed"), method="killed, reaped"),
            "record-buffers-wiped failed",
        ),
        (stating(checks=looks(record_buffers_wiped="not_run")), "its own look says otherwise"),
        (stating(method="killed, reaped"), "its own look says otherwise"),
        (stating(checks=looks(process_reaped="not_run"), method="wiped, killed"), "nobody saw the end"),
        (stating(method="wiped, killed"), "nobody saw the end"),
        (stating(checks=looks()[:2]), "otherwise than agreed"),
        (stating(checks=[*looks(), looks()[0]]), "otherwise than agreed"),
        (stating(checks=[{"name": "trust me", "outcome": "passed", "detail": ""}]), "otherwise than agreed"),
        (stating(artifacts=[digest("another worker")]), "whose end is not stated"),
        (stating(what="records"), "whose end is not stated"),
        (stating(simulated=True), "only rehearsed"),
        (left_out, "whose end is not stated"),
        (told_first, "before its last round"),
    ],
)
def test_a_receipt_whose_worker_is_not_shown_to_be_gone_is_refused(
    job: SyntheticJob, lie: Lie, said: str
) -> None:
    verdict = verify(job, job.lying_site("north", lie))
    assert not verdict.accepted
    assert {one.id for one in verdict.checks if one.outcome == "failed"} == {"destruction"}
    assert said in detail(verdict, "destruction")
    assert "north" in detail(verdict, "destruction")


def test_a_worker_whose_updates_nobody_used_is_shown_to_be_gone_as_well(tmp_path: Path) -> None:
    job = NeverUsed(tmp_path).run()
    assert "destructions stated, no look at them failed" in detail(verify(job, job.receipt()), "destruction")
    verdict = verify(job, job.lying_site("north", left_out))
    assert "north: a worker was sealed whose end is not stated" in detail(verdict, "destruction")


def test_a_look_that_could_not_be_made_is_a_warning_and_named_in_the_summary(job: SyntheticJob) -> None:
    receipt = job.lying_site("north", stating(checks=looks(namespaces_empty="not_run")))
    verdict = verify(job, receipt)
    assert verdict.accepted
    assert "WARNING, could not be looked at: north: namespaces-empty" in detail(verdict, "destruction")
    summary = json.loads(receipt)["body"]["summary"]["destruction"]
    by_party = {one["party"]: one for one in summary}
    assert by_party["north"]["not_run"] == ["namespaces-empty"]
    assert by_party["north"]["verified"] is False
    assert by_party["south"]["not_run"] == []
    assert by_party["south"]["verified"] is True


def test_wiping_that_was_not_done_is_a_warning_where_the_site_says_so(tmp_path: Path) -> None:
    job = SyntheticJob(tmp_path).run()
    honest = stating(checks=looks(record_buffers_wiped="not_run"), method="killed, reaped")
    verdict = verify(job, job.lying_site("north", honest))
    assert verdict.accepted
    assert "north: record-buffers-wiped" in detail(verdict, "destruction")


def test_a_failed_look_at_anything_that_was_destroyed_refuses_the_receipt(job: SyntheticJob) -> None:
    def of_records(steps: list[Step]) -> None:
        checks = [{"name": "no file is left", "outcome": "failed", "detail": "one is"}]
        fields: Fields = {"what": "records", "method": "removed", "artifacts": [], "checks": checks}
        steps.append((Destruction, {**fields, "simulated": False}))

    verdict = verify(job, job.lying_site("north", of_records))
    assert "north: records: no file is left failed" in detail(verdict, "destruction")
    assert not verdict.accepted
