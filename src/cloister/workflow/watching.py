"""What somebody who watches a job is told: its steps in a sentence each, and the federation's events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloister.federation.events import FederationEvent


@dataclass(frozen=True)
class Stage:
    """A step of the job has begun; the sentence is for people."""

    sentence: str


RunEvent = Stage | FederationEvent
Watcher = Callable[[RunEvent], None]
