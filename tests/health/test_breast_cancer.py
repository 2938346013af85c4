"""The bundled records: real, whole, non-IID over three hospitals, and alike for everyone with one seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloister.health import HealthError, describe, load_source
from cloister.health.sources.breast_cancer import SCHEMA, packaged_file
from tests.timing import shortest

HASHES = {
    "northgate": "1f9e60fd8eee5a7e77802cc07fb302dafb9770099f7e5cecac4c5389e1988b85",
    "riverside": "974922c0b2b85b36d6397e79e5ce388495a5e623c535f516d3c53ad6562099a4",
    "lakeview": "dabed938d72346265a5b40ea1cf433b9e18d21eaf4f888c9c740bb305e418b28",
}


def test_the_records_are_scikit_learns() -> None:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    data = load_source("breast-cancer-wisconsin")
    rows = np.concatenate([site.raw for site in data.sites.values()])
    found = np.concatenate([rows, data.schema.expand(rows)], axis=1)[:, :30]
    known = {tuple(row): label for row, label in zip(bunch.data, bunch.target, strict=True)}
    for row, label in zip(found, np.concatenate([site.labels for site in data.sites.values()]), strict=True):
        assert known[tuple(row)] == label


def test_every_patient_is_in_exactly_one_place() -> None:
    data = load_source("breast-cancer-wisconsin")
    train = np.concatenate([site.features for site in data.sites.values()])
    together = np.concatenate([train, data.test.features])
    assert together.shape == (569, 30)
    assert len({row.tobytes() for row in together}) == 569


def test_three_hospitals_differ_in_size_and_in_their_share_of_malignant_cases() -> None:
    data = load_source("breast-cancer-wisconsin")
    assert {name: site.records for name, site in data.sites.items()} == {
        "northgate": 190,
        "riverside": 131,
        "lakeview": 79,
    }
    malignant = [float((site.labels == 0).mean()) for site in data.sites.values()]
    assert malignant == pytest.approx([0.20, 0.45, 0.66], abs=0.01)
    assert not any(site.single_class for site in data.sites.values())


def test_the_test_set_is_stratified_and_says_where_its_rows_come_from() -> None:
    test = load_source("breast-cancer-wisconsin").test
    assert test.name == "wisconsin-holdout"
    assert test.records == 169
    assert test.site_names == ("northgate", "riverside", "lakeview")
    assert {name: len(test.rows_of(name)) for name in test.site_names} == {
        "northgate": 81,
        "riverside": 55,
        "lakeview": 33,
    }
    assert float((test.labels == 0).mean()) == pytest.approx(212 / 569, abs=0.01)


def test_the_dataset_hashes_are_pinned() -> None:
    data = load_source("breast-cancer-wisconsin")
    assert {name: site.dataset_sha256 for name, site in data.sites.items()} == HASHES


def test_another_seed_is_another_split_with_the_same_shape() -> None:
    first, second = (load_source("breast-cancer-wisconsin", seed=seed) for seed in (0, 1))
    for name, site in first.sites.items():
        assert second.sites[name].records == site.records
        assert second.sites[name].dataset_sha256 != site.dataset_sha256


def test_some_of_the_hospitals_can_be_asked_for() -> None:
    data = load_source("breast-cancer-wisconsin", sites=("lakeview", "northgate"))
    assert tuple(data.sites) == ("lakeview", "northgate")
    assert data.sites["lakeview"].dataset_sha256 == HASHES["lakeview"]
    assert data.test.site_names == ("lakeview", "northgate")


@pytest.mark.parametrize("sites", [(), ("northgate", "northgate"), ("westpark",)])
def test_unknown_doubled_or_no_hospitals_are_refused(sites: tuple[str, ...]) -> None:
    with pytest.raises(HealthError) as refused:
        load_source("breast-cancer-wisconsin", sites=sites)
    assert refused.value.code == "health.unknown_site"


def test_bounds_are_round_and_hold_for_every_record_without_clamping() -> None:
    data = load_source("breast-cancer-wisconsin")
    assert all(column.outside.value == "refuse" for column in SCHEMA.columns)
    features = np.concatenate([data.test.features, *(site.features for site in data.sites.values())])
    assert np.abs(features).max() <= 1.0
    for column in SCHEMA.columns:
        for bound in column.bounds:
            assert len(f"{bound:g}".strip("0").replace(".", "").lstrip("0")) <= 2


@pytest.mark.parametrize("content", ["", "569,30\n1,2,3\n", "a,b\n" + "x" * 100])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "breast_cancer.csv").write_text(content)
    with pytest.raises(HealthError) as refused:
        load_source("breast-cancer-wisconsin", data_dir=tmp_path)
    assert refused.value.code == "health.unexpected_file"


def test_a_changed_cell_in_the_file_is_another_dataset_hash(tmp_path: Path) -> None:
    text = packaged_file().read_text()
    assert "17.99" in text
    (tmp_path / "breast_cancer.csv").write_text(text.replace("17.99", "17.98", 1))
    changed = load_source("breast-cancer-wisconsin", data_dir=tmp_path)
    hashes = {name: site.dataset_sha256 for name, site in changed.sites.items()}
    assert (hashes, changed.test.sha256) != (HASHES, load_source("breast-cancer-wisconsin").test.sha256)


def test_the_public_view_holds_no_statistic_of_the_records() -> None:
    data = load_source("breast-cancer-wisconsin")
    shown = describe(data).model_dump(mode="json")
    assert shown["sites"][0] == {
        "name": "northgate",
        "records": 190,
        "subjects": None,
        "features": 30,
        "dataset_sha256": HASHES["northgate"],
    }
    assert shown["bounds_sha256"] == SCHEMA.sha256
    assert set(shown) == {
        "source",
        "citation",
        "feature_names",
        "classes",
        "normalisation",
        "bounds_sha256",
        "sites",
        "test_set",
        "test_records",
        "test_set_sha256",
    }


@pytest.mark.timed
def test_loading_is_fast_and_does_not_import_scikit_learn() -> None:
    program = (
        "import sys, time, numpy, cloister.health as h\n"
        "h.load_source\n"
        "start = time.perf_counter(); h.load_source('breast-cancer-wisconsin')\n"
        "print(time.perf_counter() - start, 'sklearn' in sys.modules)"
    )

    def seconds() -> float:
        out = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
        assert out[1] == "False"
        return float(out[0])

    assert shortest(seconds, 0.05) < 0.05
