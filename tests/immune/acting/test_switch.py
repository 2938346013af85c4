"""The kill switch: three ways to throw it, and how soon each is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.immune.acting.switch import (
    DISABLED_FILE,
    LOOK_SECONDS,
    KillSwitch,
    ThrownBy,
    on_signal,
    restore,
    throw,
)
from cloister.immune.errors import ImmuneError


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> _Clock:
    return _Clock()


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("value", ["1", "true", "yes", "on", "anything"])
def test_the_environment_throws_it(value: str) -> None:
    switch = KillSwitch(environment={"PIC_DISABLED": value})
    assert switch()
    assert switch.thrown_by is ThrownBy.ENVIRONMENT


@pytest.mark.parametrize("value", ["", "0", "false", "No", " off "])
def test_the_environment_can_say_that_it_is_not_thrown(value: str) -> None:
    assert not KillSwitch(environment={"PIC_DISABLED": value})()
    assert not KillSwitch(environment={})()


def test_a_process_started_with_the_variable_has_it_thrown() -> None:
    code = "from cloister.immune.acting.switch import KillSwitch; print(KillSwitch()())"
    for value, said in (("1", "True"), ("0", "False")):
        environment = {**os.environ, "PIC_DISABLED": value}
        answer = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert answer.stdout.strip() == said


def test_the_file_is_seen_within_a_quarter_of_a_second_and_its_removal_too(
    tmp_path: Path, time: _Clock
) -> None:
    switch = KillSwitch(tmp_path, environment={}, clock=time)
    assert not switch()
    throw(tmp_path)
    time.now += LOOK_SECONDS
    assert switch()
    assert switch.thrown_by is ThrownBy.FILE
    restore(tmp_path)
    time.now += LOOK_SECONDS
    assert not switch()


def test_the_file_is_looked_at_no_more_often_than_every_quarter_of_a_second(
    tmp_path: Path, time: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, looks, stat = KillSwitch(tmp_path, environment={}, clock=time), [], os.lstat

    def counted(path: str) -> os.stat_result:
        looks.append(path)
        return stat(path)

    monkeypatch.setattr("cloister.immune.acting.switch.os.lstat", counted)
    for _ in range(1000):
        switch()
        time.now += 0.001
    monkeypatch.undo()
    assert len(looks) == 4


def test_a_clock_that_went_back_does_not_hide_the_file(tmp_path: Path, time: _Clock) -> None:
    switch = KillSwitch(tmp_path, environment={}, clock=time)
    switch()
    throw(tmp_path)
    time.now -= 500.0
    assert switch()


def test_a_folder_that_does_not_exist_yet_throws_nothing(tmp_path: Path) -> None:
    assert not KillSwitch(tmp_path / "later", environment={})()


def test_a_folder_that_can_not_be_read_counts_as_thrown(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    switch = KillSwitch(tmp_path / "file", environment={})
    assert switch()
    assert switch.thrown_by is ThrownBy.UNREADABLE


def test_the_file_is_private_and_throwing_twice_or_restoring_twice_is_fine(tmp_path: Path) -> None:
    throw(tmp_path)
    throw(tmp_path)
    assert (tmp_path / DISABLED_FILE).stat().st_mode & 0o077 == 0
    restore(tmp_path)
    restore(tmp_path)
    assert not (tmp_path / DISABLED_FILE).exists()


def test_a_folder_that_is_missing_can_not_be_thrown(tmp_path: Path) -> None:
    with pytest.raises(ImmuneError, match="kill switch"):
        throw(tmp_path / "none")
    (tmp_path / "plain").touch()
    with pytest.raises(ImmuneError, match="kill switch"):
        restore(tmp_path / "plain")


def test_a_signal_throws_it_and_the_handler_before_runs_too() -> None:
    received: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: received.append(number))
    before = signal.getsignal(signal.SIGUSR2)
    switch = KillSwitch(environment={})
    undo = on_signal(switch, signal.SIGUSR2)
    assert not switch()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert switch()
    assert switch.thrown_by is ThrownBy.SIGNAL
    assert received == [signal.SIGUSR2]
    undo()
    assert signal.getsignal(signal.SIGUSR2) is before


def test_no_handler_is_installed_unasked() -> None:
    before = signal.getsignal(signal.SIGUSR2)
    KillSwitch(environment={})
    assert signal.getsignal(signal.SIGUSR2) is before


def test_what_the_handler_before_raises_passes() -> None:
    def stop(*_: object) -> None:
        raise SystemExit(3)

    signal.signal(signal.SIGUSR2, stop)
    switch = KillSwitch(environment={})
    on_signal(switch, signal.SIGUSR2)
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGUSR2)
    assert switch()


def test_putting_back_leaves_a_handler_that_somebody_installed_later() -> None:
    undo = on_signal(KillSwitch(environment={}), signal.SIGUSR2)

    def later(*_: object) -> None:
        return None

    signal.signal(signal.SIGUSR2, later)
    undo()
    assert signal.getsignal(signal.SIGUSR2) is later


def test_a_thread_can_not_install_it() -> None:
    raised: list[ImmuneError] = []

    def install() -> None:
        try:
            on_signal(KillSwitch(environment={}), signal.SIGUSR2)
        except ImmuneError as error:
            raised.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert raised[0].code == "immune.setting_invalid"


@pytest.mark.parametrize("number", [signal.SIGKILL, 9999])
def test_a_signal_that_can_not_be_handled_is_refused(number: int) -> None:
    with pytest.raises(ImmuneError, match="can't be handled"):
        on_signal(KillSwitch(environment={}), number)


@pytest.mark.parametrize("kind", ["folder", "pipe", "empty node", "link"])
def test_only_a_plain_file_with_something_in_it_throws_it(tmp_path: Path, kind: str) -> None:
    file = tmp_path / DISABLED_FILE
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "empty node":
        os.mknod(file, 0o600)
    else:
        (tmp_path / "other").write_text("thrown")
        file.symlink_to("other")
    assert not KillSwitch(tmp_path, environment={})()


@pytest.mark.parametrize("kind", ["folder", "pipe", "empty node", "link"])
def test_what_lies_in_its_place_keeps_an_operator_from_nothing(tmp_path: Path, kind: str) -> None:
    file = tmp_path / DISABLED_FILE
    if kind == "folder":
        file.mkdir()
        (file / "full").touch()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "empty node":
        os.mknod(file, 0o600)
    else:
        file.symlink_to("nowhere")
    restore(tmp_path)
    throw(tmp_path)
    assert KillSwitch(tmp_path, environment={})()
    restore(tmp_path)
    assert not KillSwitch(tmp_path, environment={})()


def test_whoever_holds_it_is_told_each_time_that_it_is_seen_to_change(tmp_path: Path, time: _Clock) -> None:
    told: list[ThrownBy] = []
    switch = KillSwitch(tmp_path, changed=told.append, environment={}, clock=time)
    for change in (throw, throw, restore, restore, throw):
        change(tmp_path)
        time.now += LOOK_SECONDS
        switch()
        switch()
    switch.by_signal()
    assert switch.thrown_by is ThrownBy.SIGNAL
    assert told == [ThrownBy.FILE, ThrownBy.NOTHING, ThrownBy.FILE, ThrownBy.SIGNAL]


def test_it_works_whatever_the_one_that_is_told_raises(tmp_path: Path) -> None:
    def fail(_: ThrownBy) -> None:
        raise RuntimeError

    assert KillSwitch(tmp_path, changed=fail, environment={"PIC_DISABLED": "1"})()
