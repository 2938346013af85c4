"""Options that several commands share, so that each means and says the same wherever it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks. Not on data you may not show.")]
Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        show_default="cloister-work, or CLOISTER_WORKSPACE, or cloister.toml",
        help="Folder for keys, logs, budgets and finished jobs.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        show_default="CLOISTER_DATA_DIR, or cloister.toml",
        help="Folder with the data files, if the job needs any.",
    ),
]
PinnedKeys = Annotated[
    Path, typer.Option("--trust", help="Folder of pinned public keys, one folder per role.")
]
ActorName = Annotated[
    str | None, typer.Option("--actor", metavar="NAME", help="Who you are, beside your account's name.")
]
ActorRole = Annotated[str, typer.Option("--role", help="In what role you ask.")]
Purpose = Annotated[str, typer.Option("--purpose", metavar="TEXT", help="Why; the log states it.")]
LaunchFile = Annotated[
    Path | None,
    typer.Option(
        "--conf",
        "-c",
        metavar="FILE",
        show_default="enclave.toml in the configuration folder, where there is one",
        help="What this machine has to prove; relative to the configuration folder.",
    ),
]
LaunchFolder = Annotated[
    Path, typer.Option("--config_folder", "-f", metavar="DIR", help="The configuration folder.")
]
VendorDocuments = Annotated[
    list[Path] | None,
    typer.Option(
        "--collateral",
        help="The vendor's documents, such as revocation lists: files or folders; may be given again.",
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="An appraisal policy in JSON: all that the machine has to be."),
]
SimulatedRoots = Annotated[
    list[Path] | None,
    typer.Option(
        "--simulated-root",
        help="A simulated vendor's root, trusted for this command: NOT HARDWARE. May be given again.",
    ),
]
