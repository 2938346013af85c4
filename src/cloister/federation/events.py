"""What a running job tells whoever watches it: small frozen facts, delivered one at a time.

Events are for eyes. Nothing is decided from them and nothing is proven by them; statements are for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SiteAdmitted:
    """A site's evidence was accepted."""

    site: str


@dataclass(frozen=True)
class SiteRefused:
    """A site gets no task; `reason` is a stable word."""

    site: str
    reason: str


@dataclass(frozen=True)
class RoundStarted:
    """A round was sent out. Rounds count from 0."""

    round: int
    total_rounds: int
    sites: tuple[str, ...]


@dataclass(frozen=True)
class SiteRoundFinished:
    """A site's update passed its airlock. `epsilon` is what this job has spent there so far."""

    site: str
    round: int
    epsilon: float | None


@dataclass(frozen=True)
class SiteLeft:
    """A site is out for the rest of the job; `code` is the error's stable code."""

    site: str
    round: int
    code: str


@dataclass(frozen=True)
class RoundFinished:
    """A round was aggregated; metrics come from named public data only."""

    round: int
    total_rounds: int
    metrics: Mapping[str, float] = field(default_factory=dict)


FederationEvent = SiteAdmitted | SiteRefused | RoundStarted | SiteRoundFinished | SiteLeft | RoundFinished

EventSink = Callable[[FederationEvent], None]


def ignore_events(event: FederationEvent) -> None:
    """The sink of a caller that does not watch."""
