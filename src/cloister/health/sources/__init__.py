"""Data sources behind one call: ``load_source(name, ...) -> FederatedData``.

A source is one file that reads records of one kind and says how they are spread over sites. Its module is
imported when it is asked for.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from cloister.health.data import FederatedData
from cloister.health.errors import HealthError

DEFAULT_SPLIT_SEED = 0

_MODULES = {
    "breast-cancer-wisconsin": "cloister.health.sources.breast_cancer",
    "uci-heart-disease": "cloister.health.sources.heart_disease",
    "csv": "cloister.health.sources.csv_files",
}


class Source(Protocol):
    """What a source's module offers."""

    def prepare(self, *, data_dir: Path | None, sites: Sequence[str] | None) -> tuple[str, ...]:
        """Make what the source needs beside its records and is missing; return the files' names."""
        ...

    def load(self, *, data_dir: Path | None, sites: Sequence[str] | None, seed: int) -> FederatedData:
        """Read the records and spread them over sites."""
        ...


def source_names() -> tuple[str, ...]:
    """The names ``load_source`` knows."""
    return tuple(_MODULES)


def load_source(
    name: str,
    *,
    data_dir: Path | None = None,
    sites: Sequence[str] | None = None,
    seed: int = DEFAULT_SPLIT_SEED,
) -> FederatedData:
    """Load federated data by the name of its source; nothing is written.

    Args:
        name: one of ``source_names()``.
        data_dir: the folder with the source's files, where it has any.
        sites: the sites wanted, in that order; None means the source's own list.
        seed: public; decides how a source that isn't federated by nature is spread over sites, and with that
            each site's dataset hash. Sources with a published split ignore it.

    Returns:
        Validated, hashed and scaled records by site, and the named test set.

    Raises:
        HealthError: unknown source or site, or records that aren't as declared.
        InputError: a file is missing, unreadable, too large or leaves its folder.
    """
    return _source(name).load(data_dir=data_dir, sites=sites, seed=seed)


def prepare_source(
    name: str, *, data_dir: Path | None = None, sites: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Make what a source needs beside its records and doesn't have yet: the secret salts of private tables.

    Args:
        name: one of ``source_names()``.
        data_dir: the folder with the source's files, where it has any.
        sites: the sites wanted; None means the source's own list.

    Returns:
        Names of the files made; what is there is never replaced.

    Raises:
        HealthError: unknown source or site, or a declaration that contradicts itself.
        InputError: a file is missing, unreadable, too large or leaves its folder.
        StorageError: a file can't be written.
    """
    return _source(name).prepare(data_dir=data_dir, sites=sites)


def _source(name: str) -> Source:
    module = _MODULES.get(name)
    if module is None:
        raise HealthError(
            "health.unknown_source",
            "No data source of that name is known.",
            f"Choose one of: {', '.join(source_names())}.",
        )
    return cast(Source, import_module(module))
