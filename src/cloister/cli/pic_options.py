"""Options that the commands of ``pic`` share, and the operator that they act as."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.core.canonical import JSON

if TYPE_CHECKING:
    from cloister.immune.operating import Operator
    from cloister.immune.settings import ImmuneSettings

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", show_default="pic.yaml, where there is one", help="The settings' file."),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        "-d",
        show_default="storage.directory of the settings",
        help="The folder that the watched services keep their state in.",
    ),
]


def settings_of(config: Path | None, **given: object) -> ImmuneSettings:
    """The settings from all their sources.

    Args:
        config: the file, where one was named.
        given: what the command line gave, by dotted name with two underscores for the dot.
    """
    from cloister.immune.protection import SETTINGS
    from cloister.immune.settings_file import load_immune_settings

    usual = Path(SETTINGS)
    file = config or (usual if usual.exists() else None)
    arguments = {name.replace("__", "."): value for name, value in given.items()}
    return load_immune_settings(arguments, environment=os.environ, file=file)


@contextmanager
def operator(
    config: Path | None, directory: Path | None, *, reading: bool = False, tell: bool = True
) -> Iterator[Operator]:
    """The operator of the folder that is named, or that the settings name.

    Args:
        config: the settings' file.
        directory: the folder.
        reading: whether nothing will be decided; then nothing is made.
        tell: whether alarms about the folder's state are said on standard error.

    Raises:
        ImmuneError: ``immune.state_unusable`` where none is named or there, or it isn't this user's.
    """
    from cloister.immune.errors import ImmuneError
    from cloister.immune.kept_state import second_folder
    from cloister.immune.operating import Operator

    settings = settings_of(config)
    if directory is None and settings.storage.directory is None:
        raise ImmuneError(
            "immune.state_unusable",
            "It isn't said where the watched services keep their state.",
            "Name the folder:  --directory DIR, or storage.directory in pic.yaml",
        )
    with Operator(
        directory or Path(str(settings.storage.directory)),
        account(),
        days=settings.effector.detector_days,
        ratio=settings.baseline.drift_ratio,
        checkpoints=second_folder(settings.storage),
        reading=reading,
    ) as opened:
        try:
            yield opened
        finally:
            for alarm in opened.alarms if tell else ():
                print(f"ALARM {alarm}", file=sys.stderr)


def account() -> str:
    """Who acts: the account that the system knows this process by, which no variable of it can change."""
    number = os.geteuid()
    try:
        return f"{pwd.getpwuid(number).pw_name} (uid {number})"
    except KeyError:
        return f"uid {number}"


def print_json(value: Mapping[str, JSON]) -> None:
    """Print one object."""
    print(json.dumps(value, indent=2, sort_keys=True))
