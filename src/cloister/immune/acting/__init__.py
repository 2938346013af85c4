"""What is done about unusual calls: stages, decisions, stubs, the kill switch and the guard of egress."""

from __future__ import annotations
