"""The settings of one process, in one typed object.

Where a value comes from, first found first taken: the command line, the environment (``CLOISTER_WORKSPACE``),
the file ``cloister.toml``, the default. A field the file names and this class does not have is refused.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.core.logging import LogLevel
from cloister.core.parsing import schema_error

SealLevelName: TypeAlias = Literal[
    "namespaces", "no-namespaces", "namespaces-unreported", "no-namespaces-unreported"
]

SETTINGS_FILE = Path("cloister.toml")

_MAX_FILE = 64 * 1024
_PLACE = re.compile(r"\(at line [0-9]+, column [0-9]+\)")


class Settings(BaseSettings):
    """What a person may set for a whole process. Relative paths start at the working directory.

    Attributes:
        workspace: where runs, keys, budget ledgers and logs are kept.
        data_dir: a folder with data files of your own; none means the data that comes with the libraries.
        log_level: the lowest level that is logged.
        log_file: where the log goes; none means the run's own folder.
        key_passphrase_file: the file with the passphrase that keys in files are encrypted with; none keeps
            them clear, for their owner alone.
        pkcs11_library: the PKCS#11 module of the token that keeps the keys; none keeps them in files.
        pkcs11_token: the token's label.
        pkcs11_pin_file: the file with the token's PIN.
        kms_key: ARN of the key in AWS KMS by which data keys are wrapped; none wraps them by a key in the
            token, where there is one, or in a file. Signing keys are never there.
        log_database: URL of the PostgreSQL database that holds the logs, each in its own schema; none keeps
            each in a file.
        ledger_database: URL of the PostgreSQL database that holds the budget ledgers, each in its own schema;
            none keeps each in a file.
        held_checkpoints: a folder in which others publish the checkpoints that they hold of the logs here, as
            ``*.note`` files; it is to be filled from off this machine, and has to be there.
        pinned_witnesses: a trust directory with ``witness/<name>.pem``; a checkpoint counts as held off this
            machine only with the cosignature of one of them.
        witnesses: folders of witnesses, each of which has to cosign the logs' heads in every receipt.
        seal_levels: the levels of sealing that are acceptable for workers here, the preferred one first. With
            ``namespaces`` alone a machine that forbids these trains nothing; ``no-namespaces`` names the
            weaker level; each has an ``-unreported`` form, where the kernel can't tell a forbidden call.
        immune: whether cloister's own functions are watched while it works. What may be blocked is named in
            ``immune/pic.yaml`` of the workspace.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="CLOISTER_", env_ignore_empty=True, validate_default=True
    )

    workspace: Path = Path("cloister-work")
    data_dir: Path | None = None
    log_level: LogLevel = LogLevel.INFO
    log_file: Path | None = None
    key_passphrase_file: Path | None = None
    pkcs11_library: Path | None = None
    pkcs11_token: str | None = None
    pkcs11_pin_file: Path | None = None
    kms_key: str | None = None
    log_database: str | None = None
    ledger_database: str | None = None
    held_checkpoints: Path | None = None
    pinned_witnesses: Path | None = None
    witnesses: tuple[Path, ...] = ()
    seal_levels: Annotated[tuple[SealLevelName, ...], Field(min_length=1, max_length=4)] = ("namespaces",)
    immune: bool = True


def load_settings(arguments: Mapping[str, object], *, file: Path | None = None) -> Settings:
    """Gather the settings from all their sources.

    Args:
        arguments: what the command line gave, by field name; None stands for "not given".
        file: the settings file, which then has to exist; without it ``cloister.toml`` in the working
            directory is read where there is one.

    Raises:
        InputError: a wrong or unknown value, or a settings file that cannot be read.
    """
    values = _read_file(file)

    class FromAllSources(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=values)

    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        gathered = FromAllSources(**given)  # type: ignore[arg-type]
        return Settings.model_construct(**dict(gathered))
    except ValidationError as error:
        raise schema_error(error, "the configuration") from None


def _read_file(file: Path | None) -> dict[str, object]:
    if file is None and not SETTINGS_FILE.exists():
        return {}
    path = SETTINGS_FILE if file is None else file
    try:
        return tomllib.loads(read_bounded(path, _MAX_FILE).decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        shown = f" {place.group()}" if place else ""
        raise InputError("input.syntax", f"{path} is not well-formed TOML{shown}.") from None
    except UnicodeDecodeError:
        raise InputError("input.syntax", f"{path} is not UTF-8.") from None
