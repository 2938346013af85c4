"""What can be wrong with a table of records, in words that never quote a record."""

from collections.abc import Mapping
from typing import ClassVar

from cloister.core.errors import CloisterError


class HealthError(CloisterError):
    """Records, schema or data source are not what was declared.

    Messages and details name columns, sites and counts of rows; a value from a record never appears.
    """

    exit_code: ClassVar[int] = 2
    CODES: ClassVar[Mapping[str, str]] = {
        "health.unknown_source": "No data source of that name is known.",
        "health.unknown_site": "The data source has no site of that name.",
        "health.empty": "A table holds no records.",
        "health.columns": "A table's columns are not the declared ones.",
        "health.type": "A cell cannot be read as its column's declared kind.",
        "health.not_finite": "A column holds missing, NaN or infinite values.",
        "health.out_of_range": "A column holds values outside its declared bounds.",
        "health.label": "A label is not one of the declared classes.",
        "health.subject": "A record doesn't say whose it is, though its table declares that it does.",
        "health.one_subject": "All records of a table are one person's.",
        "health.subject_repeated": "A person has more than one record in a table that declares one each.",
        "health.group_too_small": "A table is about fewer records or persons than may be trained on.",
        "health.two_tables": "A site has a table in more than one format.",
        "health.encrypted_table": "A file isn't an encrypted table, or one of other records than declared.",
        "health.sealed": "Records are needed in the clear, and only a sealed worker opens them.",
        "health.tensor_file": "A file of tensors holds something else than plain features and labels.",
        "health.classes": "A label has another number of classes than two.",
        "health.salt_missing": "A private table has no secret salt beside it.",
        "health.salt_malformed": "A salt file doesn't hold 64 hexadecimal digits.",
        "health.salt_permissions": "A salt file is open to others than its owner.",
        "health.shape": "Features and labels do not fit the schema or one another.",
        "health.schema": "The declared schema contradicts itself.",
        "health.unexpected_file": "A data file is not the one its published split belongs to.",
        "health.no_library": "The library that packages the bundled records is not installed.",
    }
