"""The form of a batch of telemetry on the wire, read strictly.

It is the JSON of `TelemetryEvent`: types, sizes, counts and keyed hashes; there is no field for a value.

Rules this module keeps:

1. Every text, list and number is bounded, numbers are finite, unknown fields are refused.
2. A refusal names fields of this form and positions, and nothing that came in: not even an unknown name.
3. Reading stops at the first event that doesn't fit, and at 1,000 findings in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cloister.immune.errors import ImmuneError
from cloister.immune.wrapping.arguments import ArgumentMetadata
from cloister.immune.wrapping.events import TelemetryEvent

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

MAX_NAME: Final = 1024
MAX_ARGUMENTS: Final = 256
MAX_TAGS: Final = 32
_MAX_FINDINGS: Final = 1000
_SHOWN: Final = 20
_INTEGER: Final = 2**53 - 1

_Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]
_NameOrNone = Annotated[str, StringConstraints(max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Hash = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{8,64})?$")]
_Count = Annotated[int, Field(ge=0, le=_INTEGER)]
# A type's name is the application's choice and is shown nowhere.
_Types: TypeAlias = Annotated[
    tuple[Annotated[str, StringConstraints(max_length=128)], ...], Field(max_length=MAX_ARGUMENTS)
]
_Hashes: TypeAlias = Annotated[tuple[_Hash, ...], Field(max_length=MAX_ARGUMENTS)]
_Id = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_.:-]{1,64}$")]
_Tag: TypeAlias = Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ArgumentForm(_Form):
    """What is known of a call's arguments (PIC-R17.1, ``args_metadata``).

    Attributes:
        count: how many there were.
        types: the type of each, as far as they were looked at.
        sizes: the size of each.
        hashes: keyed hash of each; empty where none is made.
        key_id: tells hashes under one key from those under another.
    """

    count: Annotated[int, Field(ge=0, le=_INTEGER)]
    types: _Types
    sizes: Annotated[tuple[_Count, ...], Field(max_length=MAX_ARGUMENTS)]
    hashes: _Hashes
    key_id: _Hash


class TelemetryForm(_Form):
    """One observed call (PIC-R17.1, PIC-X2).

    Attributes:
        event_id: its id; of one process no two are the same.
        timestamp: Unix time of the entry, seconds.
        process_id: of the process.
        thread_id: of the thread.
        module_name: the module of the function.
        function_name: ``module:qualname``.
        args_metadata: of its arguments.
        arg_count: how many there were, as in ``args_metadata``.
        arg_types: the type of each, as there.
        arg_hashes: keyed hash of each, as there.
        duration_ms: how long it ran.
        resource_tags: names of service, host and the like, as the operator set them.
        redaction_hashes: keyed hashes of what was redacted.
        redaction_applied: whether something was.
        sampling_rate: share of calls that were observed at the time.
        calls: calls since the last observed one, this one included; exact.
        errors: how many of the ones before this raised, of which nobody was told; exact.
        caller: ``module:qualname`` of the calling code; empty where it isn't known.
        failed: whether it raised.
        size: total size of its arguments.
        teaches: whether chance chose it, and not a gate.
    """

    event_id: _Id
    timestamp: Annotated[float, Field(ge=0, le=1e11)]
    process_id: Annotated[int, Field(ge=0, le=2**32)]
    thread_id: Annotated[int, Field(ge=0, le=2**64 - 1)]
    module_name: _Name
    function_name: _Name
    args_metadata: ArgumentForm
    arg_count: Annotated[int, Field(ge=0, le=_INTEGER)] = 0
    arg_types: _Types = ()
    arg_hashes: _Hashes = ()
    duration_ms: Annotated[float, Field(ge=0, le=1e12)]
    resource_tags: Annotated[dict[_Word, _Tag], Field(max_length=MAX_TAGS)]
    redaction_hashes: _Hashes
    redaction_applied: bool = False
    sampling_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    calls: Annotated[int, Field(ge=1, le=_INTEGER)] = 1
    errors: _Count = 0
    caller: _NameOrNone = ""
    failed: bool = False
    size: _Count = 0
    teaches: bool = False


class BatchForm(_Form):
    """A batch.

    Attributes:
        events: in the order in which they happened, as far as that is known.
        dropped: events that the sender lost since its last batch.
    """

    events: Annotated[tuple[TelemetryForm, ...], Field(fail_fast=True)]
    dropped: _Count = 0


Fault: TypeAlias = Literal["syntax", "schema", "length"]


class BatchRefused(ImmuneError):  # noqa: N818 - what became of it
    """A batch that isn't of this form; ``details`` has one line for each wrong field.

    Attributes:
        fault: not JSON, JSON of another form, or too many events.
    """

    def __init__(self, fault: Fault, message: str, details: tuple[str, ...] = ()) -> None:
        super().__init__("immune.telemetry_invalid", message, details=details)
        self.fault = fault

    def __reduce__(self) -> tuple[object, ...]:
        return BatchRefused, (self.fault, self.message, self.details)


def read_batch(body: bytes, max_events: int) -> BatchForm:
    """Read a batch.

    Args:
        body: JSON in UTF-8, of bounded size.
        max_events: how many there may be.

    Raises:
        BatchRefused: it isn't one.
    """
    try:
        batch = BatchForm.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None
    if not batch.events:
        raise BatchRefused("schema", "The batch has no events.", ("events: too few",))
    if len(batch.events) > max_events:
        raise BatchRefused("length", f"The batch has more than {max_events} events.")
    return batch


def require_past(batch: BatchForm, latest: float) -> None:
    """Refuse a batch with an event of the future: what is kept is forgotten by its time.

    Args:
        batch: as it was read.
        latest: Unix time, seconds, up to which a call may have begun.

    Raises:
        BatchRefused: one has.
    """
    late = [number for number, one in enumerate(batch.events) if one.timestamp > latest]
    if late:
        details = tuple(f"events.{number}.timestamp: in the future" for number in late[:_SHOWN])
        raise BatchRefused("schema", "The batch has fields that are wrong.", details)


def read_event(value: Mapping[str, JSON]) -> TelemetryEvent:
    """Read one event: what `TelemetryEvent.as_json` writes.

    Raises:
        BatchRefused: it isn't one.
    """
    try:
        form = TelemetryForm.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise _refusal(error) from None
    except (ValueError, TypeError, RecursionError):
        raise BatchRefused("syntax", "The event holds what JSON can't carry.") from None
    told = form.args_metadata
    return TelemetryEvent(
        event_id=form.event_id,
        timestamp=form.timestamp,
        process_id=form.process_id,
        thread_id=form.thread_id,
        module_name=form.module_name,
        function_name=form.function_name,
        args_metadata=ArgumentMetadata(told.count, told.types, told.sizes, told.hashes, told.key_id),
        duration_ms=form.duration_ms,
        failed=form.failed,
        calls=form.calls,
        errors=form.errors,
        caller=form.caller,
        size=form.size,
        teaches=form.teaches,
        sampling_rate=form.sampling_rate,
        resource_tags=MappingProxyType(form.resource_tags),
    )


def _refusal(error: ValidationError) -> BatchRefused:
    if error.error_count() > _MAX_FINDINGS:
        return BatchRefused("schema", f"The batch has {error.error_count()} wrong fields.")
    found = error.errors(include_input=False, include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return BatchRefused("syntax", "The body isn't well-formed JSON in UTF-8.")
    details = tuple(
        f"{_path(one['loc'])}: {_REASONS.get(one['type'], _ANOTHER_KIND)}" for one in found[:_SHOWN]
    )
    return BatchRefused("schema", "The batch has fields that are wrong.", details)


_REASONS: Final = {
    "bool_type": "not true or false",
    "dict_type": "not an object",
    "extra_forbidden": "unknown field",
    "finite_number": "not a finite number",
    "float_type": "not a number",
    "greater_than_equal": "too small",
    "int_type": "not a whole number",
    "less_than_equal": "too large",
    "missing": "missing",
    "model_type": "not an object",
    "string_pattern_mismatch": "text of another form",
    "string_too_long": "too long",
    "string_too_short": "too short",
    "string_type": "not text",
    "too_long": "too many",
    "too_short": "too few",
    "tuple_type": "not a list",
}
_ANOTHER_KIND: Final = "of another form"
_NAMES: Final = frozenset(
    name for form in (BatchForm, TelemetryForm, ArgumentForm) for name in form.model_fields
)


def _path(location: tuple[int | str, ...]) -> str:
    parts = [str(one) if isinstance(one, int) or one in _NAMES else "[withheld]" for one in location]
    return ".".join(parts) or "the batch"
