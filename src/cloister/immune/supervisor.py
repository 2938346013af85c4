"""Runs a brain in a process of its own, and does what the watchdog's policy decides about it.

Rules kept here:

1. The brain's process ends with its supervisor, however that ends: no brain runs on that nobody watches. A
   brain that is stopped takes with it what it started.
2. Before each start, and then as often as the policy says, the brain's code is compared with its signed
   manifest. Python's byte code is kept in a folder of this supervisor's own, so that no planted cache runs in
   place of a listed source.
3. What the watchdog is at stands in a file, which ``pic status`` and the brain's own answers show. Safe mode
   outlives the supervisor: only an operator's reset ends it. A file that can't be read means safe mode.
   Services judge by themselves and don't wait for a brain.
4. Everything that is done is told to the audit, and a failure to tell changes nothing.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.closing import Closing
from cloister.core.errors import CloisterError, InputError
from cloister.core.files import read_bounded, write_atomic
from cloister.core.keys import PublicKey
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.code_manifest import MAX_MANIFEST_BYTES, CodeTrust, open_code_manifest
from cloister.immune.watchdog import Mode, RestartPolicy, WatchState

WATCHDOG: Final = "watchdog.json"
"""The name of its file in the folder of the state."""
_LOOK_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 3.0
_END_SECONDS: Final = 3.0
_NAMED: Final = 10
_MAX_STATUS: Final = 16 * 1024
_PR_SET_PDEATHSIG: Final = 1
_LAUNCH: Final = (
    "import ctypes, os, sys\n"
    f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)
"""Has the kernel kill the brain when its supervisor is gone; the child asks for it before it is the brain."""


@dataclass(frozen=True, slots=True)
class WatchedCode:
    """What a brain's code has to be.

    Attributes:
        root: the package's folder.
        manifest: the file with its signed manifest.
        keys: those whose word counts.
        trust: whose word that is.
    """

    root: Path
    manifest: Path
    keys: tuple[PublicKey, ...]
    trust: CodeTrust = CodeTrust.AS_FOUND

    def problem(self) -> str:
        """Why the code isn't what was signed; empty where it is."""
        try:
            differing = open_code_manifest(
                read_bounded(self.manifest, MAX_MANIFEST_BYTES), self.keys
            ).differences(self.root)
        except CloisterError as error:
            return error.message
        named = ", ".join(differing[:_NAMED])
        return f"{len(differing)} files differ from what was signed: {named}" if differing else ""


@dataclass(frozen=True, slots=True)
class WatchdogStatus:
    """What the watchdog is at.

    Attributes:
        mode: what it does.
        reason: why, where it doesn't watch.
        pid: the brain's process; None where there is none.
        restarts: how often it was started again within the policy's window.
        at: when this was written.
        code_trust: whose word it is that the brain's code is the right one.
    """

    mode: Mode
    reason: str
    pid: int | None
    restarts: int
    at: str
    code_trust: CodeTrust = CodeTrust.NOBODY


def read_status(path: Path) -> WatchdogStatus | None:
    """What the watchdog is at; None where there is no watchdog. What can't be read is safe mode."""
    try:
        value = json.loads(read_bounded(path, _MAX_STATUS))
        pid = None if value["pid"] is None else int(value["pid"])
        mode, restarts = Mode(value["mode"]), int(value["restarts"])
        trust = CodeTrust(value.get("code_trust", CodeTrust.NOBODY))
        return WatchdogStatus(mode, str(value["reason"]), pid, restarts, str(value["at"]), trust)
    except InputError as error:
        if error.code == "input.missing_file":
            return None
    except (ValueError, KeyError, TypeError):
        pass
    return WatchdogStatus(Mode.SAFE, "the watchdog's file can't be read", None, 0, "")


def request_reset(path: Path) -> None:
    """Ask the watchdog to end safe mode, at its next look.

    Args:
        path: the watchdog's file.

    Raises:
        StorageError: the request can't be written.
    """
    write_atomic(_reset_file(path), b"")


def http_health(host: str, port: int, path: str = "/health") -> Callable[[], bool]:
    """Asks a brain over HTTP whether it lives; anything but a 200 is a no."""

    def ask() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        finally:
            connection.close()

    return ask


class Supervisor(Closing):
    """Watches one brain; call `step` once a second, or `run`, always in the same thread.

    Args:
        command: the brain's command line; ``-I`` or ``-E`` in it would undo rule 2's folder.
        health: whether it lives; an error or no answer within three seconds is a no.
        status: the file that says what the watchdog is at; its folder has to exist.
        code: what the brain's code has to be; None doesn't look at it.
        record: told what happens, such as `AuditTrail.record`.
        announce: told what it is at, at the start and whenever that changes.
        environment: the brain's; none is this process's.
        policy: the rules in numbers.
        monotonic: seconds.
        clock: dates what is told.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        health: Callable[[], bool],
        status: Path,
        code: WatchedCode | None = None,
        record: Callable[[AuditEvent], object] = lambda _: None,
        announce: Callable[[WatchdogStatus], object] = lambda _: None,
        environment: Mapping[str, str] | None = None,
        policy: RestartPolicy | None = None,
        monotonic: Callable[[], float] = monotonic,
        clock: Clock = system_clock,
    ) -> None:
        self._command, self._status, self._code, self._record = tuple(command), status, code, record
        self._environment = dict(os.environ if environment is None else environment)
        self._policy, self._now, self._clock = policy or RestartPolicy(), monotonic, clock
        self._health = _Question(health)
        self._child: subprocess.Popen[bytes] | None = None
        self._bytecode: tempfile.TemporaryDirectory[str] | None = None
        self._announce = announce
        self._announced: tuple[Mode, str] | None = None
        self._reason = ""
        before = read_status(status)
        mode = Mode.WATCHING if before is None else before.mode
        self._state = WatchState(mode)
        if before is not None and mode is not Mode.WATCHING:
            self._reason = before.reason
            self._tell(AuditKind.SAFE_MODE, "stays", before.reason)

    @property
    def mode(self) -> Mode:
        """What the watchdog does."""
        return self._state.mode

    @property
    def pid(self) -> int | None:
        """The brain's process."""
        return None if self._child is None else self._child.pid

    def run(self, over: threading.Event) -> None:
        """Watch until told that it is over; the brain is stopped then."""
        with self:
            while not over.is_set():
                self.step()
                over.wait(min(_LOOK_SECONDS, self._policy.check_seconds))

    def step(self) -> None:
        """Look once, and do what is due."""
        before = self._state
        if self._state.mode is not Mode.WATCHING:
            self._reset_if_asked()
        if self._state.mode is Mode.WATCHING:
            if self._code is not None and self._policy.hash_is_due(self._state, self._now()):
                self._look_at_code()
            if self._state.mode is Mode.WATCHING:
                self._look_at_brain()
        if self._state != before or self._announced is None or not self._status.exists():
            self._write_status()

    def close(self) -> None:
        """Stop the brain, in order if it can."""
        self._end_child(signal.SIGTERM)
        if self._bytecode is not None:
            self._bytecode.cleanup()
            self._bytecode = None

    def _look_at_code(self) -> None:
        problem = "" if self._code is None else self._code.problem()
        now = self._now()
        if not problem:
            self._state = self._policy.unchanged(self._state, now)
            return
        self._end_child(signal.SIGKILL)
        self._state = self._policy.changed(self._state, now)
        self._reason = problem
        self._tell(AuditKind.TAMPER, "stopped", problem)

    def _look_at_brain(self) -> None:
        child = self._child
        if child is None:
            self._start()
        elif child.poll() is not None:
            self._restart(f"the brain ended with {child.returncode}")
        elif self._policy.check_is_due(self._state, self._now()):
            if self._health.answered():
                self._state = self._policy.answered(self._state, self._now())
            else:
                self._state = self._policy.unanswered(self._state, self._now())
            if self._policy.is_dead(self._state):
                self._restart(f"the brain didn't answer {self._state.failures} times")

    def _restart(self, reason: str) -> None:
        self._end_child(signal.SIGKILL)
        self._state = self._policy.died(self._state, self._now())
        if self._state.mode is not Mode.WATCHING:
            count, window = len(self._state.restarts), self._policy.window_seconds
            self._reason = f"{reason}, after {count} restarts in {window:g} s"
            self._tell(AuditKind.SAFE_MODE, "enter", self._reason)
            return
        self._look_at_code()
        if self._state.mode is Mode.WATCHING:
            self._tell(AuditKind.RESTART, "restart", f"{reason}; restart {len(self._state.restarts)}")
            self._start()

    def _start(self) -> None:
        environment = dict(self._environment)
        if self._code is not None:
            if self._bytecode is None:
                self._bytecode = tempfile.TemporaryDirectory(prefix="cloister-brain-")
            environment["PYTHONPYCACHEPREFIX"] = self._bytecode.name
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._command]
        self._state = self._policy.begun(self._state, self._now())
        try:
            self._child = subprocess.Popen(  # noqa: S603 - the operator's own command
                launch, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            self._tell(AuditKind.FAULT, "start", f"the brain can't be started: {error.strerror}")

    def _end_child(self, first: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for how, seconds in ((first, _END_SECONDS), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, how)
            with suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
        self._health.forget()

    def _reset_if_asked(self) -> None:
        request = _reset_file(self._status)
        if not request.exists():
            return
        request.unlink(missing_ok=True)
        problem = "" if self._code is None else self._code.problem()
        if problem:
            self._state, self._reason = self._policy.changed(self._state, self._now()), problem
            self._tell(AuditKind.TAMPER, "refused", problem)
            return
        self._state, self._reason = self._policy.reset(self._state), ""
        self._tell(AuditKind.SAFE_MODE, "leave", "an operator reset the watchdog")

    def _write_status(self) -> None:
        said = WatchdogStatus(
            self._state.mode,
            self._reason,
            self.pid,
            len(self._state.restarts),
            format_time(self._clock()),
            CodeTrust.NOBODY if self._code is None else self._code.trust,
        )
        body = {
            "at": said.at,
            "code_trust": said.code_trust.value,
            "mode": said.mode.value,
            "pid": said.pid,
            "reason": said.reason,
            "restarts": said.restarts,
        }
        with suppress(CloisterError):
            write_atomic(self._status, json.dumps(body).encode(), mode=0o644)
        if self._announced != (said.mode, said.reason):
            self._announced = said.mode, said.reason
            with suppress(Exception):
                self._announce(said)

    def _tell(self, kind: AuditKind, action: str, reason: str) -> None:
        with suppress(Exception):
            self._record(AuditEvent(format_time(self._clock()), kind, action, "", None, reason, ""))


class _Question:
    """Asks whether a brain lives, and doesn't wait for an answer that never comes."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asking: threading.Thread | None = None

    def answered(self) -> bool:
        if self._asking is not None and self._asking.is_alive():
            return False
        answers: list[bool] = []

        def ask() -> None:
            with suppress(Exception):
                answers.append(self._ask())

        self._asking = threading.Thread(target=ask, name="immune-watchdog-health", daemon=True)
        self._asking.start()
        self._asking.join(_ANSWER_SECONDS)
        return answers == [True]

    def forget(self) -> None:
        """What was asked of a brain that is gone is nobody's answer."""
        self._asking = None


def _reset_file(status: Path) -> Path:
    return status.with_name(f"{status.name}.reset")
