"""``cloister table``: hold one table against its declaration, or seal it, before it is brought to a job."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.options import Debug, Json, Workspace


class Contents(str, Enum):  # noqa: UP042 - a choice of the command line
    """What a table's records are, as the hospital's manifest says it."""

    RECORDS = "records"
    TEST_DATA = "test-data"


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "check",
        help="Check a table against its schema: columns, kinds, bounds, classes, persons and their number.",
        epilog="Examples:  cloister table check DIR/clinic.csv   ·   "
        "cloister table check clinic.pt --schema schema.yaml --minimum-group 20 --json",
    )(_check)
    group.command(
        "seal",
        help="Encrypt a hospital's table under a key of its own: the node that runs jobs can't read it.",
        epilog="Example:  cloister table seal DIR/clinic.csv --out node/clinic.sealed --workspace work/",
    )(_seal)


def _check(
    table: Annotated[Path, typer.Argument(metavar="FILE", help="The table: .csv, .safetensors or .pt.")],
    schema: Annotated[
        Path | None,
        typer.Option("--schema", show_default="schema.yaml beside it", help="The declaration."),
    ] = None,
    minimum_group: Annotated[
        int, typer.Option("--minimum-group", min=1, help="Fewest records, or persons, as the manifest says.")
    ] = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.watching import watched
    from cloister.core.settings import load_settings
    from cloister.health import sentry
    from cloister.health.declaration import DECLARATION_FILE, read_declaration

    declared = schema or table.parent / DECLARATION_FILE
    declaration = read_declaration(declared.parent, declared.name)
    with watched(load_settings({})):
        found = sentry.read_table(table.parent, table.name, declaration, minimum_group_size=minimum_group)
    counted = None if found.subjects is None else found.subjects.count
    columns = len(declaration.table.columns)
    if as_json:
        answer = {
            "table": table.name,
            "accepted": True,
            "records": found.records,
            "subjects": counted,
            "columns": columns,
            "classes": len(declaration.table.label.classes),
            "bounds_sha256": declaration.table.sha256,
        }
        print(json.dumps(answer, indent=2))
        return 0
    from cloister.cli.text import printable

    whose = "" if counted is None else f" of {counted} persons"
    print(printable(f"{table.name} is what {declared.name} declares."))
    print(
        f"It holds {found.records} records{whose}, in {columns} columns and a label; no code in it was run."
    )
    print("Its figures are for you: nothing of it was written anywhere.")
    return 0


def _seal(
    table: Annotated[Path, typer.Argument(metavar="FILE", help="The plain table, named after its site.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: SITE.sealed.")],
    schema: Annotated[
        Path | None,
        typer.Option("--schema", show_default="schema.yaml beside it", help="The declaration."),
    ] = None,
    contents: Annotated[
        Contents,
        typer.Option("--contents", help="What the manifest says they are. Simulated machines: test-data."),
    ] = Contents.RECORDS,
    kms_key: Annotated[
        str | None, typer.Option("--kms-key", metavar="ARN", help="Wrap its key by this key in AWS KMS.")
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.text import printable
    from cloister.cli.watching import watched
    from cloister.core.clock import system_clock
    from cloister.core.settings import load_settings
    from cloister.enclave.keyrelease.policy import KeyPurpose
    from cloister.health.declaration import DECLARATION_FILE
    from cloister.workflow.sealed_tables import seal_table
    from cloister.workflow.workspace import open_workspace

    settings = load_settings({"workspace": workspace})
    with open_workspace(settings.workspace, settings=settings) as opened, watched(settings):
        public = seal_table(
            table,
            out,
            opened,
            schema=schema or table.parent / DECLARATION_FILE,
            purpose=KeyPurpose(contents.value),
            kms_arn=kms_key,
            clock=system_clock,
        )
    facts: dict[str, object] = {
        "sealed": str(out),
        "site": public.site,
        "records": public.records,
        "subjects": public.subjects,
        "dataset_sha256": public.dataset_sha256,
        "data_key": public.data_key,
        "contents": contents.value,
    }
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        if value is not None:
            print(printable(f"{name.replace('_', ' '):14} {value}"))
    return 0
