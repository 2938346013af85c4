"""Federated data as typed values: what each site holds, the named test set, and what may be said of them.

``describe`` gives the only view meant for other eyes: names, counts of records and subjects, hashes and how
features were scaled. Counts by class, records by subject and statistics of the records are private and not
part of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from cloister.health.commitment import NO_SALT, PUBLIC_RECORDS, KeptSalt, dataset_sha256
from cloister.health.encrypted_table import EncryptedTable
from cloister.health.errors import HealthError
from cloister.health.schema import Float32Array, Float64Array, Int64Array, TableSchema
from cloister.health.subjects import Subjects

_Array = TypeVar("_Array", Float64Array, Float32Array, Int64Array)


@dataclass(frozen=True, eq=False)
class SiteData:
    """One site's training records; they never leave the site.

    Attributes:
        name: the site.
        raw: values as read [records, columns], categories as indices.
        features: model inputs [records, features] in [-1, 1] by the declared bounds.
        labels: class indices [records].
        feature_names: names of the model inputs.
        dataset_sha256: the commitment to the raw records (see ``commitment``).
        subjects: whose record each is [records], as numbers that mean nothing else; None where that is not
            declared.
        subject: the column that says so; None where that is not declared.
        salt: the commitment's secret salt, from which a sealed worker commits again.
    """

    name: str
    raw: Float64Array
    features: Float32Array
    labels: Int64Array
    feature_names: tuple[str, ...]
    dataset_sha256: str
    subjects: Int64Array | None = None
    subject: str | None = None
    salt: KeptSalt = NO_SALT

    @property
    def records(self) -> int:
        """How many records the site holds."""
        return int(self.labels.shape[0])

    @property
    def subject_count(self) -> int | None:
        """Of how many people the records are; None where that is not declared."""
        return None if self.subjects is None else int(np.unique(self.subjects).size)

    @property
    def single_class(self) -> bool:
        """Whether all records bear one label; rank metrics such as AUROC are then undefined."""
        return bool(np.unique(self.labels).size < 2)

    def __repr__(self) -> str:
        return f"SiteData(name={self.name!r}, records={self.records})"


@dataclass(frozen=True, eq=False)
class SealedSite:
    """One site's records as its hospital encrypted them beforehand: what is public of them, and ciphertext.

    Attributes:
        table: opened by a sealed worker that the hospital gives the key, and by nobody else.
    """

    table: EncryptedTable

    @property
    def name(self) -> str:
        """The site."""
        return self.table.public.site

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the model inputs."""
        return self.table.public.declared.feature_names

    @property
    def dataset_sha256(self) -> str:
        """The commitment to the raw records."""
        return self.table.public.dataset_sha256

    @property
    def records(self) -> int:
        """How many records the site holds."""
        return self.table.public.records

    @property
    def subject_count(self) -> int | None:
        """Of how many people the records are; None where that is not declared."""
        return self.table.public.subjects

    @property
    def single_class(self) -> None:
        """Not told: who can't read the labels can't say it."""
        return None

    def __repr__(self) -> str:
        return f"SealedSite(name={self.name!r}, records={self.records})"


SiteRecords = SiteData | SealedSite
"""A site's records: a table that was read here, or one that only a sealed worker opens."""


def require_readable(records: SiteRecords, use: str) -> SiteData:
    """Refuse records that are sealed to whoever needs them in the clear.

    Args:
        records: a site's.
        use: what they are needed for, as the beginning of a sentence.

    Raises:
        HealthError: ``health.sealed``.
    """
    if isinstance(records, SealedSite):
        raise HealthError(
            "health.sealed",
            f"{use} needs the records of {records.name} in the clear, and they are sealed.",
            "Do it where the hospital keeps its table: only a job's sealed worker opens this one.",
        )
    return records


@dataclass(frozen=True, eq=False)
class TestSet:
    """A named test set that is public or consented to be evaluated on.

    Attributes:
        name: how receipts call it.
        features: model inputs [records, features], scaled as the training records are.
        labels: class indices [records].
        sites: the site each row belongs to, "" where none is known.
        sha256: the commitment to its raw records.
    """

    __test__ = False

    name: str
    features: Float32Array
    labels: Int64Array
    sites: tuple[str, ...]
    sha256: str

    @property
    def records(self) -> int:
        """How many records the test set holds."""
        return int(self.labels.shape[0])

    @property
    def site_names(self) -> tuple[str, ...]:
        """The sites that have rows in the test set, in order of first appearance."""
        return tuple(dict.fromkeys(site for site in self.sites if site))

    def rows_of(self, site: str) -> Int64Array:
        """Row numbers that belong to a site; empty when it has none."""
        return np.asarray([row for row, name in enumerate(self.sites) if name == site], dtype=np.int64)

    def __repr__(self) -> str:
        return f"TestSet(name={self.name!r}, records={self.records})"


@dataclass(frozen=True, eq=False)
class FederatedData:
    """All that a run in one process needs of a data source.

    Attributes:
        source: the source's registered name.
        sites: training records by site, in the order asked for; readable or sealed.
        test: the public or consented test set.
        schema: declared columns, bounds and classes.
        normalisation: one sentence for the receipt.
        citation: whom to cite, and the licence.
    """

    source: str
    sites: Mapping[str, SiteRecords]
    test: TestSet
    schema: TableSchema
    normalisation: str
    citation: str

    @property
    def bounds_sha256(self) -> str:
        """Hash of the declaration that fixes the scaling."""
        return self.schema.sha256


class PublicSite(BaseModel):
    """What may be said of a site's records; ``subjects`` is None where nothing says whose they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    records: int
    subjects: int | None
    features: int
    dataset_sha256: str


class PublicDescription(BaseModel):
    """What may be said of a federation's data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    citation: str
    feature_names: tuple[str, ...]
    classes: tuple[str, ...]
    normalisation: str
    bounds_sha256: str
    sites: tuple[PublicSite, ...]
    test_set: str
    test_records: int
    test_set_sha256: str


def describe(data: FederatedData) -> PublicDescription:
    """The public view of federated data.

    Args:
        data: loaded data.

    Returns:
        Names, record counts, hashes and scaling; no statistic of any record.
    """
    return PublicDescription(
        source=data.source,
        citation=data.citation,
        feature_names=data.schema.feature_names,
        classes=data.schema.label.classes,
        normalisation=data.normalisation,
        bounds_sha256=data.bounds_sha256,
        sites=tuple(
            PublicSite(
                name=site.name,
                records=site.records,
                subjects=site.subject_count,
                features=len(site.feature_names),
                dataset_sha256=site.dataset_sha256,
            )
            for site in data.sites.values()
        ),
        test_set=data.test.name,
        test_records=data.test.records,
        test_set_sha256=data.test.sha256,
    )


def make_site(
    name: str,
    schema: TableSchema,
    raw: Float64Array,
    labels: Int64Array,
    *,
    salt: bytes,
    subjects: Subjects | None = None,
) -> SiteData:
    """Validate, hash and scale one site's records.

    Args:
        name: the site.
        schema: declared columns and bounds.
        raw: values [records, columns].
        labels: class indices [records].
        salt: the site's secret salt, or ``PUBLIC_RECORDS``.
        subjects: whose record each is, where that is declared.

    Returns:
        The site's data, arrays read-only.

    Raises:
        HealthError: when the records aren't as declared.
    """
    schema.validate_table(raw, labels, what=f"site {name}")
    return SiteData(
        name=name,
        raw=_frozen(raw),
        features=_frozen(schema.scale(raw)),
        labels=_frozen(labels),
        feature_names=schema.feature_names,
        dataset_sha256=dataset_sha256(schema, raw, labels, salt=salt, subjects=subjects),
        subjects=None if subjects is None else _frozen(subjects.numbers),
        subject=None if subjects is None else subjects.column,
        salt=KeptSalt(salt),
    )


def make_test_set(
    name: str, schema: TableSchema, raw: Float64Array, labels: Int64Array, sites: tuple[str, ...]
) -> TestSet:
    """Validate, hash and scale a test set; its hash has no salt, so that anyone can check it.

    Args:
        name: how receipts call it.
        schema: declared columns and bounds.
        raw: values [records, columns].
        labels: class indices [records].
        sites: the site of each row, "" where none is known.

    Returns:
        The test set, arrays read-only.

    Raises:
        HealthError: when the records aren't as declared.
    """
    schema.validate_table(raw, labels, what=f"test set {name}")
    return TestSet(
        name=name,
        features=_frozen(schema.scale(raw)),
        labels=_frozen(labels),
        sites=sites,
        sha256=dataset_sha256(schema, raw, labels, salt=PUBLIC_RECORDS),
    )


def _frozen(array: _Array) -> _Array:
    copy = array.copy()
    copy.setflags(write=False)
    return copy
