"""Keeps the telemetry events of observed calls in a ring, for whoever sends or stores them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from types import MappingProxyType

from cloister.immune.event_ids import EventIds
from cloister.immune.observation import Observed
from cloister.immune.wrapping.arguments import ArgumentHasher, ArgumentMetadata
from cloister.immune.wrapping.events import TelemetryEvent
from cloister.immune.wrapping.ring import Ring


class Recorder:
    """Makes events and keeps them.

    Args:
        ring: where they are kept.
        tags: labels of the service.
        wall_clock: seconds since 1970, UTC.
        hasher: describes arguments.
        ids: makes ids.
    """

    def __init__(
        self,
        ring: Ring[TelemetryEvent],
        *,
        tags: Mapping[str, str] | None = None,
        wall_clock: Callable[[], float] = time.time,
        hasher: ArgumentHasher | None = None,
        ids: EventIds | None = None,
    ) -> None:
        self.ring = ring
        self._tags = MappingProxyType(dict(tags or {}))
        self._wall_clock = wall_clock
        self._hasher = hasher or ArgumentHasher(time.monotonic)
        self._ids = ids or EventIds()

    def describe(self, arguments: Sequence[object]) -> ArgumentMetadata:
        """What may be told of arguments, before the call can change them."""
        return self._hasher.describe(arguments)

    def record(
        self, function_name: str, arguments: ArgumentMetadata, observed: Observed, rate: float
    ) -> None:
        """Keep the event of a call that has just ended.

        Args:
            function_name: ``module:qualname``.
            arguments: of the call.
            observed: the call.
            rate: share of the function's calls that is being observed.
        """
        entered = observed.entered
        self.ring.append(
            TelemetryEvent(
                event_id=self._ids.next(),
                timestamp=self._wall_clock() - observed.duration,
                process_id=self._ids.process_id,
                thread_id=get_ident(),
                module_name=function_name.partition(":")[0],
                function_name=function_name,
                args_metadata=arguments,
                duration_ms=observed.duration * 1000,
                failed=observed.failed,
                calls=entered.calls,
                errors=entered.errors,
                caller=entered.caller,
                size=entered.size,
                teaches=entered.teaches,
                sampling_rate=rate,
                resource_tags=self._tags,
            )
        )

    def forget(self) -> None:
        """Start anew in the child of a fork: no event, another key."""
        self.ring.forget()
        self._hasher.rotate()
