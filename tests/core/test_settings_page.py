"""The page on settings has each of them, with its type and default, and examples that are read as printed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

import pytest

from cloister.core.logging import LogLevel
from cloister.core.settings import SealLevelName, Settings, load_settings
from tests.conftest import ROOT

PAGE: Final = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
ENTRY: Final = re.compile(
    r"^### `(\w+)`\n\n"
    r"(?P<says>(?:(?!- |#).+\n|\n)+)"
    r"- type: (?P<type>[\w ]+); default: `?(?P<default>[^`\n]+)`?\n"
    r"- `cloister.toml`: `(?P<file>.+)`\n"
    r"- environment: `(?P<variable>.+)`\n",
    re.MULTILINE,
)
ENTRIES: Final = {found[1]: found for found in ENTRY.finditer(PAGE)}
TYPES: Final = {
    "path": (Path, Path | None),
    "text": (str | None,),
    "level": (LogLevel,),
    "yes or no": (bool,),
    "list of paths": (tuple[Path, ...],),
    "list of levels": (tuple[SealLevelName, ...],),
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [one for one in os.environ if one.startswith("CLOISTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_on_the_page_and_nothing_else() -> None:
    assert list(ENTRIES) == list(Settings.model_fields)
    assert re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE) == list(ENTRIES)


def as_written(default: object) -> str:
    """A default as the page writes it."""
    if isinstance(default, tuple):
        return json.dumps(default)
    return "none" if default is None else str(default)


@pytest.mark.parametrize("name", ENTRIES)
def test_its_type_and_default_are_those_of_the_code(name: str) -> None:
    entry, field = ENTRIES[name], Settings.model_fields[name]
    assert field.annotation in TYPES[entry["type"]]
    assert entry["default"] == as_written(field.default)


@pytest.mark.parametrize("name", ENTRIES)
def test_its_examples_say_the_same_in_the_file_and_in_the_environment(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = ENTRIES[name]
    (tmp_path / "cloister.toml").write_text(entry["file"] + "\n")
    of_file = getattr(load_settings({}), name)
    (tmp_path / "cloister.toml").unlink()
    variable, _, value = entry["variable"].partition("=")
    assert variable == f"CLOISTER_{name.upper()}"
    monkeypatch.setenv(variable, value)
    assert getattr(load_settings({}), name) == of_file != Settings.model_fields[name].default
