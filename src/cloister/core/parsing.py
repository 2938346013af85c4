"""From plain JSON values to frozen models, once, at the edge.

Rules this module keeps:

* A model's refusal is one typed error that names the path of each wrong field and why.
* An error never shows what was written in a field.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

from annotated_types import MaxLen
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cloister.core.canonical import JSON
from cloister.core.errors import InputError

_MAX_FINDINGS = 1000
_MAX_KEYS = 4096
_MAX_ITEMS = 100_000
_PATH_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Model = TypeVar("Model", bound=BaseModel)


def parse_model(model: type[Model], value: JSON, what: str) -> Model:
    """Turn plain values into a model, or say what is wrong with each field.

    Args:
        model: the pydantic model; its own configuration says how strict it is.
        value: values as `load_yaml` or `canonical.parse` read them.
        what: what the values are, for the message: ``"the job file"``.

    Raises:
        InputError: ``input.schema``; ``details`` has one line for each wrong field.
    """
    try:
        document = json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise InputError(
            "input.not_json", f"{_sentence(what)} holds values that JSON cannot carry."
        ) from None
    try:
        return model.model_validate_json(document)
    except ValidationError as error:
        raise schema_error(error, what) from None


def wrong_fields(error: ValidationError, depth: int = 4, shown: int = 5) -> str:
    """The paths of a few of the fields that a model refused, at a cost that hostile input can't raise.

    Args:
        error: the model's refusal.
        depth: how many parts of a path are named.
        shown: how many paths are named.

    Returns:
        The paths, sorted; where there are very many findings only their number.
    """
    if error.error_count() > _MAX_FINDINGS:
        return f"{error.error_count()} of them"
    found = error.errors(include_input=False, include_context=False, include_url=False)
    paths = sorted({".".join(_shown(part) for part in one["loc"][:depth]) for one in found})
    return ", ".join(paths[:shown])


def misfits(model: type[BaseModel], value: JSON, path: str = "") -> list[str]:
    """Fields that an object of this form lacks or doesn't have, or too long ones, before the model is asked.

    A model collects an error for each of them, with a copy of what they stand in; this stops at the first.

    Args:
        model: the form; what it nests directly is looked at too.
        value: the parsed document.
        path: where it stands.

    Returns:
        The path of one misfit; nothing where all names fit.
    """
    if not isinstance(value, dict):
        return [path.rstrip(".") or "the document"]
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    needed = [name for name, field in fields.items() if field.is_required()]
    wrong = next((one for one in needed if one not in value), None)
    if wrong is None and len(value) > len(needed):
        wrong = next((one for one in value if one not in fields), None)
    if wrong is not None:
        return [f"{path}{_shown(wrong)}"]
    for name, field in fields.items():
        inner, content = field.annotation, value.get(name)
        if name in value and isinstance(inner, type) and issubclass(inner, BaseModel):
            found = misfits(inner, content, f"{path}{name}.")
            if found:
                return found
        elif isinstance(content, dict | list) and len(content) > _longest(field, content):
            return [f"{path}{name}"]
    return []


def _longest(field: FieldInfo, content: dict[str, JSON] | list[JSON]) -> int:
    stated = [one.max_length for one in field.metadata if isinstance(one, MaxLen)]
    return min(stated, default=_MAX_KEYS if isinstance(content, dict) else _MAX_ITEMS)


def schema_error(error: ValidationError, what: str) -> InputError:
    """A model's refusal as a typed error: field paths and reasons, without the values."""
    details = [
        _finding(tuple(found["loc"]), found["type"], found["msg"], found["input"]) for found in error.errors()
    ]
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return InputError(
        "input.schema",
        f"{_sentence(what)} is not valid: {details[0]}{more}.",
        "Correct the named fields." if len(details) > 1 else "Correct the named field.",
        details=details,
    )


def _finding(location: tuple[int | str, ...], kind: str, reason: str, value: object) -> str:
    path = ".".join(_shown(part) for part in location) or "the document"
    if kind == "extra_forbidden":
        return f"{path}: unknown field"
    if kind == "missing":
        return f"{path}: missing"
    if kind in ("uuid_parsing", "union_tag_invalid") or _echoes(reason, value):
        return f"{path}: not an acceptable value ({kind})"
    reason = reason.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    return f"{path}: {reason[:1].lower()}{reason[1:]}"


def _echoes(reason: str, value: object) -> bool:
    return isinstance(value, str) and len(value) >= 3 and value in reason


def _shown(part: int | str) -> str:
    text = str(part)
    return text if _PATH_PART.fullmatch(text) else "[withheld]"


def _sentence(what: str) -> str:
    return what[:1].upper() + what[1:]
