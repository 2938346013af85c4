"""What an audit event reaches for: coarse enough to repeat, and never a value."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.immune.acting.programs import program, shell_line
from cloister.immune.acting.reach import READERS, Operation, Places, Reach

PLACES = Places(own=("/usr/lib/python3/", "/usr/share/zoneinfo/"), merged=("/tmp/",))
READ, WRITE, CONNECT, RUN = Operation.READ, Operation.WRITE, Operation.CONNECT, Operation.RUN


def _reaches(event: str, *arguments: object) -> list[Reach]:
    found: Iterable[Reach] = READERS[event](arguments, PLACES)
    return list(found)


@pytest.mark.parametrize(
    ("path", "mode", "flags", "reaches"),
    [
        ("/srv/records/one.csv", "r", os.O_RDONLY, [(READ, "/srv/records")]),
        (b"/srv/records/one.csv", "rb", os.O_RDONLY, [(READ, "/srv/records")]),
        ("/srv/records/one.csv", None, os.O_WRONLY, [(WRITE, "/srv/records")]),
        ("/srv/records/one.csv", "a", os.O_RDWR | os.O_APPEND, [(WRITE, "/srv/records")]),
        ("/srv/records/../../etc/passwd", "r", 0, [(READ, "/etc")]),
        ("/srv//records/./x", "r", 0, [(READ, "/srv/records")]),
        ("/vmlinuz", "r", 0, [(READ, "/")]),
        ("/srv/records", None, os.O_DIRECTORY, [(READ, "/srv/records")]),
        ("/tmp/tmpab12/x/y", "w", os.O_WRONLY, [(WRITE, "/tmp")]),
        ("/tmp", "w+", os.O_RDWR | os.O_TMPFILE, [(WRITE, "/tmp")]),
        (Path("/srv/records/one.csv"), "r", 0, [(READ, "/srv/records")]),
        (7, "r", 0, []),
        ("<unknown>", "rb", 0, []),
        ("/usr/lib/python3/json/x.py", "r", 0, []),
        ("/usr/lib/python3/json/x.py", "w", os.O_WRONLY, [(WRITE, "/usr/lib/python3/json")]),
        ("/usr/lib/python3/../../../etc/shadow", "r", 0, [(READ, "/etc")]),
        ("/usr/share/zoneinfo/Europe/Berlin", "r", 0, []),
        ("/proc/self/stat", "r", 0, []),
        ("/proc/self/cwd/clinic/rows", "r", 0, [(READ, "/proc/self/cwd/clinic")]),
        ("/proc/1/environ", "r", 0, [(READ, "/proc/1")]),
        ("/dev/urandom", "rb", 0, []),
        ("/dev/null", "w", os.O_WRONLY, []),
        ("/dev/sda", "rb", 0, [(READ, "/dev")]),
    ],
)
def test_a_file_stands_for_its_folder_and_reading_apart_from_writing(
    path: object, mode: object, flags: int, reaches: list[Reach]
) -> None:
    assert _reaches("open", path, mode, flags) == reaches


def test_a_relative_path_counts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/usr")
    assert _reaches("open", "share/x", "r", 0) == [(READ, "/usr/share")]
    monkeypatch.chdir("/etc")
    assert _reaches("open", "share/x", "r", 0) == [(READ, "/etc/share")]
    assert _reaches("open", "<unknown>", "wb", os.O_WRONLY) == [(WRITE, "/etc")]


def test_removing_moving_linking_and_databases_write() -> None:
    assert _reaches("os.remove", "/srv/a/x", -1) == [(WRITE, "/srv/a")]
    assert _reaches("os.truncate", "/srv/a/x", 0) == [(WRITE, "/srv/a")]
    assert _reaches("os.truncate", 5, 0) == []
    assert _reaches("os.rename", "/srv/a/x", "/srv/b/y", -1, -1) == [(WRITE, "/srv/a"), (WRITE, "/srv/b")]
    assert _reaches("os.symlink", "/etc/shadow", "/srv/b/y", -1) == [(WRITE, "/etc"), (WRITE, "/srv/b")]
    assert _reaches("sqlite3.connect", "/srv/db/x.sqlite") == [(WRITE, "/srv/db")]
    assert _reaches("sqlite3.connect", "file:/srv/db/x.sqlite?mode=ro") == [(WRITE, "/srv/db")]
    assert _reaches("sqlite3.connect", Path("/srv/db/x.sqlite")) == [(WRITE, "/srv/db")]
    assert _reaches("sqlite3.connect", ":memory:") == []


def test_native_code_is_loaded_by_its_file_and_a_search_for_a_module_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["/srv/app", Path("/srv/odd")])
    load = Operation.LOAD
    assert _reaches("import", "json", None, [], [], []) == []
    assert _reaches("import", "x", "/usr/lib/python3/lib-dynload/x.so", None, None, None) == []
    assert _reaches("import", "x", "/srv/app/x.so", None, None, None) == []
    assert _reaches("import", "x", "/srv/application/x.so", None, None, None) == [
        (load, "/srv/application/x.so")
    ]
    assert _reaches("import", "x", "/srv/app/../x.so", None, None, None) == [(load, "/srv/x.so")]
    assert _reaches("sqlite3.load_extension", None, "/srv/x.so") == [(load, "/srv/x.so")]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("10.1.2.3", 443), "10.1.2.3"),
        (("DB.Hospital.example.", 5432), "db.hospital.example"),
        (("fe80::1", 80, 0, 2), "fe80::1"),
        ("/run/x.sock", "unix:/run/x.sock"),
        (b"\0abstract", "unix:@abstract"),
        ((0, 0), "another family"),
        (17, "another family"),
    ],
)
def test_an_address_stands_for_its_host(address: object, host: str) -> None:
    assert _reaches("socket.connect", None, address) == [(CONNECT, host)]


def test_datagrams_servers_and_names_are_reached_for_as_well() -> None:
    assert _reaches("socket.sendto", None, ("10.1.2.3", 53)) == [(CONNECT, "10.1.2.3")]
    assert _reaches("socket.sendmsg", None, None) == []
    assert _reaches("socket.bind", None, ("0.0.0.0", 80)) == [(Operation.LISTEN, "0.0.0.0")]
    assert _reaches("socket.getaddrinfo", "evil.example", 80, 0, 0, 0) == [
        (Operation.RESOLVE, "evil.example")
    ]
    assert _reaches("socket.getaddrinfo", None, 80, 0, 0, 0) == []


@pytest.mark.parametrize(
    ("event", "arguments", "name"),
    [
        ("subprocess.Popen", ("tar", ["tar", "-c", "Jane Doe"], None, None), "tar"),
        ("subprocess.Popen", (None, ["tar", "x"], None, None), "tar"),
        ("subprocess.Popen", ("./scan", ["./scan"], "/opt/tools", None), "/opt/tools/scan"),
        ("subprocess.Popen", (b"/bin/tar", "tar", None, None), "/bin/tar"),
        ("subprocess.Popen", ("/bin/sh", ["/bin/sh", "-c", "gzip x | nc h 1"], None, None), "sh: gzip, nc"),
        ("subprocess.Popen", ("bash", ["bash", "-lc", "id"], None, None), "bash: id"),
        ("subprocess.Popen", ("bash", ["bash", "x.sh"], None, None), "bash (a script)"),
        ("os.posix_spawn", ("/bin/true", ["true"], {}), "/bin/true"),
        ("os.exec", ("/bin/true", ["true"], None), "/bin/true"),
        ("os.spawn", (0, "/bin/true", ["true"], None), "/bin/true"),
        ("os.system", (b"curl x",), "sh: curl"),
        ("pty.spawn", (["top"],), "top"),
    ],
)
def test_a_program_is_its_name_without_arguments(
    event: str, arguments: tuple[object, ...], name: str
) -> None:
    assert _reaches(event, *arguments) == [(RUN, name)]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("tar c x", "sh: tar"),
        ("A=1 B='x y' tar c", "sh: tar"),
        ("tar c;nc h 1&&id||true", "sh: id, nc, tar, true"),
        ("if test -f x; then cat x; fi", "sh: cat, fi, test"),
        ("(cd /x; tar c .) > out 2>&1", "sh: cd, tar"),
        ("tar c\nnc h 1", "sh: nc, tar"),
        ('grep "name; Jane Doe" file', "sh: grep"),
        ("echo 'x | nc h 1'", "sh: echo"),
        ('echo "$(nc h 1)"', "sh: echo, $()"),
        ("echo `nc h 1`", "sh: echo, $()"),
        ("cat <(nc h 1)", "sh: cat, nc, $()"),
        ("awk -F ';' '{print}' Jane.csv", "sh: awk"),
        ('"n"c h 1', "sh: nc"),
        ("n\\c h 1", "sh: nc"),
        ("tar c \\\n x", "sh: tar"),
        ("tar c # Jane; Doe", "sh: tar"),
        ("tar c &> out & nc h 1", "sh: nc, tar"),
        ("cat <<END\nJane Doe\nEND", "sh: ?"),
        ("cat <<< 'Jane Doe'", "sh: cat"),
        ("grep 'unbalanced", "sh: ?"),
        ("x" * 10_001, "sh: ?"),
        ("", "sh: "),
        ("> /srv/x nc h 1", "sh: nc"),
    ],
)
def test_a_shell_is_named_with_the_programs_of_its_line(line: str, name: str) -> None:
    assert shell_line(line) == name


@given(st.text(alphabet="abc|;& '\"$()`<>\n=#\\", max_size=60))
def test_any_line_has_a_name_and_a_quoted_argument_is_not_in_it(line: str) -> None:
    assert shell_line(line).startswith("sh: ")
    assert "Doe" not in shell_line("grep 'Jane; Doe | Doe' " + line.replace("'", ""))


@pytest.mark.parametrize("words", [17, None, [object()]])
def test_what_is_no_program_is_an_error_of_the_guard_and_not_a_name(words: object) -> None:
    with pytest.raises((TypeError, IndexError)):
        program(None, words)


def test_a_library_is_its_name_and_the_program_itself_is_one() -> None:
    assert _reaches("ctypes.dlopen", "libc.so.6") == [(Operation.LOAD, "libc.so.6")]
    assert _reaches("ctypes.dlopen", None) == [(Operation.LOAD, "itself")]


def test_the_places_of_this_interpreter_hold_its_library_and_not_the_users_files() -> None:
    places = Places.of_this_interpreter()
    assert os.__file__.startswith(places.own)
    assert pytest.__file__.startswith(places.own)
    assert not "/etc/passwd".startswith(places.own)
    assert not "/usr/bin/env".startswith(places.own)


KEPT = Places(merged=("/srv/",), kept=("/srv/state/",))


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("open", ("/srv/state/disabled", "w", os.O_WRONLY)),
        ("open", ("/srv/state", None, os.O_RDONLY | os.O_DIRECTORY)),
        ("os.mkdir", ("/srv/state/disabled", 0o777, -1)),
        ("os.mkdir", (b"/srv/../srv/state/audit/x", 0o777, -1)),
        ("os.chmod", ("/srv/state", 0, -1)),
        ("os.chmod", ("/srv", 0, -1)),
        ("os.chown", ("/srv", 0, 0, -1)),
        ("os.chown", ("/srv/state/immune.db", 0, 0, -1)),
        ("os.utime", ("/srv/state/immune.db", (0, 0), None, -1)),
        ("os.setxattr", ("/srv/state/immune.db", "user.x", b"", 0)),
        ("os.removexattr", ("/srv/state/immune.db", "user.x")),
        ("os.remove", ("/srv/state/disabled", -1)),
        ("os.rename", ("/srv/state", "/tmp/away", -1, -1)),
        ("os.rename", ("/tmp/x", "/srv/state/disabled", -1, -1)),
        ("os.rename", ("/srv", "/away", -1, -1)),
        ("os.symlink", ("/tmp/x", "/srv/state/disabled", -1)),
        ("sqlite3.connect", ("/srv/state/immune.db",)),
    ],
)
def test_a_change_of_the_immune_systems_own_folder_is_told_apart(
    event: str, arguments: tuple[object, ...]
) -> None:
    assert (WRITE, "/srv/state") in list(READERS[event](arguments, KEPT))


@pytest.mark.parametrize(
    ("event", "arguments", "reaches"),
    [
        ("os.listdir", ("/srv/state",), [(READ, "/srv")]),
        ("open", ("/srv/state/immune.db", "r", 0), [(READ, "/srv")]),
        ("open", ("/srv/statement", "w", os.O_WRONLY), [(WRITE, "/srv")]),
        ("open", ("/srv", "w", os.O_RDWR | os.O_TMPFILE), [(WRITE, "/srv")]),
        ("os.chmod", ("/etc", 0, -1), [(WRITE, "/")]),
        ("os.mkdir", ("/srv", 0o777, -1), [(WRITE, "/")]),
        ("os.utime", ("/srv", None, None, -1), [(WRITE, "/")]),
    ],
)
def test_what_is_read_there_or_changed_beside_it_is_like_anything_else(
    event: str, arguments: tuple[object, ...], reaches: list[Reach]
) -> None:
    assert list(READERS[event](arguments, KEPT)) == reaches


@pytest.mark.parametrize(
    ("event", "arguments", "reaches"),
    [
        ("os.mkdir", ("/srv/new", 0o777, -1), [(WRITE, "/srv")]),
        ("os.chmod", ("/srv/one.csv", 0o777, -1), [(WRITE, "/srv")]),
        ("os.chmod", (7, 0o777, -1), []),
        ("os.chown", ("/srv/one.csv", 0, 0, -1), [(WRITE, "/srv")]),
        ("os.utime", ("/srv/one.csv", None, None, -1), [(WRITE, "/srv")]),
        ("os.setxattr", ("/srv/one.csv", "user.x", b"", 0), [(WRITE, "/srv")]),
        ("os.listdir", ("/srv/records",), [(READ, "/srv/records")]),
        ("os.scandir", (b"/srv/records",), [(READ, "/srv/records")]),
        ("os.listdir", ("/usr/lib/python3",), []),
        ("os.scandir", (7,), []),
        ("os.kill", (1, 0), []),
        ("os.kill", (1, 15), [(Operation.SIGNAL, "another process SIGTERM")]),
        ("os.kill", (os.getpid(), 12), [(Operation.SIGNAL, "itself SIGUSR2")]),
        ("os.killpg", (0, 9), [(Operation.SIGNAL, "itself SIGKILL")]),
        ("os.kill", (1, 99), [(Operation.SIGNAL, "another process 99")]),
        ("signal.pthread_kill", (140, 10), [(Operation.SIGNAL, "itself SIGUSR1")]),
    ],
)
def test_modes_owners_times_listings_and_signals_are_reaches_too(
    event: str, arguments: tuple[object, ...], reaches: list[Reach]
) -> None:
    assert _reaches(event, *arguments) == reaches


def test_the_current_folder_is_what_is_listed_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = Places()
    assert list(READERS["os.listdir"]((None,), places)) == [(READ, str(tmp_path))]


def test_a_path_below_a_folders_descriptor_is_found_there(tmp_path: Path) -> None:
    places = Places(kept=(f"{tmp_path}/",))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        found = READERS["os.mkdir"](("disabled", 0o777, descriptor), places)
    finally:
        os.close(descriptor)
    assert list(found) == [(WRITE, str(tmp_path))]
