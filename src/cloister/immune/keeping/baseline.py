"""Baselines of all functions: when there is one, when it gets a new version, and where they are kept.

Rules kept here:

1. A function has a baseline after 20 observed calls, or 2 hours after its first with at least two.
2. Every 100 observed calls the newest ones are looked at. A baseline that moved gets a new version, one
   higher than the last; otherwise the newest version is refreshed. Old versions stay until their time is up,
   the newest of a function always.
3. While a function's baseline is held (`drift`), there is no new version.
4. A clock that goes backwards changes no more than the times that are written.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.profile import BaselineProfile, has_moved, profile_of
from cloister.immune.keeping.store import StateStore

if TYPE_CHECKING:
    from cloister.immune.settings import BaselineSettings

MOVED: Final = 0.10
"""How far median or 95th percentile move, relatively, before that is a new version."""

_OF: Final = "SELECT version, profile_json FROM baselines WHERE module = ? AND function = ?"
_NEWEST: Final = f"{_OF} ORDER BY version DESC LIMIT 1"


def is_ready(samples: int, seconds: float, settings: BaselineSettings) -> bool:
    """Whether a function was observed long enough to have a baseline.

    Args:
        samples: its observed calls.
        seconds: since the first of them; negative where a clock went backwards, which counts for nothing.
        settings: 20 samples or 2 hours, unless somebody set otherwise.
    """
    if samples >= settings.min_samples:
        return True
    return samples >= 2 and seconds >= settings.min_hours * 3600


class BaselineKeeper:
    """The baselines of all functions.

    Args:
        store: where they are kept.
        settings: when there is one.
    """

    def __init__(self, store: StateStore, settings: BaselineSettings) -> None:
        self._store, self._settings = store, settings

    def look(
        self, function: str, durations: Iterable[float], observed: int, seconds: float, *, held: bool
    ) -> StateEvent | None:
        """Look at a function's newest calls, and keep what they say.

        Args:
            function: ``module:qualname``.
            durations: seconds of the newest calls that were ordinary.
            observed: how many were observed in all.
            seconds: since the first of them.
            held: whether the baseline may not move further.

        Returns:
            What to write down where there is a new version.

        Raises:
            ImmuneError: the store can't be used now.
        """
        now = self._store.clock()
        if held or not is_ready(observed, seconds, self._settings):
            return None
        present = profile_of(function, durations, now)
        if present is None:
            return None
        earlier = self._readable(function)
        if earlier is None or has_moved(earlier, present, MOVED):
            return self._event(self.store_baseline(present), earlier)
        self._refresh(function, earlier.version)
        return None

    def store_baseline(self, profile: BaselineProfile) -> BaselineProfile:
        """Keep a baseline as its function's next version.

        Returns:
            The same, with its version.

        Raises:
            ImmuneError: the store can't be used now.
        """
        module, name = _parts(profile.function_name)
        numbers = (profile.mean, profile.std, profile.p50, profile.p95, profile.p99)
        now = self._store.clock()
        with self._store.writing() as connection:
            row = connection.execute(_NEWEST, (module, name)).fetchone()
            version = 1 if row is None else row[0] + 1
            connection.execute(
                "INSERT INTO baselines (function, module, version, sample_count, created_at, updated_at,"
                " profile_json, mean, std, p50, p95, p99) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (name, module, version, profile.sample_count, now, now, profile.to_json(), *numbers),
            )
        return replace(profile, version=version)

    def get_baseline(self, function: str, version: int | None = None) -> BaselineProfile | None:
        """A function's baseline.

        Args:
            function: ``module:qualname``.
            version: None for the newest.

        Returns:
            None where there is none.

        Raises:
            ImmuneError: ``immune.state_damaged`` where it can't be read; the store can't be used now.
        """
        module, name = _parts(function)
        with self._store.reading() as connection:
            if version is None:
                row = connection.execute(_NEWEST, (module, name)).fetchone()
            else:
                row = connection.execute(f"{_OF} AND version = ?", (module, name, version)).fetchone()
        return None if row is None else BaselineProfile.from_json(row[1], row[0])

    def save_learned(self, function: str, state: bytes) -> None:
        """Keep what a detector learned of a function, in place of what was kept before.

        Args:
            function: ``module:qualname``.
            state: the detector's own form of it.

        Raises:
            ImmuneError: the store can't be used now.
        """
        with self._store.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO learned (function, updated_at, state, sha256) VALUES (?, ?, ?, ?)",
                (function, self._store.clock(), state, hashlib.sha256(state).hexdigest()),
            )

    def learned(self, function: str) -> bytes | None:
        """What a detector had learned of a function when it was last saved.

        Returns:
            None where nothing was saved, or where it isn't what was saved: the function then learns anew.

        Raises:
            ImmuneError: the store can't be used now.
        """
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT state, sha256 FROM learned WHERE function = ?", (function,)
            ).fetchone()
        if row is None or not isinstance(row[0], bytes) or hashlib.sha256(row[0]).hexdigest() != row[1]:
            return None
        return row[0]

    def _readable(self, function: str) -> BaselineProfile | None:
        try:
            return self.get_baseline(function)
        except ImmuneError:
            return None

    def _refresh(self, function: str, version: int) -> None:
        # The next look compares with what the version began as: small steps don't add up unseen.
        module, name = _parts(function)
        with self._store.writing() as connection:
            connection.execute(
                "UPDATE baselines SET updated_at = ? WHERE module = ? AND function = ? AND version = ?",
                (self._store.clock(), module, name, version),
            )

    def _event(self, made: BaselineProfile, earlier: BaselineProfile | None) -> StateEvent:
        before = "" if earlier is None else f", before {earlier.p50:.3g} s"
        reason = f"version {made.version}: median {made.p50:.3g} s of {made.sample_count} calls{before}"
        return StateEvent(Happened.BASELINE_MADE, made.function_name, self._store.clock(), reason)


def forget_old_baselines(connection: sqlite3.Connection, before: float) -> int:
    """Remove versions that nobody refreshed since a time, but never a function's newest.

    Args:
        connection: of a writing transaction.
        before: seconds since 1970.

    Returns:
        How many.
    """
    return connection.execute(
        "DELETE FROM baselines WHERE updated_at < ? AND version < (SELECT max(newer.version)"
        " FROM baselines newer"
        " WHERE newer.module = baselines.module AND newer.function = baselines.function)",
        (before,),
    ).rowcount


def _parts(function: str) -> tuple[str, str]:
    module, _, name = function.partition(":")
    return module, name
