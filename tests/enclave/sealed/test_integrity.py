"""Measured code is watched from before it is imported, and everything stops when it changes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.enclave.errors import SealBroken, SealedError
from cloister.enclave.sealed import (
    CodeChange,
    IntegrityMonitor,
    SealedHost,
    WatchedFiles,
    fingerprint,
    integrity,
)
from cloister.enclave.sealed.fingerprint import LARGE_BYTES, Fingerprint, take_fingerprint, with_folder
from cloister.enclave.sealed.loaded import LoadedFiles
from cloister.evidence.predicates.custody import Incident
from tests.enclave.sealed.scene import STATED, a_worker, started


class Stopped:
    def __init__(self) -> None:
        self.reasons: list[SealedError] = []

    def stop(self, reason: SealedError) -> None:
        self.reasons.append(reason)


@pytest.fixture
def watched(tmp_path: Path) -> WatchedFiles:
    code = tmp_path / "package"
    (code / "inner").mkdir(parents=True)
    (code / "__init__.py").write_text("one = 1\n")
    (code / "inner" / "model.py").write_text("two = 2\n")
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "model.pyc").write_bytes(b"cache")
    (tmp_path / "base.txt").write_text("torch==2.13.0\n")
    (tmp_path / "job.yaml").write_text("model: mlp\n")
    site = tmp_path / "site-packages"
    (site / "library-1.0.dist-info").mkdir(parents=True)
    (site / "library-1.0.dist-info" / "RECORD").write_text("library.py,,\n")
    (site / "library.py").write_text("three = 3\n")
    (site / "library.so").write_bytes(b"code")
    with (site / "large.so").open("wb") as large:
        large.truncate(LARGE_BYTES + 1)
    (tmp_path / "library.pyc").write_bytes(b"byte code")
    loaded = {
        "library.py": site / "library.py",
        "library.so": site / "library.so",
        "large.so": site / "large.so",
        "byte code": tmp_path / "library.pyc",
    }
    return WatchedFiles(
        {"package": code},
        {
            "lock file": tmp_path / "base.txt",
            "model": tmp_path / "job.yaml",
            "library-1.0/RECORD": site / "library-1.0.dist-info" / "RECORD",
        },
        (str(site),),
        LoadedFiles({name: str(path) for name, path in loaded.items()}),
    )


def rewritten_in_place(root: Path) -> str:
    path = root / "package" / "inner" / "model.py"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"two = 3\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return "package/inner/model.py"


def replaced(root: Path) -> str:
    # Made elsewhere: what is watched may be looked at between the two.
    (root / "new").write_text("one = 1\nbackdoor = 1\n")
    (root / "new").replace(root / "package" / "__init__.py")
    return "package/__init__.py"


def added(root: Path) -> str:
    (root / "package" / "inner" / "extra.py").write_text("")
    return "package/inner/extra.py"


def removed(root: Path) -> str:
    (root / "package" / "__init__.py").unlink()
    return "package/__init__.py"


def lock_changed(root: Path) -> str:
    (root / "base.txt").write_text("torch==2.13.1\n")
    return "lock file"


def model_changed(root: Path) -> str:
    (root / "job.yaml").write_text("model: cnn\n")
    return "model"


def library_changed(root: Path) -> str:
    (root / "site-packages" / "library.py").write_text("three = 4\n")
    return "library.py"


def library_removed(root: Path) -> str:
    (root / "site-packages" / "library.py").unlink()
    return "library.py"


def shared_object_replaced(root: Path) -> str:
    new = root / "new"
    new.write_bytes(b"back")
    new.replace(root / "site-packages" / "library.so")
    return "library.so"


def large_shared_object_rewritten(root: Path) -> str:
    path = root / "site-packages" / "large.so"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(LARGE_BYTES // 2)
        file.write(b"back door")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return "large.so"


def byte_code_changed(root: Path) -> str:
    (root / "library.pyc").write_bytes(b"other code")
    return "byte code"


def record_changed(root: Path) -> str:
    (root / "site-packages" / "library-1.0.dist-info" / "RECORD").write_text("library.py,,\nmore.py,,\n")
    return "library-1.0/RECORD"


def distribution_added(root: Path) -> str:
    (root / "site-packages" / "other-1.0.dist-info").mkdir()
    return "distributions in folder 0"


def start_up_file_added(root: Path) -> str:
    (root / "site-packages" / "evil.pth").write_text("import evil\n")
    return "distributions in folder 0"


CHANGES = [
    rewritten_in_place,
    replaced,
    added,
    removed,
    lock_changed,
    model_changed,
    library_changed,
    library_removed,
    shared_object_replaced,
    large_shared_object_rewritten,
    byte_code_changed,
    record_changed,
    distribution_added,
    start_up_file_added,
]


def told_of(watched: WatchedFiles, change: Callable[[], object]) -> CodeChange:
    """What is told of a change within a second, when everything was stopped."""
    told: list[CodeChange] = []
    stopped = Stopped()
    with IntegrityMonitor(stopped, watched, take_fingerprint(watched), told.append).start() as monitor:
        time.sleep(0.3)
        assert stopped.reasons == []
        change()
        until = time.monotonic() + 1
        while not told and time.monotonic() < until:
            time.sleep(0.005)
        assert [one.code for one in stopped.reasons] == ["sealed.code_changed"]
        assert monitor.change is told[0]
    return told[0]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_stops_everything_in_under_a_second_and_is_told(
    watched: WatchedFiles, tmp_path: Path, change: Callable[[Path], str]
) -> None:
    changed: list[str] = []
    told = told_of(watched, lambda: changed.append(change(tmp_path)))
    assert changed[0] in told.names
    assert Incident.model_validate(STATED | told.incident_fields()).severity == "critical"


def test_a_file_that_is_made_beside_the_one_it_replaces_is_told_by_either_name(
    watched: WatchedFiles, tmp_path: Path
) -> None:
    """By the new one's where what is watched is looked at between the two, which stops everything as well."""
    code = tmp_path / "package"

    def replaced_from_within() -> None:
        (code / "new.py").write_text("one = 1\nbackdoor = 1\n")
        (code / "new.py").replace(code / "__init__.py")

    told = told_of(watched, replaced_from_within)
    assert told.names
    assert set(told.names) <= {"package/new.py", "package/__init__.py"}


def test_a_touch_or_a_new_cache_is_no_change(watched: WatchedFiles, tmp_path: Path) -> None:
    stopped = Stopped()
    with IntegrityMonitor(stopped, watched, take_fingerprint(watched), lambda _: None).start():
        (tmp_path / "base.txt").touch()
        (tmp_path / "site-packages" / "library.py").touch()
        (tmp_path / "site-packages" / "notes.txt").write_text("nothing that runs")
        (tmp_path / "package" / "__pycache__" / "other.pyc").write_bytes(b"another")
        time.sleep(1.0)
    assert stopped.reasons == []


def test_contents_are_read_again_even_where_nothing_looks_different(
    watched: WatchedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[CodeChange] = []
    stopped = Stopped()
    baseline = take_fingerprint(watched)
    byte_code_changed(tmp_path)
    for module in (fingerprint, integrity):
        monkeypatch.setattr(module, "place_of", lambda path: (0, 0, 0, 0))
    places = dict.fromkeys(baseline.places, (0, 0, 0, 0))
    unmoved = Fingerprint(places, baseline.hashes)
    with IntegrityMonitor(stopped, watched, unmoved, told.append).start():
        until = time.monotonic() + 20
        while not told and time.monotonic() < until:
            time.sleep(0.02)
    assert told[0].names == ("byte code",)
    assert [one.code for one in stopped.reasons] == ["sealed.code_changed"]


def test_a_watch_that_breaks_stops_everything(watched: WatchedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = Stopped()
    with IntegrityMonitor(stopped, watched, take_fingerprint(watched), lambda _: None).start() as monitor:
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        monkeypatch.setattr(monitor, "_look", lambda _: 1 / 0)
        until = time.monotonic() + 2
        while not stopped.reasons and time.monotonic() < until:
            time.sleep(0.01)
    assert [one.code for one in stopped.reasons] == ["sealed.code_changed"]


def test_a_jobs_definition_is_watched_with_the_code_while_it_runs(
    watched: WatchedFiles, tmp_path: Path
) -> None:
    job = tmp_path / "job"
    (job / "app").mkdir(parents=True)
    (job / "app" / "job.json").write_text('{"model": "mlp"}')
    told: list[CodeChange] = []
    more, baseline = with_folder(watched, take_fingerprint(watched), "job", job)
    with IntegrityMonitor(Stopped(), more, baseline, told.append).start():
        (job / "app" / "job.json").write_text('{"model": "cnn"}')
        until = time.monotonic() + 1
        while not told and time.monotonic() < until:
            time.sleep(0.005)
    assert told[0].names == ("job/app/job.json",)


def test_a_change_between_the_measurement_and_the_start_is_noticed_at_once(
    watched: WatchedFiles, tmp_path: Path
) -> None:
    told: list[CodeChange] = []
    stopped = Stopped()
    baseline = take_fingerprint(watched)
    rewritten_in_place(tmp_path)
    with pytest.raises(SealBroken) as changed:
        IntegrityMonitor(stopped, watched, baseline, told.append).start()
    assert changed.value.code == "sealed.code_changed"
    assert len(told) == len(stopped.reasons) == 1


def test_the_measurement_names_every_file_of_the_installed_package() -> None:
    names = {name for name, _ in WatchedFiles.installed().all()}
    assert "cloister/enclave/sealed/filter.py" in names
    assert not any("__pycache__" in name for name in names)


@pytest.mark.timed
def test_a_change_kills_server_and_workers_in_under_a_second(watched: WatchedFiles, tmp_path: Path) -> None:
    told: list[CodeChange] = []
    with started("light_server") as (host, _):
        assert isinstance(host, SealedHost)
        worker = a_worker(host)
        with IntegrityMonitor(host, watched, take_fingerprint(watched), told.append).start():
            began = time.monotonic()
            model_changed(tmp_path)
            with pytest.raises(SealBroken) as ended:
                worker.request("attack", {"name": "spin"})
            assert time.monotonic() - began < 1
        assert ended.value.code == "sealed.code_changed"
        with pytest.raises(SealBroken):
            host.worker("hostile")
    assert told[0].stopped_after_ms < 500
