"""The four centres: FLamby's preprocessing and split, reproduced; one centre with a single class."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloister.core.errors import InputError
from cloister.health import FederatedData, HealthError, load_source
from cloister.health.sources.heart_disease import SCHEMA, SITES, read_centre
from cloister.health.sources.heart_disease_split import TEST_ROWS

HASHES = {
    "cleveland": "22642bbfef66ad9fe575e394a6b92f32dcfa9d4d2c97c48c8f2c5dc371d45529",
    "hungarian": "891d8b8d935c644a81a1cb453446728e946ee6f44167eb10cb39a055b8df0036",
    "switzerland": "28bb3f70f67575af6700654d62e7418683bb35fd006fd251e00aa994e0262b6c",
    "va": "d88c420e1173357ad2855cc7a09911090e71fd81545abb7f1c2ec109e55f7cbe",
}


@pytest.fixture
def folder(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("heart-disease")


@pytest.fixture
def data(folder: Path) -> FederatedData:
    return load_source("uci-heart-disease", data_dir=folder)


def test_split_and_features_equal_flambys_published_ones(data: FederatedData, folder: Path) -> None:
    with (folder / "flamby_split.csv").open() as stream:
        published = list(csv.DictReader(stream))
    names = SCHEMA.feature_names
    assert names == tuple(list(published[0])[7:])
    test_rows = {
        name: SCHEMA.expand(read_centre(folder / f"processed.{name}.data", name)[0][list(TEST_ROWS[name])])
        for name in SITES
    }
    for name, site in data.sites.items():
        train = [row for row in published if row["center"] == name and row["set"] == "train"]
        test = [row for row in published if row["center"] == name and row["set"] == "test"]
        assert site.labels.tolist() == [int(row["label"]) for row in train]
        expected = np.asarray([[float(row[feature]) for feature in names] for row in train])
        expected[:, names.index("chol")] = expected[:, names.index("chol")].clip(0, 600)
        assert np.array_equal(SCHEMA.expand(site.raw), expected)
        assert data.test.labels[data.test.rows_of(name)].tolist() == [int(row["label"]) for row in test]
        expected = np.asarray([[float(row[feature]) for feature in names] for row in test])
        expected[:, names.index("chol")] = expected[:, names.index("chol")].clip(0, 600)
        assert np.array_equal(test_rows[name], expected)


def test_the_stored_split_is_what_scikit_learn_draws(folder: Path) -> None:
    from sklearn.model_selection import train_test_split

    for name in SITES:
        labels = read_centre(folder / f"processed.{name}.data", name)[1]
        both = min(np.bincount(labels, minlength=2)) > 2
        _, test = train_test_split(
            np.arange(labels.size),
            train_size=0.66,
            test_size=1.0 - 0.66,
            random_state=43,
            shuffle=True,
            stratify=labels if both else None,
        )
        assert sorted(test.tolist()) == list(TEST_ROWS[name])


def test_sizes_are_the_published_ones(data: FederatedData) -> None:
    assert [site.records for site in data.sites.values()] == [199, 172, 30, 85]
    assert [len(data.test.rows_of(name)) for name in SITES] == [104, 89, 16, 45]
    assert data.test.name == "flamby-test"


def test_the_dataset_hashes_are_pinned(data: FederatedData) -> None:
    assert {name: site.dataset_sha256 for name, site in data.sites.items()} == HASHES


def test_a_centre_with_a_single_class_is_allowed_and_says_so(data: FederatedData) -> None:
    assert [site.single_class for site in data.sites.values()] == [False, False, True, False]


def test_features_lie_within_the_declared_bounds(data: FederatedData) -> None:
    for site in data.sites.values():
        assert np.abs(site.features).max() <= 1.0
    assert "declared public bounds" in data.normalisation


def test_the_folder_above_and_some_of_the_centres_will_do(folder: Path) -> None:
    data = load_source("uci-heart-disease", data_dir=folder.parent, sites=("va", "cleveland"))
    assert tuple(data.sites) == ("va", "cleveland")
    assert data.test.records == 45 + 104


def test_without_a_folder_or_with_a_missing_file_it_is_refused(tmp_path: Path) -> None:
    for data_dir in (None, tmp_path):
        with pytest.raises(InputError) as refused:
            load_source("uci-heart-disease", data_dir=data_dir)
        assert refused.value.code == "input.missing_file"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.split("\n", 1)[1],
        lambda text: text + "63,1,1,145,233,1,2,150,0,2.3,3,0,6,0\n",
        lambda text: text.replace("63.0,1.0", "x,1.0", 1).replace("63,1", "x,1", 1),
        lambda text: "header,line\n" + text,
        lambda _: "",
    ],
)
def test_a_file_the_split_does_not_belong_to_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[str], str]
) -> None:
    for name in SITES:
        shutil.copy(folder / f"processed.{name}.data", tmp_path)
    target = tmp_path / "processed.cleveland.data"
    target.chmod(0o644)
    target.write_text(change(target.read_text()))
    with pytest.raises(HealthError) as refused:
        load_source("uci-heart-disease", data_dir=tmp_path)
    assert refused.value.code == "health.unexpected_file"


def test_a_changed_cell_is_another_dataset_hash(folder: Path, tmp_path: Path) -> None:
    for name in SITES:
        shutil.copy(folder / f"processed.{name}.data", tmp_path)
    target = tmp_path / "processed.va.data"
    target.chmod(0o644)
    target.write_text(target.read_text().replace("140,260", "140,261", 1))
    data = load_source("uci-heart-disease", data_dir=tmp_path)
    assert data.sites["va"].dataset_sha256 != HASHES["va"]
    assert data.sites["cleveland"].dataset_sha256 == HASHES["cleveland"]
