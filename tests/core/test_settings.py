"""Settings: command line over environment over file over default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from cloister.core.errors import InputError
from cloister.core.logging import LogLevel
from cloister.core.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("CLOISTER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_one_key_in_all_four_places_is_taken_from_the_first_that_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('workspace = "/from/file"\n')
    monkeypatch.setenv("CLOISTER_WORKSPACE", "/from/environment")
    assert load_settings({"workspace": Path("/from/cli")}, file=file).workspace == Path("/from/cli")
    assert load_settings({"workspace": None}, file=file).workspace == Path("/from/environment")
    monkeypatch.delenv("CLOISTER_WORKSPACE")
    assert load_settings({}, file=file).workspace == Path("/from/file")
    assert load_settings({}).workspace == Path("cloister-work")


def test_each_key_is_looked_up_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('log_level = "debug"\ndata_dir = "/from/file"\n')
    monkeypatch.setenv("CLOISTER_DATA_DIR", "/from/environment")
    monkeypatch.setenv("CLOISTER_LOG_FILE", "")
    found = load_settings({"workspace": "/from/cli"}, file=file)
    assert found == Settings.model_construct(
        workspace=Path("/from/cli"),
        data_dir=Path("/from/environment"),
        log_level=LogLevel.DEBUG,
        log_file=None,
    )
    assert type(found) is Settings


def test_the_file_in_the_working_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "cloister.toml").write_text('log_level = "error"\n')
    assert load_settings({}).log_level is LogLevel.ERROR


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load_settings({}).workspace = Path("x")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (b'wrkspace = "x"\n', "input.schema", "wrkspace: unknown field"),
        (b"workspace = 3\n", "input.schema", "workspace:"),
        (b'log_level = "loud"\n', "input.schema", "log_level:"),
        (b"workspace = \n", "input.syntax", "(at line 1, column 13)"),
        (b'workspace = "\xff"\n', "input.syntax", "UTF-8"),
        (b"#" * 70_000, "input.too_large", "settings.toml"),
    ],
)
def test_a_wrong_file_is_refused_and_the_field_named(
    text: bytes, code: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(text)
    with pytest.raises(InputError) as refused:
        load_settings({}, file=file)
    assert refused.value.code == code
    assert said in str(refused.value)


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_settings({}, file=tmp_path / "absent.toml")
    assert refused.value.code == "input.missing_file"


def test_a_wrong_value_in_the_environment_or_on_the_command_line_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError):
        load_settings({"log_level": "loud"})
    with pytest.raises(InputError):
        load_settings({"verbosity": 3})
    monkeypatch.setenv("CLOISTER_LOG_LEVEL", "loud")
    with pytest.raises(InputError) as refused:
        load_settings({})
    assert "loud" not in str(refused.value.as_json())
