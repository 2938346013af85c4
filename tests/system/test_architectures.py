"""Every built-in architecture goes the whole way: asked for, decided on, trained, released and verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.core.canonical import JSON
from tests.system.conftest import run
from tests.system.example_job import FAST, ExampleJob


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ("mlp", {"hidden": [16, 8]}),
        ("small-cnn", {"channels": 4}),
        ("gru", {"hidden": 4}),
        ("cnn-1d", {"channels": 4}),
        ("transformer-encoder", {"patch": 5, "width": 8}),
    ],
)
def test_a_job_with_this_architecture_ends_in_an_accepted_receipt(
    architecture: str, parameters: dict[str, JSON], tmp_path: Path
) -> None:
    job = ExampleJob(
        job={**FAST, "model": {"architecture": architecture, "parameters": parameters}},
        request={
            "model_specification.architecture": architecture,
            "model_specification.hyperparameters": parameters,
        },
    )
    outcome = run(job.spec(tmp_path), tmp_path / "work")
    assert outcome.verdict.failures == ()
    assert outcome.architecture == architecture
