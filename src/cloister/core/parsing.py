"""From plain JSON values to frozen models, once, at the edge.

Rules this module keeps:

* A model's refusal is one typed error that names the path of each wrong field and why.
* An error never shows what was written in a field.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from cloister.core.canonical import JSON
from cloister.core.errors import InputError

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
