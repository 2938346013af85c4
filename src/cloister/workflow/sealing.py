"""The fork server of this process: started once, in the background, and used by every job that runs here.

Rules kept here:

1. What it was loaded from is measured; while a job runs, that is watched, and the job's own files with it.
2. A server that is gone is not used again: the next job starts another; so does one that finds another
   package offering models than the server imported.
3. Which levels of sealing are acceptable is what the settings and every manifest say; where none of them can
   be had, the job is refused before any site is challenged.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cloister.core.clock import Clock
from cloister.core.hashes import sha256_hex
from cloister.enclave.errors import SealedError
from cloister.enclave.measure import measured_packages
from cloister.enclave.sealed import (
    CodeChange,
    IntegrityMonitor,
    SealedHost,
    SealLevel,
    SealPolicy,
    WatchedFiles,
)
from cloister.enclave.sealed.bytecode import own_byte_code
from cloister.enclave.sealed.fingerprint import Fingerprint, with_folder
from cloister.enclave.sealed.measured import start_measured
from cloister.evidence import StatementWriter, Subject
from cloister.evidence.predicates import Incident


@dataclass(frozen=True)
class Sealing:
    """A running fork server, and what was measured of it."""

    host: SealedHost
    watched: WatchedFiles
    baseline: Fingerprint
    process: int

    @property
    def usable(self) -> bool:
        """Whether it serves this process, still does, and knows all packages that offer models, where they
        are now."""
        same = measured_packages() == self.watched.packages
        return same and self.process == os.getpid() and self.host.running


_LOCK = threading.Lock()
_starting: Future[Sealing] | None = None


def begin_sealing() -> Future[Sealing]:
    """Have the server started in the background, unless one runs.

    Returns:
        Where it will be; or the error that it can't be had.
    """
    global _starting  # noqa: PLW0603 - one server to a process
    with _LOCK:
        if _starting is not None and not (_starting.done() and _failed_or_gone(_starting)):
            return _starting
        future: Future[Sealing] = Future()
        _starting = future
        threading.Thread(target=_start, args=(future,), name="sealing", daemon=True).start()
        return future


def sealed_server() -> Sealing:
    """The server, as soon as it runs; one that was on its way when a package was installed is started anew.

    Raises:
        SealedError: it can't be had.
    """
    found = begin_sealing().result()
    return found if found.usable else begin_sealing().result()


def what_takes_time(sealing: Future[Sealing]) -> str:
    """One more word for whoever waits for the server, where its start takes longer than others; or none."""
    own = own_byte_code()
    if sealing.done() or own.filled:
        return ""
    if own.folder is None:
        return "Python compiles everything anew, as this user has no cache folder that nobody else may change"
    return "once, at the first start here, Python compiles everything"


def accepted_levels(names: Sequence[str], manifests: Iterable[Sequence[str]]) -> SealPolicy:
    """The policy that accepts the levels which everybody accepts.

    Args:
        names: those that will do on this machine, the preferred one first.
        manifests: those that each hospital's manifest accepts.

    Raises:
        SealedError: ``sealed.measure_missing`` where there is none.
    """
    listed = [frozenset(one) for one in manifests]
    accepted = tuple(SealLevel(name) for name in names if all(name in one for one in listed))
    if not accepted:
        raise SealedError(
            "sealed.measure_missing",
            f"No level of sealing that is accepted here ({', '.join(names)}) is accepted by every manifest.",
            "Let the hospitals name it in attestation.seal_levels, or change seal_levels in cloister.toml.",
        )
    return SealPolicy(accepted)


@contextmanager
def watched(
    sealing: Sealing, job_folder: Path, writers: Sequence[StatementWriter], clock: Clock
) -> Iterator[None]:
    """Watch the measured code and the job while it runs; a change ends the job, and every site states it.

    Args:
        sealing: the server and the measurement.
        job_folder: the compiled job, the model's definition in it, as it is when this is called.
        writers: the sites' writers in this job.
        clock: dates a change.

    Raises:
        SealBroken: ``sealed.code_changed`` since the server started.
    """
    changes: list[CodeChange] = []
    files, baseline = with_folder(sealing.watched, sealing.baseline, "job", job_folder)
    monitor = IntegrityMonitor(sealing.host, files, baseline, changes.append, clock)
    try:
        with monitor.start():
            yield
    finally:
        for change in changes:
            for writer in writers:
                subject = Subject(f"job {writer.job_id}", sha256_hex(writer.job_id.encode("ascii")))
                writer.write(Incident, [subject], **change.incident_fields())


def _start(future: Future[Sealing]) -> None:
    try:
        measured = start_measured()
    except BaseException as error:
        future.set_exception(error)
        return
    atexit.register(_end, measured.host)
    future.set_result(Sealing(measured.host, measured.watched, measured.baseline, os.getpid()))


def _end(host: SealedHost) -> None:
    # Interrupted meanwhile, nobody waits: the server and its workers end when their connection does.
    with suppress(KeyboardInterrupt):
        host.close()


def _failed_or_gone(future: Future[Sealing]) -> bool:
    return future.exception() is not None or not future.result().usable
