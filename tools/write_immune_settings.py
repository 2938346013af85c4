"""Writes docs/reference/immune-settings.md from the settings that the immune room declares.

Use: python tools/write_immune_settings.py
"""

import inspect
import json
import re
from pathlib import Path
from typing import Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cloister.immune.settings import ImmuneSettings
from cloister.immune.settings_file import environment_name

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "immune-settings.md"
HEAD: Final = """\
# Settings of the immune system

Every setting of `cloister.immune`, as `cloister/immune/settings.py` declares it. This page is written by
`python tools/write_immune_settings.py`; a test compares it with the code.

A value is taken from the first place that has it:

1. the command line;
2. the environment: `PIC_`, the section, two underscores and the key, in capitals;
3. a YAML file with one mapping for each section;
4. the default.

A key that isn't on this page is refused in each of them, with the one that was probably meant. An empty
variable counts as not set. In the environment a list or mapping is JSON, or has commas: `a:b,c:d`,
`service=shop,host=web-1`.

```yaml
cellagent:
  sampling: budgeted
  overhead_budget: 0.02
effector:
  enforcing: ["shop.payments:refund"]
```
"""
_SIGNS: Final = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
_KINDS: Final = {"bool": "true or false", "int": "whole number", "float": "number", "str": "text"}


def page() -> str:
    """The page."""
    parts = [HEAD]
    for section, field in ImmuneSettings.model_fields.items():
        kind = field.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            raise TypeError(f"{section} is no section")
        meanings = attributes(kind)
        parts.append(f"## `{section}`\n\n{(inspect.getdoc(kind) or '').splitlines()[0]}\n")
        parts.append("| key | type | default | meaning | environment |\n|---|---|---|---|---|")
        for key, setting in kind.model_fields.items():
            variable = environment_name(f"{section}.{key}")
            cells = (f"`{key}`", type_of(setting), shown(setting.default), meanings[key], f"`{variable}`")
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def attributes(kind: type[BaseModel]) -> dict[str, str]:
    """What the docstring of a section says of each key."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in listed.splitlines():
        begins = re.fullmatch(r" {4}(\w+): (.+)", line)
        if begins:
            name = begins[1]
            found[name] = begins[2]
        elif line.strip() and name:
            found[name] += " " + line.strip()
    return {
        name: re.sub(r"``(.+?)``", r"`\1`", f"{text[:1].upper()}{text[1:]}") for name, text in found.items()
    }


def type_of(field: FieldInfo) -> str:
    """A setting's type and bounds in words."""
    kind: object = field.annotation
    optional = type(None) in get_args(kind)
    if optional:
        kind = next(one for one in get_args(kind) if one is not type(None))
    bounds = [
        f"{words} {shown_number(getattr(one, sign))}"
        for one in field.metadata
        for sign, words in _SIGNS.items()
        if getattr(one, sign, None) is not None
    ]
    choices = [one for one in get_args(kind) if isinstance(one, str)]
    if choices:
        return " or ".join(f"`{one}`" for one in choices)
    if get_origin(kind) is dict:
        return "mapping of text"
    name = "list of text" if get_args(kind) else _KINDS[getattr(kind, "__name__", "")]
    return ", ".join([name, *bounds]) + (", or none" if optional else "")


def shown_number(value: float) -> str:
    """A bound as it is read."""
    return f"{value:,}".removesuffix(".0")


def shown(value: object) -> str:
    """A default as YAML writes it."""
    if value is None:
        return "none"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
