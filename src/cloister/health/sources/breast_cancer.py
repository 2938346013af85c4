"""Wisconsin diagnostic breast cancer: 569 real patients, bundled with scikit-learn, over three hospitals.

The records come from one clinic. The three hospitals are made here, by a public rule that needs no random
number generator: within each class, rows are ordered by SHA-256 of seed and row number, dealt out by the
table ``HOSPITALS`` (sizes and shares of malignant cases differ, so the sites are non-IID), and 30 % of
each hospital's rows of each class are set aside as the public test set ``wisconsin-holdout``.

The bounds are round numbers that contain the ranges printed in the data set's public documentation (summary
statistics, UCI Machine Learning Repository 17 and scikit-learn's data set description), so scaling by them
tells nothing about any hospital's records.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cloister.core.files import read_bounded
from cloister.health.commitment import PUBLIC_RECORDS
from cloister.health.data import FederatedData, make_site, make_test_set
from cloister.health.errors import HealthError
from cloister.health.schema import Column, Float64Array, Int64Array, LabelColumn, TableSchema
from cloister.health.sources.selection import choose_sites

NAME = "breast-cancer-wisconsin"
TEST_SET = "wisconsin-holdout"
CITATION = (
    "Wolberg, Mangasarian, Street, Street (1995), Breast Cancer Wisconsin (Diagnostic), "
    "UCI Machine Learning Repository, doi 10.24432/C5DW2B, CC BY 4.0; spread over three made-up hospitals"
)
RECORDS = 569
MALIGNANT, BENIGN = 0, 1
HOLDOUT_PERCENT = 30
_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Hospital:
    """How many of the patients of each class a made-up hospital gets, test rows included."""

    name: str
    malignant: int
    benign: int


HOSPITALS = (
    Hospital("northgate", malignant=54, benign=217),
    Hospital("riverside", malignant=84, benign=102),
    Hospital("lakeview", malignant=74, benign=38),
)

_MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)
_BOUNDS = {
    "mean": (
        (5, 30),
        (5, 40),
        (40, 200),
        (100, 2600),
        (0.05, 0.2),
        (0, 0.4),
        (0, 0.5),
        (0, 0.25),
        (0.1, 0.4),
        (0.04, 0.1),
    ),
    "standard error": (
        (0, 3),
        (0, 5),
        (0, 25),
        (0, 600),
        (0, 0.04),
        (0, 0.15),
        (0, 0.4),
        (0, 0.06),
        (0, 0.08),
        (0, 0.03),
    ),
    "worst": (
        (5, 40),
        (10, 50),
        (50, 260),
        (150, 4300),
        (0.05, 0.25),
        (0, 1.1),
        (0, 1.3),
        (0, 0.3),
        (0.15, 0.7),
        (0.05, 0.25),
    ),
}

SCHEMA = TableSchema(
    name=NAME,
    columns=tuple(
        Column(name=f"{measure} ({statistic})", lower=float(low), upper=float(high))
        for statistic, pairs in _BOUNDS.items()
        for measure, (low, high) in zip(_MEASURES, pairs, strict=True)
    ),
    label=LabelColumn(name="diagnosis", classes=("malignant", "benign")),
    basis="round numbers that contain the ranges published in the data set's documentation",
)
NORMALISATION = (
    "declared public bounds: each feature is mapped linearly from bounds rounded outward from the data set's "
    "published ranges to [-1, 1]; no statistic of the training records is used"
)


def prepare(*, data_dir: Path | None, sites: Sequence[str] | None) -> tuple[str, ...]:
    """Make nothing: the records are public, so their hashes need no salt and anyone can check them."""
    del data_dir, sites
    return ()


def load(*, data_dir: Path | None, sites: Sequence[str] | None, seed: int) -> FederatedData:
    """Read the bundled records and deal them out to the hospitals.

    Args:
        data_dir: a folder with ``breast_cancer.csv``; None takes the file that scikit-learn installs.
        sites: some of northgate, riverside, lakeview; None means all three.
        seed: public seed of the split.

    Returns:
        The hospitals' records and the test set ``wisconsin-holdout`` of the chosen hospitals' held-out rows.

    Raises:
        HealthError: unknown sites, records that aren't the published ones, or scikit-learn isn't installed.
        InputError: the file cannot be read.
    """
    chosen = choose_sites(sites, [hospital.name for hospital in HOSPITALS], NAME)
    raw, labels = _read(packaged_file() if data_dir is None else data_dir / "breast_cancer.csv")
    split = deal(labels, seed)
    test_rows = np.concatenate([split[name][1] for name in chosen])
    test_sites = tuple(name for name in chosen for _ in split[name][1])
    return FederatedData(
        source=NAME,
        sites={
            name: make_site(name, SCHEMA, raw[split[name][0]], labels[split[name][0]], salt=PUBLIC_RECORDS)
            for name in chosen
        },
        test=make_test_set(TEST_SET, SCHEMA, raw[test_rows], labels[test_rows], test_sites),
        schema=SCHEMA,
        normalisation=NORMALISATION,
        citation=CITATION,
    )


def deal(labels: Int64Array, seed: int) -> dict[str, tuple[Int64Array, Int64Array]]:
    """Training and test rows of each hospital.

    Args:
        labels: all class indices [569].
        seed: public.

    Returns:
        For each hospital its training rows and its held-out rows, both ascending, together all rows once.
    """
    decks = {label: _shuffled(np.flatnonzero(labels == label), seed) for label in (MALIGNANT, BENIGN)}
    dealt: dict[str, tuple[Int64Array, Int64Array]] = {}
    for hospital in HOSPITALS:
        train: list[int] = []
        test: list[int] = []
        for label, count in ((MALIGNANT, hospital.malignant), (BENIGN, hospital.benign)):
            hand, decks[label] = decks[label][:count], decks[label][count:]
            held_out = count * HOLDOUT_PERCENT // 100
            test.extend(hand[:held_out])
            train.extend(hand[held_out:])
        dealt[hospital.name] = (
            np.asarray(sorted(train), dtype=np.int64),
            np.asarray(sorted(test), dtype=np.int64),
        )
    return dealt


def packaged_file() -> Path:
    """Where scikit-learn keeps the records; the library itself isn't imported.

    Raises:
        HealthError: health.no_library.
    """
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise HealthError(
            "health.no_library",
            "The library that packages the bundled records isn't installed.",
            "Install cloister[health].",
        )
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / "breast_cancer.csv"


def _read(path: Path) -> tuple[Float64Array, Int64Array]:
    lines = read_bounded(path, _MAX_BYTES).decode("utf-8", errors="replace").splitlines()
    width = len(SCHEMA.columns) + 1
    try:
        cells = np.array([line.split(",") for line in lines[1:] if line], dtype=np.float64)
    except ValueError:
        cells = np.empty((0, width))
    if cells.shape != (RECORDS, width):
        raise HealthError(
            "health.unexpected_file",
            f"The file {path.name} isn't the published table of {RECORDS} records.",
            "Reinstall scikit-learn.",
        )
    return cells[:, :-1], cells[:, -1].astype(np.int64)


def _shuffled(rows: Int64Array, seed: int) -> list[int]:
    def rank(row: int) -> bytes:
        return hashlib.sha256(f"{NAME}|split|{seed}|{row}".encode()).digest()

    return sorted((int(row) for row in rows), key=rank)
