"""The watchdog: its rules with a clock of its own; real brains that are killed, stopped and tampered with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.clock import Clock, fixed_clock
from cloister.core.errors import InputError
from cloister.core.keys import Signer
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_folder import AuditFolder
from cloister.immune.code_manifest import CodeTrust, open_code_manifest, sign_code
from cloister.immune.errors import ImmuneError
from cloister.immune.starting import Release, watched_code
from cloister.immune.supervisor import Supervisor, WatchedCode, http_health, read_status, request_reset
from cloister.immune.watchdog import Mode, RestartPolicy, WatchState
from tests.conftest import START

ROOT = Path(__file__).resolve().parents[2]
POLICY = RestartPolicy()

BRAIN = """
import http.server, os, pathlib, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
place = pathlib.Path(sys.argv[1])
place.with_suffix(".new").write_text(f"{server.server_port}")
place.with_suffix(".new").rename(place)
server.serve_forever()
"""


# The rules.


def test_the_seeds_times_are_the_default() -> None:
    assert (POLICY.check_seconds, POLICY.hash_seconds) == (10, 60)
    assert (POLICY.restarts, POLICY.window_seconds) == (3, 300)


@settings(max_examples=200)
@given(
    looks=st.lists(st.floats(0.5, 1.5), min_size=70, max_size=70),
    silent_from=st.floats(0, 40),
    answering=st.floats(0, 3),
)
def test_a_silent_brain_is_dead_within_thirty_seconds_whenever_it_falls_silent(
    looks: list[float], silent_from: float, answering: float
) -> None:
    """PIC-P28: a dead brain is detected and restarted within 30 seconds."""
    state, now = POLICY.answered(POLICY.begun(WatchState(), 0.0), 0.0), 0.0
    for pause in looks:
        now += pause
        if POLICY.check_is_due(state, now):
            if now < silent_from:
                state = POLICY.answered(state, now)
            else:
                now += answering
                state = POLICY.unanswered(state, now)
        if POLICY.is_dead(state):
            break
    assert POLICY.is_dead(state)
    assert now - silent_from <= 30


def test_one_check_without_an_answer_kills_no_brain() -> None:
    state = POLICY.answered(POLICY.begun(WatchState(), 0.0), 10.0)
    state = POLICY.unanswered(state, 20.0)
    assert not POLICY.is_dead(state)
    assert POLICY.answered(state, 30.0).failures == 0


def test_a_brain_that_never_answered_is_given_time_to_start_and_no_more() -> None:
    state = POLICY.begun(WatchState(), 0.0)
    for now in range(10, 60, 10):
        state = POLICY.unanswered(state, now)
        assert not POLICY.is_dead(state)
    for now in (60, 70):
        state = POLICY.unanswered(state, now)
    assert POLICY.is_dead(state)


@settings(max_examples=200)
@given(gaps=st.lists(st.floats(0.1, 400), min_size=1, max_size=20))
def test_safe_mode_begins_exactly_with_the_death_behind_three_restarts_within_five_minutes(
    gaps: list[float],
) -> None:
    """PIC-P34: three restarts in five minutes, then safe mode."""
    state, now, deaths = WatchState(), 0.0, []
    for gap in gaps:
        now += gap
        state = POLICY.died(state, now)
        recent = [one for one in deaths if now - one < 300]
        assert state.mode is (Mode.SAFE if len(recent) >= 3 else Mode.WATCHING)
        if state.mode is Mode.SAFE:
            return
        deaths.append(now)
        assert state.restarts == (*recent, now)


def test_a_reset_forgets_former_deaths_and_looks_at_the_code_at_once() -> None:
    state = WatchState(Mode.SAFE, restarts=(1.0, 2.0, 3.0), hashed=100.0)
    state = POLICY.reset(state)
    assert state.mode is Mode.WATCHING
    assert state.restarts == ()
    assert POLICY.hash_is_due(state, 100.5)


def test_the_code_is_due_each_minute_and_the_brain_each_ten_seconds() -> None:
    state = POLICY.unchanged(POLICY.answered(POLICY.begun(WatchState(), 0.0), 0.0), 0.0)
    assert next(now for now in range(1, 121) if POLICY.hash_is_due(state, now)) == 60
    assert next(now for now in range(1, 121) if POLICY.check_is_due(state, now)) == 10


# Manifests of code.


@pytest.fixture
def clock() -> Clock:
    """One that dates, where the room's others count seconds."""
    return fixed_clock(START)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the immune room, as an installed package."""
    copied = tmp_path / "installed" / "immune"
    shutil.copytree(ROOT / "src" / "cloister" / "immune", copied)
    return copied


def changed(package: Path, how: str) -> str:
    match how:
        case "edited":
            with (package / "errors.py").open("a") as stream:
                stream.write("\n")
            return "errors.py"
        case "missing":
            (package / "errors.py").unlink()
            return "errors.py"
        case "added":
            (package / "sitecustomize.py").write_text("")
            return "sitecustomize.py"
        case "unreadable":
            (package / "errors.py").unlink()
            (package / "errors.py").symlink_to("/dev/null")
            return "errors.py"
    raise AssertionError(how)


@pytest.mark.parametrize("how", ["edited", "missing", "added", "unreadable"])
def test_whatever_differs_from_a_signed_manifest_is_named(package: Path, signer: Signer, how: str) -> None:
    manifest = open_code_manifest(sign_code(package, signer), [signer.public_key])
    assert manifest.differences(package) == ()
    assert manifest.differences(package.with_name("elsewhere")) == tuple(sorted(manifest.files))
    name = changed(package, how)
    assert manifest.differences(package) == (name,)


def test_byte_code_caches_are_in_no_manifest(package: Path, signer: Signer) -> None:
    manifest = open_code_manifest(sign_code(package, signer), [signer.public_key])
    assert not [name for name in manifest.files if "__pycache__" in name]
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "new.cpython-311.pyc").write_bytes(b"x")
    assert manifest.differences(package) == ()


@settings(max_examples=100)
@given(data=st.data())
def test_a_manifest_that_was_changed_anywhere_is_none(data: st.DataObject) -> None:
    """PIC-R19.3: SHA-256 against signed manifests."""
    made, key = _manifest()
    place = data.draw(st.integers(0, len(made) - 1))
    flipped = made[:place] + bytes([made[place] ^ (1 << data.draw(st.integers(0, 7)))]) + made[place + 1 :]
    with pytest.raises(ImmuneError) as refused:
        open_code_manifest(flipped, [key.public_key])
    assert refused.value.code == "immune.manifest_invalid"


_made: list[tuple[bytes, Signer]] = []


def _manifest() -> tuple[bytes, Signer]:
    from cloister.core.keys import EphemeralKeyStore

    if not _made:
        key = EphemeralKeyStore().generate("release")
        _made.append((sign_code(ROOT / "src" / "cloister" / "immune", key), key))
    return _made[0]


def test_a_manifest_under_another_key_is_none(package: Path, signer: Signer, other_signer: Signer) -> None:
    with pytest.raises(ImmuneError, match="pinned"):
        open_code_manifest(sign_code(package, other_signer), [signer.public_key])


# Real brains.


class Brains:
    """Starts supervisors of a small HTTP service, by a clock that a test moves."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.folder, self.signer = folder, signer
        self.package = folder / "brain"
        self.package.mkdir()
        (self.package / "__init__.py").write_text("")
        (self.package / "__main__.py").write_text(BRAIN)
        self.manifest = folder / "brain.manifest.json"
        self.sign()
        self.status, self.port = folder / "watchdog.json", folder / "port"
        self.now = 1000.0
        self.told: list[AuditEvent] = []
        self.open: list[Supervisor] = []

    def sign(self) -> None:
        self.manifest.write_bytes(sign_code(self.package, self.signer))

    def supervisor(self, command: list[str] | None = None, **options: object) -> Supervisor:
        given: dict[str, object] = {
            "health": self.healthy,
            "status": self.status,
            "code": WatchedCode(self.package, self.manifest, (self.signer.public_key,)),
            "record": self.told.append,
            "environment": {**os.environ, "PYTHONPATH": str(self.folder)},
            "monotonic": lambda: self.now,
            **options,
        }
        made = Supervisor(command or [sys.executable, "-m", "brain", str(self.port)], **given)  # type: ignore[arg-type]
        self.open.append(made)
        return made

    def healthy(self) -> bool:
        return http_health("127.0.0.1", int(self.port.read_text()))()

    def running(self, supervisor: Supervisor) -> int:
        """Look once, and wait until the brain that was started answers."""
        self.port.unlink(missing_ok=True)
        supervisor.step()
        assert supervisor.pid is not None
        until(self.port.exists)
        assert self.healthy()
        return supervisor.pid

    def kinds(self) -> list[tuple[str, str]]:
        return [(one.event_type.value, one.action) for one in self.told]


@pytest.fixture
def brains(tmp_path: Path, signer: Signer) -> Iterator[Brains]:
    made = Brains(tmp_path, signer)
    yield made
    for one in made.open:
        one.close()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_brain_that_is_killed_is_running_again_within_thirty_seconds(brains: Brains) -> None:
    """PIC-P28: a dead brain is detected and restarted within 30 seconds."""
    supervisor = brains.supervisor(monotonic=time.monotonic)
    over = threading.Event()
    watching = threading.Thread(target=supervisor.run, args=(over,))
    watching.start()
    try:
        until(brains.port.exists)
        first = supervisor.pid
        assert first is not None
        brains.port.unlink()
        killed = time.monotonic()
        os.kill(first, signal.SIGKILL)
        until(brains.port.exists, 30)
        assert time.monotonic() - killed < 30
        assert supervisor.pid not in (None, first)
        assert brains.healthy()
    finally:
        over.set()
        watching.join()
    assert brains.kinds() == [("restart", "restart")]
    assert "-9" in brains.told[0].reason
    assert supervisor.pid is None, "who stops watching stops the brain"


def test_a_brain_that_hangs_is_killed_and_running_again_within_thirty_seconds(
    brains: Brains, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PIC-P28: a dead brain is detected and restarted within 30 seconds."""
    supervisor = brains.supervisor()
    first = brains.running(supervisor)
    brains.now += 10
    supervisor.step()
    monkeypatch.setattr("cloister.immune.supervisor._ANSWER_SECONDS", 0.1)
    os.kill(first, signal.SIGSTOP)
    stopped = brains.now
    while supervisor.pid == first:
        brains.now += 1
        supervisor.step()
    assert brains.now - stopped <= 30
    assert not alive(first)
    assert "didn't answer" in brains.told[0].reason


def test_a_brain_that_answers_is_left_alone(brains: Brains) -> None:
    supervisor = brains.supervisor()
    first = brains.running(supervisor)
    for _ in range(30):
        brains.now += 10
        supervisor.step()
    assert supervisor.pid == first
    assert brains.told == []


def test_after_three_restarts_in_five_minutes_nothing_is_started_until_an_operator_resets_it(
    brains: Brains,
) -> None:
    """PIC-P34: three restarts in five minutes, then safe mode."""
    supervisor = brains.supervisor()
    for _ in range(4):
        pid = brains.running(supervisor)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not alive(pid))
        brains.now += 60
    for _ in range(50):
        supervisor.step()
        brains.now += 60
    assert (supervisor.mode, supervisor.pid) == (Mode.SAFE, None)
    assert brains.kinds() == [*[("restart", "restart")] * 3, ("safe-mode", "enter")]
    status = read_status(brains.status)
    assert status is not None
    assert (status.mode, status.pid) == (Mode.SAFE, None)
    assert "after 3 restarts in 300 s" in status.reason
    request_reset(brains.status)
    brains.running(supervisor)
    assert supervisor.mode is Mode.WATCHING
    assert brains.kinds()[-1] == ("safe-mode", "leave")


def test_safe_mode_outlives_the_watchdog(brains: Brains) -> None:
    supervisor = brains.supervisor([sys.executable, "-c", "raise SystemExit(3)"])
    until(lambda: supervisor.step() is None and supervisor.mode is Mode.SAFE)  # type: ignore[func-returns-value]
    supervisor.close()
    again = brains.supervisor()
    again.step()
    assert (again.mode, again.pid) == (Mode.SAFE, None)
    assert brains.kinds()[-1] == ("safe-mode", "stays")


def test_a_command_that_is_none_ends_in_safe_mode(brains: Brains) -> None:
    supervisor = brains.supervisor(["/no/such/brain"])
    until(lambda: supervisor.step() is None and supervisor.mode is Mode.SAFE)  # type: ignore[func-returns-value]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"mode":"unheard-of"}', b"[1]"])
def test_a_status_that_can_not_be_read_is_safe_mode(brains: Brains, content: bytes) -> None:
    assert read_status(brains.status) is None
    brains.status.write_bytes(content)
    found = read_status(brains.status)
    assert found is not None
    assert found.mode is Mode.SAFE
    supervisor = brains.supervisor()
    supervisor.step()
    assert supervisor.pid is None


@pytest.mark.parametrize("how", ["edited", "added"])
def test_a_brain_whose_code_is_tampered_with_is_stopped_within_a_minute_and_not_started_again(
    brains: Brains, how: str
) -> None:
    """PIC-P33: the brain's code is compared with its signed manifest each 60 seconds."""
    supervisor = brains.supervisor()
    first = brains.running(supervisor)
    if how == "edited":
        with (brains.package / "__main__.py").open("a") as stream:
            stream.write("# planted\n")
    else:
        (brains.package / "planted.py").write_text("")
    begun = brains.now
    while supervisor.pid == first:
        brains.now += 1
        supervisor.step()
    assert brains.now - begun <= 60
    assert not alive(first)
    for _ in range(20):
        brains.now += 60
        supervisor.step()
    assert (supervisor.mode, supervisor.pid) == (Mode.TAMPERED, None)
    assert brains.kinds() == [("tamper", "stopped")]
    assert ("__main__.py" if how == "edited" else "planted.py") in brains.told[0].reason
    request_reset(brains.status)
    supervisor.step()
    assert supervisor.pid is None, "a reset starts nothing that doesn't verify"
    brains.sign()
    request_reset(brains.status)
    brains.running(supervisor)


def test_code_that_was_changed_while_the_brain_died_is_not_started(brains: Brains) -> None:
    supervisor = brains.supervisor()
    first = brains.running(supervisor)
    (brains.package / "__main__.py").write_text("raise SystemExit\n")
    os.kill(first, signal.SIGKILL)
    until(lambda: not alive(first))
    supervisor.step()
    assert (supervisor.mode, supervisor.pid) == (Mode.TAMPERED, None)


@pytest.mark.parametrize("how", ["forged", "missing"])
def test_a_brain_without_a_manifest_that_verifies_is_never_started(
    brains: Brains, other_signer: Signer, how: str
) -> None:
    if how == "forged":
        brains.manifest.write_bytes(sign_code(brains.package, other_signer))
    else:
        brains.manifest.unlink()
    supervisor = brains.supervisor()
    supervisor.step()
    assert (supervisor.mode, supervisor.pid) == (Mode.TAMPERED, None)


def test_a_planted_byte_code_cache_does_not_run_in_place_of_a_listed_source(brains: Brains) -> None:
    source = brains.package / "answer.py"
    source.write_text("ANSWER = 'listed source'\n")
    (brains.package / "__main__.py").write_text(
        "import pathlib, sys, time\nfrom brain.answer import ANSWER\n"
        "pathlib.Path(sys.argv[1]).write_text(ANSWER)\ntime.sleep(60)\n"
    )
    brains.sign()
    before, text = source.stat(), source.read_text()
    source.write_text("ANSWER = 'planted code!'\n")
    assert source.stat().st_size == before.st_size
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(brains.package)], check=True)
    source.write_text(text)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    ran = subprocess.run(
        [sys.executable, "-c", "from brain.answer import ANSWER; print(ANSWER)"],
        cwd=brains.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "planted code!\n", "the cache that was planted is one that Python takes"
    brains.supervisor().step()
    until(lambda: brains.port.exists() and bool(brains.port.read_text()))
    assert brains.port.read_text() == "listed source"


def test_a_brain_ends_with_a_watchdog_that_is_killed(brains: Brains) -> None:
    program = (
        "import sys, threading; from pathlib import Path\n"
        "from cloister.immune.supervisor import Supervisor\n"
        "command = [sys.executable, '-m', 'brain', sys.argv[1]]\n"
        "Supervisor(command, health=lambda: True, status=Path(sys.argv[2])).run(threading.Event())\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(brains.folder), os.environ.get("PYTHONPATH", "")]),
    }
    watchdog = subprocess.Popen(
        [sys.executable, "-c", program, str(brains.port), str(brains.status)], env=environment
    )
    until(lambda: brains.port.exists() and brains.status.exists())
    until(lambda: json.loads(brains.status.read_text())["pid"] is not None)
    brain = json.loads(brains.status.read_text())["pid"]
    assert alive(brain)
    watchdog.kill()
    watchdog.wait()
    until(lambda: not alive(brain))


def test_a_brain_that_is_stopped_takes_what_it_started_with_it(brains: Brains) -> None:
    program = (
        "import pathlib, subprocess, sys, time\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(one.pid)); time.sleep(60)\n"
    )
    supervisor = brains.supervisor([sys.executable, "-c", program, str(brains.port)])
    supervisor.step()
    until(lambda: brains.port.exists() and bool(brains.port.read_text()))
    started = int(brains.port.read_text())
    supervisor.close()
    until(lambda: not alive(started))


def test_a_health_check_that_never_ends_is_no_answer_and_stops_no_watchdog(
    brains: Brains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister.immune.supervisor._ANSWER_SECONDS", 0.05)
    never = threading.Event()
    supervisor = brains.supervisor(health=never.wait)
    brains.running(supervisor)
    for _ in range(8):
        brains.now += 10
        supervisor.step()
    never.set()
    assert ("restart", "restart") in brains.kinds()


def test_an_audit_that_fails_changes_nothing_of_what_the_watchdog_does(brains: Brains, clock: Clock) -> None:
    def broken(_: AuditEvent) -> None:
        raise ZeroDivisionError

    supervisor = brains.supervisor(record=broken, clock=clock)
    first = brains.running(supervisor)
    os.kill(first, signal.SIGKILL)
    until(lambda: not alive(first))
    supervisor.step()
    assert supervisor.pid not in (None, first)


def test_what_the_watchdog_tells_are_entries_of_the_audit(brains: Brains, clock: Clock) -> None:
    brains.manifest.unlink()
    brains.supervisor(clock=clock).step()
    (told,) = brains.told
    assert told.event_type is AuditKind.TAMPER
    assert AuditEvent.from_json(told.as_json()) == told


# A release key.


@pytest.fixture
def audit(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path / "audit")


@pytest.fixture
def release(tmp_path: Path, package: Path, other_signer: Signer) -> Release:
    """What a release says of the package; its private key is nowhere on the service's machine."""
    made = Release(tmp_path / "release.json", tmp_path / "release.pem")
    made.manifest.write_bytes(sign_code(package, other_signer))
    made.key.write_text(other_signer.public_key.pem)
    return made


def test_without_a_release_key_the_code_is_as_it_was_found_and_says_so(
    tmp_path: Path, package: Path, audit: AuditFolder
) -> None:
    changed(package, "edited")
    code = watched_code(package, tmp_path / "code.json", audit, None)
    assert code.problem() == "", "who changed it before the start isn't seen: nobody says that it is"
    assert code.trust is CodeTrust.AS_FOUND
    changed(package, "added")
    assert "sitecustomize.py" in code.problem()


@pytest.mark.parametrize("how", ["edited", "missing", "added", "unreadable"])
def test_with_a_release_key_code_that_was_changed_before_the_start_is_never_started(
    tmp_path: Path, package: Path, audit: AuditFolder, release: Release, how: str
) -> None:
    name = changed(package, how)
    code = watched_code(package, tmp_path / "code.json", audit, release)
    assert code.trust is CodeTrust.RELEASE_KEY
    told: list[AuditEvent] = []
    supervisor = Supervisor(
        [sys.executable, "-c", "open('started', 'w')"],
        health=lambda: True,
        status=tmp_path / "watchdog.json",
        code=code,
        record=told.append,
    )
    with supervisor:
        supervisor.step()
    assert (supervisor.mode, supervisor.pid) == (Mode.TAMPERED, None)
    assert name in told[0].reason
    found = read_status(tmp_path / "watchdog.json")
    assert found is not None
    assert (found.mode, found.code_trust) == (Mode.TAMPERED, CodeTrust.RELEASE_KEY)


def test_the_services_own_key_signs_no_release(
    tmp_path: Path, package: Path, audit: AuditFolder, release: Release
) -> None:
    """Who has the service's machine has its key: he changes the code and signs it anew."""
    changed(package, "edited")
    release.manifest.write_bytes(sign_code(package, audit.signer()))
    with pytest.raises(ImmuneError, match="pinned") as refused:
        watched_code(package, tmp_path / "code.json", audit, release)
    assert refused.value.code == "immune.manifest_invalid"


def test_a_list_or_key_that_is_replaced_while_it_runs_ends_it(
    tmp_path: Path, package: Path, audit: AuditFolder, release: Release
) -> None:
    code = watched_code(package, tmp_path / "code.json", audit, release)
    assert code.problem() == ""
    changed(package, "edited")
    release.manifest.write_bytes(sign_code(package, audit.signer()))
    release.key.write_text(audit.signer().public_key.pem)
    assert "pinned" in code.problem()
    release.manifest.unlink()
    assert code.problem() != ""


@pytest.mark.parametrize("what", ["manifest", "key"])
def test_a_release_of_which_a_file_is_missing_starts_nothing(
    tmp_path: Path, package: Path, audit: AuditFolder, release: Release, what: str
) -> None:
    (release.manifest if what == "manifest" else release.key).unlink()
    with pytest.raises(InputError):
        watched_code(package, tmp_path / "code.json", audit, release)


def test_a_status_of_an_older_version_says_that_nobody_looks_at_the_code(tmp_path: Path) -> None:
    body = {"at": "", "mode": "watching", "pid": None, "reason": "", "restarts": 0}
    (tmp_path / "watchdog.json").write_text(json.dumps(body))
    found = read_status(tmp_path / "watchdog.json")
    assert found is not None
    assert (found.mode, found.code_trust) == (Mode.WATCHING, CodeTrust.NOBODY)
