"""A job file is parsed once, whole, and nothing in it is read twice or guessed."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from cloister.core.errors import InputError
from cloister.evidence.extract import log_stream
from cloister.workflow.jobfile import load_job
from tests.system.example_job import EXAMPLES, TUMOUR, ExampleJob


def test_the_examples_are_read_with_their_paths_resolved() -> None:
    for name in ("tumour", "heart"):
        spec = load_job(EXAMPLES / name / "job.yaml")
        assert spec.file.name == name
        assert spec.manifest_path.read_text()
        assert spec.request_path.read_text()


def test_the_job_that_runs_is_what_the_file_says() -> None:
    job = load_job(TUMOUR).federation_job()
    assert job.clients == ("lakeview", "northgate", "riverside")
    assert (job.rounds, job.min_clients, job.strategy, job.seed) == (10, 3, "FED_AVG", 7)
    assert job.privacy.noise_multiplier is None
    assert (job.privacy.target_epsilon, job.privacy.delta) == (2.0, 1e-4)
    assert job.dataset_id == "breast-cancer-wisconsin"


def test_a_job_without_an_id_gets_a_fresh_one_each_time() -> None:
    spec = load_job(TUMOUR)
    first, second = spec.federation_job(), spec.federation_job()
    assert UUID(first.job_id) != UUID(second.job_id)
    assert first.model_copy(update={"job_id": ""}) == second.model_copy(update={"job_id": ""})


def test_a_job_with_an_id_keeps_it(tmp_path: Path) -> None:
    own = "11111111-1111-4111-8111-111111111111"
    assert ExampleJob(job={"job_id": own}).spec(tmp_path).federation_job().job_id == own


def test_a_job_cannot_be_given_the_id_of_a_logs_own_statements(tmp_path: Path) -> None:
    """Its end would end them: who reads the log, and what is exported from it, could be stated no more."""
    for origin in ("cloister/hub/hub", "cloister/site/north"):
        with pytest.raises(InputError) as refused:
            ExampleJob(job={"job_id": log_stream(origin)}).spec(tmp_path)
        assert "job_id" in str([refused.value.message, *refused.value.details])


def test_the_order_in_which_sites_are_listed_makes_no_other_job(tmp_path: Path) -> None:
    own = "11111111-1111-4111-8111-111111111111"
    hashes = {
        ExampleJob(job={"job_id": own, "data.sites": list(sites)}).spec(tmp_path).federation_job().sha256
        for sites in (("lakeview", "northgate", "riverside"), ("riverside", "lakeview", "northgate"))
    }
    assert len(hashes) == 1


def test_data_of_ones_own_gives_way_to_the_variant_that_the_file_names(tmp_path: Path) -> None:
    assert load_job(TUMOUR, data_dir=tmp_path).file.name == "heart"
    assert load_job(TUMOUR).file.name == "tumour"


def test_a_file_without_a_variant_keeps_its_own_job_whatever_data_is_given(tmp_path: Path) -> None:
    heart = EXAMPLES / "heart" / "job.yaml"
    assert load_job(heart, data_dir=tmp_path) == load_job(heart)


def test_simulated_attestation_is_a_word_in_the_file_and_no_default(tmp_path: Path) -> None:
    path = ExampleJob().write(tmp_path)
    path.write_text(path.read_text().replace('"attestation": "simulated",', ""))
    with pytest.raises(InputError) as refused:
        load_job(path)
    assert refused.value.details == ("attestation: missing",)


@pytest.mark.parametrize("section", ["privacy", "training", "federation", "data"])
def test_a_seed_for_the_noise_has_no_place_in_the_file(section: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="noise_seed: unknown field"):
        ExampleJob(job={f"{section}.noise_seed": 5}).spec(tmp_path)


def test_every_wrong_field_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        ExampleJob(job={"federation.rounds": 0, "privacy.delta": 2.0, "colour": "red"}).spec(tmp_path)
    assert sorted(line.split(":")[0] for line in refused.value.details) == [
        "colour",
        "federation.rounds",
        "privacy.delta",
    ]
