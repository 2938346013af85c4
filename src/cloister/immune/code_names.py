"""Names of code as they are kept and sent: what the redactor finds in one is taken out first.

A program may make a class or function at run time and name it by what it works on. Each name is looked at
once. Its two parts are looked at alone: in ``accounts.password:check`` nothing is a password.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final, cast

from cloister.core.canonical import JSON, canonicalize
from cloister.core.redaction import Redactor
from cloister.immune.wrapping.events import TelemetryEvent

MOST_NAMES: Final = 10_000
_CLEAN: Final = Redactor().clean
_SHOWN: Final[dict[str, str]] = {}


def name_shown(name: str) -> str:
    """A name of code, ``module:qualname`` or one part of it, without what identifies a person."""
    shown = _SHOWN.get(name)
    if shown is None:
        shown = ":".join(_CLEAN(part) for part in name.split(":"))
        if len(_SHOWN) >= MOST_NAMES:
            _SHOWN.clear()
        _SHOWN[name] = shown
    return shown


def event_shown(event: TelemetryEvent) -> TelemetryEvent:
    """An event as it may leave; the same object where its names hold nothing."""
    told = event.args_metadata
    function, caller = name_shown(event.function_name), name_shown(event.caller)
    module, types = name_shown(event.module_name), tuple(map(name_shown, told.types))
    if (function, caller, module, types) == (
        event.function_name,
        event.caller,
        event.module_name,
        told.types,
    ):
        return event
    return replace(
        event,
        function_name=function,
        caller=caller,
        module_name=module,
        args_metadata=replace(told, types=types),
    )


def learned_shown(document: bytes) -> bytes:
    """What a detector learned, as it may be kept: the same bytes where the names of callers hold nothing.

    Args:
        document: of `Detector.as_json`, canonical.
    """
    learned = cast("dict[str, JSON]", json.loads(document))
    return canonicalize(learned) if _show_callers(learned) else document


def _show_callers(part: dict[str, JSON]) -> bool:
    """Rename the callers of a detector, and of those that it is made of; whether any had to be."""
    changed = False
    for key, value in part.items():
        if not isinstance(value, dict):
            continue
        names = value.get("names")
        if key == "callers" and isinstance(names, dict):
            shown = {name_shown(name): count for name, count in names.items()}
            changed = changed or shown.keys() != names.keys()
            value["names"] = cast("JSON", shown)
        else:
            changed = _show_callers(value) or changed
    return changed
