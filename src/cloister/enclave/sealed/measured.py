"""A fork server that was loaded from nothing but what is measured, with that measurement.

Rules kept here:

1. The measured packages and the installed distributions are read before the server starts, and are the same
   when it is warm.
2. Every file that it was loaded from is placed (`cloister.enclave.sealed.loaded`), unchanged since before the
   start, and has the hash that its distribution's record has for it. Otherwise the server is stopped.
3. Files that the last server was loaded from are read while this one warms up. That list saves time and
   decides nothing: a hash is taken over only where place, size and times are still the same.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded, write_atomic
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed.bytecode import ByteCode, own_byte_code
from cloister.enclave.sealed.fingerprint import Fingerprint, WatchedFiles, take_fingerprint
from cloister.enclave.sealed.host import SealedHost
from cloister.enclave.sealed.loaded import (
    LoadedFiles,
    changed_since_start,
    mapped_files,
    place_loaded,
    unmeasured,
)

_MOST_BYTES: Final = 8 * 1024**2


@dataclass(frozen=True)
class MeasuredHost:
    """A running fork server, and what was measured of it.

    Attributes:
        host: the server.
        watched: what is to be watched while it runs.
        baseline: what that was when it started.
    """

    host: SealedHost
    watched: WatchedFiles
    baseline: Fingerprint


def start_measured(
    start: Callable[[], SealedHost] = SealedHost.start, watched: WatchedFiles | None = None
) -> MeasuredHost:
    """Start a fork server and measure what it was loaded from.

    Args:
        start: starts it.
        watched: what is measured beside what it loads; by default all that is installed.

    Raises:
        SealBroken: ``sealed.code_changed`` or ``sealed.code_unmeasured``; the server is stopped.
        SealedError: ``sealed.unavailable``.
    """
    watched = watched or WatchedFiles.installed(sys.path)
    byte_code, since = own_byte_code(), time.time_ns()
    first = take_fingerprint(watched)
    with _HeadStart(byte_code) as ahead:
        host = start()
    try:
        loaded = place_loaded(
            host.modules,
            mapped_files(host.server_pid),
            packages=watched.packages.keys(),
            measured=frozenset(path for _, path in watched.listed()),
            byte_code=byte_code.folder,
            search_path=sys.path,
            since_ns=since,
        )
        whole = watched.with_loaded(loaded)
        baseline = _baseline(whole, first, ahead.taken)
    except OSError:
        host.close()
        raise SealedError(
            "sealed.unavailable",
            "What the fork server was loaded from can't be looked at, so it isn't used.",
            "Let this process read /proc of its own children.",
        ) from None
    except BaseException:
        host.close()
        raise
    _remember(byte_code, loaded.paths.values())
    return MeasuredHost(host, whole, baseline)


def _baseline(whole: WatchedFiles, first: Fingerprint, ahead: Fingerprint) -> Fingerprint:
    loaded: LoadedFiles = whole.loaded
    places, hashes = dict(first.places), dict(first.hashes)
    for name, path in loaded.paths.items():
        if path in ahead.places:
            places[name], hashes[name] = ahead.places[path], ahead.hashes[path]
    baseline = take_fingerprint(whole, Fingerprint(places, hashes))
    listed = {name: value for name, value in baseline.hashes.items() if name not in loaded.paths}
    if listed != first.hashes or baseline.unsettled:
        raise changed_since_start()
    for name, expected in loaded.recorded.items():
        if baseline.hashes[name] != expected:
            raise unmeasured(f"{name} is not as it was installed")
    return baseline


class _HeadStart:
    """Hashes the files that the last server was loaded from, until the next one is warm."""

    def __init__(self, byte_code: ByteCode) -> None:
        self._paths = _remembered(byte_code)
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._read, name="measuring", daemon=True)
        self.taken = Fingerprint({}, {})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._thread.join()

    def _read(self) -> None:
        each = ((path, path) for path in self._paths if not self._enough.is_set())
        self.taken = take_fingerprint(each)


def _remembered(byte_code: ByteCode) -> tuple[str, ...]:
    if byte_code.list is None:
        return ()
    try:
        lines = read_bounded(byte_code.list, _MOST_BYTES).decode("utf-8").split("\n")
    except (CloisterError, UnicodeDecodeError):
        return ()
    return tuple(one for one in lines if Path(one).is_absolute())


def _remember(byte_code: ByteCode, paths: Iterable[str]) -> None:
    if byte_code.list is None:
        return
    with suppress(CloisterError, UnicodeEncodeError):
        write_atomic(byte_code.list, "\n".join(paths).encode())
