"""What other distributions plug in: an orchestrator, and model architectures, which are then measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.enclave import orchestrate
from cloister.enclave.measure import installed_versions, measure, measured_packages


def install(folder: Path, name: str, entry_points: str) -> None:
    """Lay a distribution out as an installer would."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def test_an_installed_orchestrator_runs_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up_orchestrator.py").write_text("def run(job):\n    return 'ran ' + job.name\n")
    install(tmp_path, "made_up_orchestrator", "[cloister.orchestrator]\nmade-up = made_up_orchestrator:run\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert orchestrate(Path("job.yaml"), orchestrator="made-up") == "ran job.yaml"


def test_packages_that_offer_model_architectures_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "made_up_models"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "made_up_layer.py").write_text("")
    install(
        tmp_path,
        "made_up_models",
        "[cloister.models]\none = made_up_models.deep:build\ntwo = made_up_layer:build\n"
        "three = made_up_models:build\nfour = not_there:build\n",
    )
    before = measured_packages()
    monkeypatch.syspath_prepend(str(tmp_path))
    after = measured_packages()
    assert {name: path for name, path in after.items() if name not in before} == {
        "made_up_models": package.resolve(),
        "made_up_layer": (tmp_path / "made_up_layer.py").resolve(),
    }
    first = measure(after, installed_versions(()))
    (package / "deep.py").write_text("def build(): ...\n")
    assert measure(after, installed_versions(())) != first
