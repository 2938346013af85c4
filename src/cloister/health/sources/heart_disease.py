"""UCI Heart Disease: 740 real patients of four centres, with FLamby's preprocessing and split.

The steps are those of FLamby's ``fed_heart_disease`` (Ogier du Terrail et al., 2022): of the 14 columns
slope, ca and thal are dropped, then every row with a missing value; the label is 1 where ``num`` isn't 0;
cp and restecg become 0/1 features without their first level; two thirds of each centre's rows train.
FLamby's split is a stored list of rows (``heart_disease_split``), because it depends on the random stream
of one library.

One thing differs by intent: FLamby scales by each centre's exact mean and deviation, which are unaccounted
statistics of private records; here features are scaled by declared public bounds.

A cholesterol or blood pressure of 0 means 'not measured' in these files and is kept, as FLamby does.
Switzerland's training rows bear a single class; that is allowed, and visible as ``SiteData.single_class``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.health.commitment import PUBLIC_RECORDS
from cloister.health.data import FederatedData, make_site, make_test_set
from cloister.health.errors import HealthError
from cloister.health.schema import (
    Column,
    ColumnKind,
    Float64Array,
    Int64Array,
    LabelColumn,
    OutsideBounds,
    TableSchema,
)
from cloister.health.sources.heart_disease_split import KEPT_ROWS, TEST_ROWS
from cloister.health.sources.selection import choose_sites

NAME = "uci-heart-disease"
TEST_SET = "flamby-test"
SITES = ("cleveland", "hungarian", "switzerland", "va")
CITATION = (
    "Janosi, Steinbrunn, Pfisterer, Detrano (1988), Heart Disease, UCI Machine Learning Repository, "
    "doi 10.24432/C52P4X, CC BY 4.0; preprocessing and split of FLamby (Ogier du Terrail et al., 2022)"
)
_MAX_BYTES = 4 * 1024 * 1024
_FILE_COLUMNS = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
)
_USED = ("age", "sex", "trestbps", "chol", "fbs", "thalach", "exang", "oldpeak", "cp", "restecg", "num")

SCHEMA = TableSchema(
    name=NAME,
    columns=(
        Column(name="age", lower=20.0, upper=100.0, outside=OutsideBounds.CLAMP),
        Column(name="sex", kind=ColumnKind.BINARY),
        Column(name="trestbps", lower=0.0, upper=250.0, outside=OutsideBounds.CLAMP),
        Column(name="chol", lower=0.0, upper=600.0, outside=OutsideBounds.CLAMP),
        Column(name="fbs", kind=ColumnKind.BINARY),
        Column(name="thalach", lower=50.0, upper=220.0, outside=OutsideBounds.CLAMP),
        Column(name="exang", kind=ColumnKind.BINARY),
        Column(name="oldpeak", lower=-3.0, upper=7.0, outside=OutsideBounds.CLAMP),
        Column(name="cp", kind=ColumnKind.CATEGORY, categories=("1", "2", "3", "4")),
        Column(name="restecg", kind=ColumnKind.CATEGORY, categories=("0", "1", "2")),
    ),
    label=LabelColumn(name="disease", classes=("absent", "present")),
    basis="round numbers around what the measurements can be in adults (years, mm Hg, mg/dl, beats/min, mm)",
)
NORMALISATION = (
    "declared public bounds: each feature is clamped to round bounds of what can be measured in adults and "
    "mapped linearly to [-1, 1]; no statistic of the training records is used"
)


def prepare(*, data_dir: Path | None, sites: Sequence[str] | None) -> tuple[str, ...]:
    """Make nothing: the records are public, so their hashes need no salt and anyone can check them."""
    del data_dir, sites
    return ()


def load(*, data_dir: Path | None, sites: Sequence[str] | None, seed: int) -> FederatedData:
    """Read the four centres' files.

    Args:
        data_dir: the folder with ``processed.<centre>.data``, or one that holds it as ``heart-disease``.
        sites: some of cleveland, hungarian, switzerland, va; None means all four.
        seed: not used; FLamby's split is fixed.

    Returns:
        The centres' training records, and the test set ``flamby-test`` of the chosen centres' test rows.

    Raises:
        HealthError: unknown sites, or a file that FLamby's split doesn't belong to.
        InputError: no folder was given, or a file is missing or unreadable.
    """
    chosen = choose_sites(sites, SITES, NAME)
    if data_dir is None:
        raise InputError(
            "input.missing_file",
            "The heart-disease records are not bundled.",
            "Name the folder that holds processed.<centre>.data with --data.",
        )
    nested = data_dir / "heart-disease"
    folder = nested if nested.is_dir() else data_dir
    tables = {name: read_centre(folder / f"processed.{name}.data", name) for name in chosen}
    tests = {name: np.asarray(TEST_ROWS[name], dtype=np.int64) for name in chosen}
    trains = {name: np.setdiff1d(np.arange(KEPT_ROWS[name]), tests[name]) for name in chosen}
    return FederatedData(
        source=NAME,
        sites={
            name: make_site(
                name,
                SCHEMA,
                tables[name][0][trains[name]],
                tables[name][1][trains[name]],
                salt=PUBLIC_RECORDS,
            )
            for name in chosen
        },
        test=make_test_set(
            TEST_SET,
            SCHEMA,
            np.concatenate([tables[name][0][tests[name]] for name in chosen]),
            np.concatenate([tables[name][1][tests[name]] for name in chosen]),
            tuple(name for name in chosen for _ in tests[name]),
        ),
        schema=SCHEMA,
        normalisation=NORMALISATION,
        citation=CITATION,
    )


def read_centre(path: Path, name: str) -> tuple[Float64Array, Int64Array]:
    """One centre's rows after FLamby's cleaning, in file order.

    Args:
        path: the centre's file.
        name: the centre.

    Returns:
        Raw values [kept rows, 10], cp and restecg as category indices, and labels [kept rows].

    Raises:
        HealthError: the rows aren't those the published split belongs to.
        InputError: the file cannot be read.
    """
    picked = [_FILE_COLUMNS.index(column) for column in _USED]
    rows: list[list[str]] = []
    for line in read_bounded(path, _MAX_BYTES).decode("utf-8", errors="replace").splitlines():
        cells = line.split(",")
        if len(cells) != len(_FILE_COLUMNS):
            raise _unexpected(path, name)
        kept = [cells[index].strip() for index in picked]
        if "?" not in kept:
            rows.append(kept)
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError:
        raise _unexpected(path, name) from None
    if table.shape != (KEPT_ROWS[name], len(_USED)):
        raise _unexpected(path, name)
    raw = table[:, :-1]
    raw[:, SCHEMA.column_names.index("cp")] -= 1.0
    return raw, (table[:, -1] != 0).astype(np.int64)


def _unexpected(path: Path, name: str) -> HealthError:
    return HealthError(
        "health.unexpected_file",
        f"The file {path.name} isn't the published table of {name}.",
        "Take the four processed.*.data files of UCI data set 45 unchanged.",
    )
