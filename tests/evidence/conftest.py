"""One honest job, run once, that the tests of receipts and verdicts share."""

from __future__ import annotations

import pytest

from tests.evidence.synthetic import SyntheticJob


@pytest.fixture(scope="session")
def honest_job(tmp_path_factory: pytest.TempPathFactory) -> SyntheticJob:
    """A hub, two sites, two rounds."""
    return SyntheticJob(tmp_path_factory.mktemp("honest")).run()


@pytest.fixture(scope="session")
def honest_receipt(honest_job: SyntheticJob) -> bytes:
    """The receipt of the honest job."""
    return honest_job.receipt()
