"""Gathers the settings from the command line, the environment, a YAML file and the defaults.

Rules this module keeps:

1. The first source that has a key is taken: command line, ``PIC_SECTION__KEY``, file, default.
2. A key that isn't known is refused in every source, with the one that was probably meant. Of the environment
   that goes for names that begin with ``PIC_`` and a section, or have a double underscore; other ``PIC_``
   names are another part's.
3. An error names the key and the source, and never shows what was written there.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from pydantic import BaseModel, ValidationError

from cloister.core.errors import InputError
from cloister.core.parsing import schema_error
from cloister.immune.errors import ImmuneError
from cloister.immune.settings import ImmuneSettings

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

PREFIX: Final = "PIC_"
_SEPARATOR: Final = "__"
_ALIKE: Final = 0.7
"""Share of two names that has to be the same for one to be a slip of the other."""
_Values: TypeAlias = dict[str, object]


def load_immune_settings(
    arguments: Mapping[str, object],
    *,
    environment: Mapping[str, str],
    file: Path | None = None,
) -> ImmuneSettings:
    """Gather the settings.

    Args:
        arguments: what the command line gave, by dotted name (``cellagent.sampling_rate``); None stands for
            "not given".
        environment: ``os.environ``, or what stands for it; an empty variable counts as not set.
        file: a YAML file with a mapping for each section; it has to exist where it is named.

    Raises:
        ImmuneError: ``immune.setting_invalid`` for an unknown key, a wrong value or a file that isn't YAML of
            this form; ``immune.library_missing`` where a file is named and PyYAML isn't there.
        InputError: the file isn't there or can't be read.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    for name in given:
        _require_known(name, "the command line")
    gathered = {**_from_file(file), **_from_environment(environment), **given}
    nested: dict[str, _Values] = {}
    for name, value in gathered.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    try:
        return ImmuneSettings.model_validate(nested)
    except ValidationError as error:
        found = schema_error(error, "the configuration")
        raise ImmuneError(
            "immune.setting_invalid", found.message, found.hint, details=found.details
        ) from None


def get(settings: ImmuneSettings, name: str, default: object = None) -> object:
    """One setting by its dotted name.

    Args:
        settings: all of them.
        name: ``cellagent.sampling_rate``, or a section's name for the section.
        default: what is answered for a name that there isn't.
    """
    value: object = settings
    for part in name.split("."):
        if not isinstance(value, BaseModel) or part not in type(value).model_fields:
            return default
        value = getattr(value, part)
    return value


def known_names() -> tuple[str, ...]:
    """Every setting's dotted name, in the order in which they are declared."""
    return tuple(
        f"{section}.{key}"
        for section, field in ImmuneSettings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key in field.annotation.model_fields
    )


def environment_name(name: str) -> str:
    """The environment variable of a dotted name."""
    return PREFIX + name.replace(".", _SEPARATOR).upper()


def _from_environment(environment: Mapping[str, str]) -> _Values:
    names = {environment_name(name): name for name in known_names()}
    values: _Values = {}
    for variable, text in environment.items():
        if variable in names:
            if text:
                values[names[variable]] = _listed(names[variable], text)
        elif _is_meant_for_us(variable):
            raise _unknown(variable, "the environment", list(names))
    return values


def _is_meant_for_us(variable: str) -> bool:
    if not variable.startswith(PREFIX):
        return False
    sections = tuple(f"{PREFIX}{section.upper()}_" for section in ImmuneSettings.model_fields)
    return _SEPARATOR in variable or variable.startswith(sections)


def _listed(name: str, text: str) -> object:
    """A list or mapping is written as JSON, or with commas; everything else is read by its field."""
    default = get(ImmuneSettings(), name)
    if isinstance(default, dict):
        return _mapped(name, text)
    if not isinstance(default, tuple):
        return text
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ImmuneError(
                "immune.setting_invalid",
                f"{environment_name(name)} is no list in JSON.",
                'Write ["shop:pay","shop:ship"], or shop:pay,shop:ship.',
            ) from None
    return [part.strip() for part in text.split(",") if part.strip()]


def _mapped(name: str, text: str) -> object:
    wrong = ImmuneError(
        "immune.setting_invalid",
        f"{environment_name(name)} is no mapping.",
        'Write {"service":"shop","host":"web-1"}, or service=shop,host=web-1.',
    )
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise wrong from None
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise wrong
    return {key.strip(): value.strip() for key, _, value in pairs}


def _from_file(file: Path | None) -> _Values:
    if file is None:
        return {}
    document = _read_yaml(file)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ImmuneError(
            "immune.setting_invalid", f"{file} is no mapping of sections.", "Begin with a section: cellagent:"
        )
    return dict(_flattened(document, file))


def _flattened(document: dict[str, JSON], file: Path) -> Iterator[tuple[str, object]]:
    for section, content in document.items():
        if section not in ImmuneSettings.model_fields:
            raise _unknown(section, str(file), list(ImmuneSettings.model_fields))
        if content is None:
            continue
        if not isinstance(content, dict):
            raise ImmuneError(
                "immune.setting_invalid", f"{section} in {file} is no mapping.", "Write its keys below it."
            )
        for key, value in content.items():
            _require_known(f"{section}.{key}", str(file))
            yield f"{section}.{key}", value


def _read_yaml(file: Path) -> JSON:
    try:
        from cloister.core.documents import load_yaml
    except ImportError:
        raise ImmuneError(
            "immune.library_missing",
            "PyYAML isn't installed, and a settings file was named.",
            "Install it, in a checkout: pip install '.[immune]'",
        ) from None
    try:
        return load_yaml(file)
    except InputError as error:
        if error.code in ("input.missing_file", "input.unreadable"):
            raise
        raise ImmuneError(
            "immune.setting_invalid", error.message, "Correct the file; it is YAML with text keys."
        ) from None


def _require_known(name: str, source: str) -> None:
    names = known_names()
    if name not in names:
        raise _unknown(name, source, list(names))


def _unknown(name: str, source: str, names: list[str]) -> ImmuneError:
    tail = name[:100].rpartition(".")[2]
    close = [one for one in names if "." in name and one.rpartition(".")[2] == tail][:1]
    # Without what all of them begin with: names that share nothing else would look alike.
    bare = {one.removeprefix(PREFIX): one for one in names}
    near = difflib.get_close_matches(name[:100].removeprefix(PREFIX), bare, n=1, cutoff=_ALIKE)
    close = close or [bare[one] for one in near]
    shown = name if len(name) <= 100 and name.isprintable() else "A key"
    return ImmuneError(
        "immune.setting_invalid",
        f"{shown} in {source} is no setting.",
        f"Did you mean {close[0]}?" if close else "See docs/reference/immune-settings.md.",
    )
