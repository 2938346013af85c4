"""``schema.yaml``: what is declared in public about tables before any of their records is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloister.core.documents import MAX_YAML_BYTES, load_yaml
from cloister.core.inside import read_inside
from cloister.core.parsing import parse_model
from cloister.health.errors import HealthError
from cloister.health.schema import TableSchema
from cloister.health.subjects import SubjectColumn

DECLARATION_FILE: Final = "schema.yaml"
SITE_COLUMN: Final = "site"

_Site = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Text = Annotated[str, Field(min_length=1, max_length=500)]


class TableDeclaration(BaseModel):
    """What is declared about the tables of a folder.

    Attributes:
        document: the format's name and version.
        table: columns with bounds, label with classes, and where the bounds come from.
        sites: names of the sites; each has a table of its name.
        test_set: how receipts call the records in ``test.csv``.
        citation: where the records come from and on what terms.
        subject: the column that says whose record a row is, where a person may have several; None where
            every row is another person's, or nothing says whose it is.
        minimum_group_size: fewest records, or subjects where those are declared, that a site's table may
            hold. The hospital's manifest has a minimum of its own; the larger one counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: Literal["cloister.table/v1"]
    table: TableSchema
    sites: Annotated[tuple[_Site, ...], Field(min_length=1, max_length=1000)]
    test_set: _Text
    citation: _Text
    subject: SubjectColumn | None = None
    minimum_group_size: Annotated[int, Field(ge=1, le=2**31, strict=True)] = 1


def read_declaration(folder: Path, name: str) -> TableDeclaration:
    """Read a declaration.

    Args:
        folder: where it lies.
        name: its file's name there.

    Raises:
        HealthError: ``health.schema`` where it contradicts itself.
        InputError: it is missing, malformed, too large or leaves the folder.
    """
    data = read_inside(folder, name, MAX_YAML_BYTES)
    found = parse_model(TableDeclaration, load_yaml(data, name=name), name)
    if "test" in found.sites or len(set(found.sites)) != len(found.sites):
        raise HealthError("health.schema", f"{name} names a site twice, or one named test.")
    if found.subject is not None and found.subject.column in (
        SITE_COLUMN,
        *found.table.column_names,
        found.table.label.name,
    ):
        raise HealthError(
            "health.schema",
            f"{name} names one column twice, or the subject's column {SITE_COLUMN}.",
            "The column that says whose a row is has a name of its own, and is no feature.",
        )
    if found.table.column_names[0] == SITE_COLUMN:
        raise HealthError("health.schema", f"The first column can't be named {SITE_COLUMN}.", "Rename it.")
    return found
