"""Traces of calls made from a seed: ordinary traffic, ten kinds of attack, and what sampling sees of them.

The same seed gives the same bytes on every machine and Python version. What comes out of here is made up: it
is for tests, demonstrations and the figures of `benchmarks/immune.py`.
"""

from __future__ import annotations

from cloister.immune.generators.attacks import SEED_PATTERNS, SPIKE_PATTERNS, Deviation, deviations
from cloister.immune.generators.calls import (
    BENIGN,
    Pattern,
    TracedCall,
    encode_trace,
    read_trace,
)
from cloister.immune.generators.ordinary import Behaviour, Conditions, Shape, ordinary_calls
from cloister.immune.generators.sampling import BUDGETED, EVERY_CALL, ONE_IN_TEN, SamplingPlan, TraceSensor
from cloister.immune.generators.trace import Session, attacked_trace, episode, sample_trace, sessions

__all__ = [
    "BENIGN",
    "BUDGETED",
    "EVERY_CALL",
    "ONE_IN_TEN",
    "SEED_PATTERNS",
    "SPIKE_PATTERNS",
    "Behaviour",
    "Conditions",
    "Deviation",
    "Pattern",
    "SamplingPlan",
    "Session",
    "Shape",
    "TraceSensor",
    "TracedCall",
    "attacked_trace",
    "deviations",
    "encode_trace",
    "episode",
    "ordinary_calls",
    "read_trace",
    "sample_trace",
    "sessions",
]
