"""The telemetry event of one observed call, without a value in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cloister.immune.wrapping.arguments import ArgumentMetadata


@dataclass(frozen=True, slots=True)
class TelemetryEvent:
    """One observed call.

    Attributes:
        event_id: unique over processes.
        timestamp: seconds since 1970, UTC, when the call began.
        process_id: of the process.
        thread_id: of the thread, as `threading.get_ident` gives it.
        module_name: module of the function.
        function_name: ``module:qualname``.
        args_metadata: of its arguments.
        duration_ms: milliseconds that it ran.
        failed: whether it raised.
        calls: calls since the last observed one, this one included; exact.
        errors: how many of the ones before this raised, of which nobody was told; exact.
        caller: ``module:qualname`` of the calling code; empty where it isn't known.
        size: total size of its arguments.
        teaches: whether chance chose it, and not a gate.
        sampling_rate: share of this function's calls that were being observed.
        resource_tags: labels of the service, of the operator's own making.
        redaction_applied: whether values were withheld; always, where there were arguments.
    """

    event_id: str
    timestamp: float
    process_id: int
    thread_id: int
    module_name: str
    function_name: str
    args_metadata: ArgumentMetadata
    duration_ms: float
    failed: bool
    calls: int
    errors: int
    caller: str
    size: int
    teaches: bool
    sampling_rate: float
    resource_tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def redaction_applied(self) -> bool:
        """Whether values were withheld."""
        return self.args_metadata.count > 0

    @property
    def redaction_hashes(self) -> tuple[str, ...]:
        """Keyed hashes that stand in place of the values withheld."""
        return tuple(one for one in self.args_metadata.hashes if one)

    def as_json(self) -> dict[str, object]:
        """The event as plain JSON."""
        arguments = self.args_metadata
        return {
            "event_id": self.event_id,
            "timestamp": self.timestamp,
            "process_id": self.process_id,
            "thread_id": self.thread_id,
            "module_name": self.module_name,
            "function_name": self.function_name,
            "args_metadata": arguments.as_json(),
            "arg_count": arguments.count,
            "arg_types": list(arguments.types),
            "arg_hashes": list(arguments.hashes),
            "duration_ms": self.duration_ms,
            "failed": self.failed,
            "calls": self.calls,
            "errors": self.errors,
            "caller": self.caller,
            "size": self.size,
            "teaches": self.teaches,
            "sampling_rate": self.sampling_rate,
            "resource_tags": dict(self.resource_tags),
            "redaction_applied": self.redaction_applied,
            "redaction_hashes": list(self.redaction_hashes),
        }
