"""The hash that names a dataset in manifests, statements and receipts.

The encoding is fixed: an 8-byte big-endian length, then the RFC 8785 form of
``{"schema": "urn:cloister:dataset:v1", "columns": [names], "kinds": [...], "label": name, "classes": [...],
"records": n}``, then the raw values as little-endian IEEE 754 binary64 in row-major order, then the labels as
little-endian signed 64-bit integers. Rows stand in file order; negative zero is written as zero. It covers
the raw records before any clamping or scaling, so that one changed cell changes the hash.
"""

import hashlib

import numpy as np

from cloister.core.canonical import canonicalize
from cloister.health.errors import HealthError
from cloister.health.schema import Float64Array, Int64Array, TableSchema

DATASET_SCHEMA = "urn:cloister:dataset:v1"


def dataset_sha256(schema: TableSchema, raw: Float64Array, labels: Int64Array) -> str:
    """Hash a table of records.

    Args:
        schema: its declared columns and classes; bounds don't enter the hash.
        raw: finite values [records, columns].
        labels: class indices [records].

    Returns:
        64 lower-case hex digits.

    Raises:
        HealthError: health.shape when the arrays don't fit the schema, health.not_finite for NaN or infinity.
    """
    if raw.ndim != 2 or raw.shape[1] != len(schema.columns) or labels.shape != (raw.shape[0],):
        raise HealthError("health.shape", "Records and schema don't fit one another.")
    if not np.isfinite(raw).all():
        raise HealthError("health.not_finite", "A table with missing values has no dataset hash.")
    header = canonicalize(
        {
            "schema": DATASET_SCHEMA,
            "columns": list(schema.column_names),
            "kinds": [column.kind.value for column in schema.columns],
            "label": schema.label.name,
            "classes": list(schema.label.classes),
            "records": int(raw.shape[0]),
        }
    )
    digest = hashlib.sha256(len(header).to_bytes(8, "big"))
    digest.update(header)
    digest.update(np.ascontiguousarray(raw + 0.0, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return digest.hexdigest()
