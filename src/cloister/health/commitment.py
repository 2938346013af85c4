"""The commitment that names a dataset in manifests, statements and receipts: a salted hash.

The commitment is published, so it must not tell anything about a record. A hash of the records alone would:
who knows all cells but one finds that one by trying. Private records are therefore hashed with a secret salt
of 32 random bytes, kept at the site (:mod:`cloister.health.sources.salts`); who later wants to show that the
hash is of these records shows records and salt. Records that are public anyway have none, so that anyone can
compute their hash.

The encoding is fixed: an 8-byte big-endian length, then the RFC 8785 form of
``{"schema": "urn:cloister:dataset:v1", "columns": [names], "kinds": [...], "label": name, "classes": [...],
"records": n, "salt": 64 hex digits, "subject": name}`` (no ``salt`` for public records, no ``subject`` where
no column says whose each record is), then the raw values as little-endian IEEE 754 binary64 in row-major
order, then the labels as little-endian signed 64-bit integers, then in the same form the subjects' numbers,
where there are any. Rows stand in file order; negative zero is written as zero. It covers the raw records
before any clamping or scaling, so that one changed cell changes the hash, and so does a record that becomes
another subject's. Subjects are numbered from 0 by first appearance: other ids for the same change nothing.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from cloister.core.canonical import JSON, canonicalize
from cloister.health.errors import HealthError
from cloister.health.schema import Float64Array, Int64Array, TableSchema
from cloister.health.subjects import Subjects

DATASET_SCHEMA = "urn:cloister:dataset:v1"
SALT_BYTES = 32
_ROWS = 4096
PUBLIC_RECORDS = b""
"""The salt of records that anyone can read anyway: none, so that anyone can also compute their hash."""


@dataclass(frozen=True)
class KeptSalt:
    """A salt beside the records it was used for; whoever shows those shows nothing of it."""

    content: bytes = field(repr=False)


NO_SALT = KeptSalt(PUBLIC_RECORDS)
"""What public records keep."""


def dataset_sha256(
    schema: TableSchema,
    raw: Float64Array,
    labels: Int64Array,
    *,
    salt: bytes,
    subjects: Subjects | None = None,
) -> str:
    """Commit to a table of records.

    Args:
        schema: its declared columns and classes; bounds don't enter the hash.
        raw: finite values [records, columns].
        labels: class indices [records].
        salt: 32 secret random bytes, or ``PUBLIC_RECORDS``.
        subjects: whose record each is, where that is declared.

    Returns:
        64 lower-case hex digits.

    Raises:
        HealthError: health.shape when the arrays don't fit the schema, health.not_finite for NaN or infinity,
            health.salt_malformed for a salt of another length.
    """
    if raw.ndim != 2 or raw.shape[1] != len(schema.columns) or labels.shape != (raw.shape[0],):
        raise HealthError("health.shape", "Records and schema don't fit one another.")
    if subjects is not None and subjects.numbers.shape != labels.shape:
        raise HealthError("health.shape", "Records and subjects don't fit one another.")
    if not np.isfinite(raw).all():
        raise HealthError("health.not_finite", "A table with missing values has no dataset hash.")
    if salt != PUBLIC_RECORDS and len(salt) != SALT_BYTES:
        raise HealthError("health.salt_malformed", f"A salt has {SALT_BYTES} bytes.")
    declared: dict[str, JSON] = {
        "schema": DATASET_SCHEMA,
        "columns": list(schema.column_names),
        "kinds": [column.kind.value for column in schema.columns],
        "label": schema.label.name,
        "classes": list(schema.label.classes),
        "records": int(raw.shape[0]),
    }
    if subjects is not None:
        declared["subject"] = subjects.column
    header = canonicalize(declared | {"salt": salt.hex()} if salt else declared)
    digest = hashlib.sha256(len(header).to_bytes(8, "big"))
    digest.update(header)
    for first in range(0, raw.shape[0], _ROWS):
        digest.update(np.ascontiguousarray(raw[first : first + _ROWS] + 0.0, dtype="<f8").tobytes())
    digest.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
    if subjects is not None:
        digest.update(np.ascontiguousarray(subjects.numbers, dtype="<i8").tobytes())
    return digest.hexdigest()
