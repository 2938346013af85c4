"""Records as validated, bounded, hashed tables: public bounds, data sources, the salted commitment.

numpy is loaded when a name that needs it is first used.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use
from cloister.health.errors import HealthError

if TYPE_CHECKING:
    from cloister.health.commitment import dataset_sha256
    from cloister.health.data import (
        FederatedData,
        PublicDescription,
        PublicSite,
        SealedSite,
        SiteData,
        SiteRecords,
        TestSet,
        describe,
        make_site,
        make_test_set,
        require_readable,
    )
    from cloister.health.encrypted_table import EncryptedTable
    from cloister.health.schema import Column, ColumnKind, LabelColumn, OutsideBounds, TableSchema
    from cloister.health.sources import DEFAULT_SPLIT_SEED, load_source, prepare_source, source_names

_HOMES = {
    "dataset_sha256": "commitment",
    "FederatedData": "data",
    "PublicDescription": "data",
    "PublicSite": "data",
    "SealedSite": "data",
    "SiteData": "data",
    "SiteRecords": "data",
    "TestSet": "data",
    "describe": "data",
    "make_site": "data",
    "make_test_set": "data",
    "require_readable": "data",
    "EncryptedTable": "encrypted_table",
    "Column": "schema",
    "ColumnKind": "schema",
    "LabelColumn": "schema",
    "OutsideBounds": "schema",
    "TableSchema": "schema",
    "DEFAULT_SPLIT_SEED": "sources",
    "load_source": "sources",
    "prepare_source": "sources",
    "source_names": "sources",
}

__all__ = [
    "DEFAULT_SPLIT_SEED",
    "Column",
    "ColumnKind",
    "EncryptedTable",
    "FederatedData",
    "HealthError",
    "LabelColumn",
    "OutsideBounds",
    "PublicDescription",
    "PublicSite",
    "SealedSite",
    "SiteData",
    "SiteRecords",
    "TableSchema",
    "TestSet",
    "dataset_sha256",
    "describe",
    "load_source",
    "make_site",
    "make_test_set",
    "prepare_source",
    "require_readable",
    "source_names",
]

__getattr__ = on_first_use(__name__, _HOMES)
