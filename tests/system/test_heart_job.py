"""The heart-disease job on the four centres' real files, where they are on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.evidence.predicates import DataCommitment
from cloister.workflow.jobfile import load_job
from cloister.workflow.outcome import JobOutcome
from tests.conftest import SharedData
from tests.system.example_job import TUMOUR, run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

CENTRES = ["cleveland", "hungarian", "switzerland", "va"]


@pytest.fixture(scope="module")
def heart_job(shared_data: SharedData, tmp_path_factory: pytest.TempPathFactory) -> JobOutcome:
    """The tumour job given a folder of heart-disease files."""
    files = shared_data("heart-disease")
    return run(load_job(TUMOUR, data_dir=files), tmp_path_factory.mktemp("heart") / "work", data_dir=files)


def test_data_of_ones_own_turns_the_example_into_the_four_centre_job(heart_job: JobOutcome) -> None:
    assert heart_job.name == "heart"
    assert heart_job.source == "uci-heart-disease"
    assert [site.site for site in heart_job.sites] == CENTRES
    assert [site.records for site in heart_job.sites] == [199, 172, 30, 85]
    assert heart_job.test_set == "flamby-test"


def test_its_receipt_verifies(heart_job: JobOutcome) -> None:
    assert judge(heart_job).accepted


def test_a_centre_with_one_class_only_takes_part_and_is_reported(heart_job: JobOutcome) -> None:
    workspace = heart_job.folder.parents[1]
    single = {
        site
        for site in CENTRES
        for one in stated_in_log(workspace, "site", site)
        if isinstance(one, DataCommitment) and one.single_class
    }
    undefined = {site.site for site in heart_job.sites if site.auroc is None}
    assert single | undefined == {"switzerland"}
    (switzerland,) = (site for site in heart_job.sites if site.site == "switzerland")
    assert "undefined" in switzerland.note or "one class" in switzerland.note
    assert switzerland.steps == 10


def test_its_report_says_undefined_where_a_figure_is(heart_job: JobOutcome, tmp_path: Path) -> None:
    page = heart_job.report.read_text()
    assert "SIMULATED attestation" in page
    assert ("undefined" in page) == any(site.auroc is None for site in heart_job.sites)
