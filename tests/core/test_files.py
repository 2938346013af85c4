"""Files: whole or not at all, nothing lost, nothing outside."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import InputError, StorageError
from cloister.core.files import (
    read_bounded,
    read_or_make,
    require_place,
    resolve_inside,
    write_atomic,
    write_new,
)

WRITERS = [write_atomic, write_new]
AS_ROOT = os.geteuid() == 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_appears_whole_and_for_its_owner_alone(write: Callable[..., None], tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write(tmp_path / "a", b"content")
        write(tmp_path / "b", b"", mode=0o644)
    finally:
        os.umask(old)
    assert (tmp_path / "a").read_bytes() == b"content"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644
    assert names(tmp_path) == ["a", "b"]


def test_write_atomic_replaces_and_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept"
    assert (tmp_path / "link").read_bytes() == b"new"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link"])
def test_write_new_never_touches_what_is_there(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "there"
    (tmp_path / "target").write_bytes(b"kept")
    if kind == "file":
        path.write_bytes(b"kept")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("target" if kind == "link" else "nowhere")
    before = names(tmp_path)
    with pytest.raises(StorageError) as refused:
        write_new(path, b"new")
    assert refused.value.code == "storage.exists"
    assert names(tmp_path) == before
    assert (tmp_path / "target").read_bytes() == b"kept"


def test_write_atomic_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError) as refused:
        write_atomic(tmp_path / "there", b"new")
    assert refused.value.code == "storage.exists"
    assert names(tmp_path) == ["there"]


@pytest.mark.parametrize(
    ("write", "call"),
    [
        (write_atomic, "write"),
        (write_atomic, "fsync"),
        (write_atomic, "replace"),
        (write_new, "write"),
        (write_new, "fsync"),
        (write_new, "link"),
    ],
)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "storage.no_space"),
        (errno.EDQUOT, "storage.no_space"),
        (errno.EACCES, "storage.permission"),
        (errno.EROFS, "storage.permission"),
        (errno.EBUSY, "storage.in_use"),
        (errno.EIO, "storage.failed"),
    ],
)
def test_a_failure_at_any_step_leaves_what_was_there_and_no_rest(
    write: Callable[..., None],
    call: str,
    number: int,
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "file"
    if write is write_atomic:
        path.write_bytes(b"before")
    before = names(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "injected")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError) as refused:
        write(path, b"after" * 1000)
    monkeypatch.undo()
    assert refused.value.code == code
    assert names(tmp_path) == before
    if write is write_atomic:
        assert path.read_bytes() == b"before"


def test_a_write_that_takes_only_some_bytes_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, bytes(data)[:3]))
    write_new(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_the_kernels_own_limit_is_reported_as_no_space(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError) as refused:
            write_atomic(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert refused.value.code == "storage.no_space"
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    program = (
        "import os, signal, sys; from pathlib import Path; from cloister.core.files import write_atomic\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), b'after')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"before"


def test_a_missing_folder_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as refused:
        write_atomic(tmp_path / "absent" / "file", b"x")
    assert refused.value.code == "storage.failed"
    assert "folder" in str(refused.value)
    assert names(tmp_path) == []


def test_whether_a_file_can_be_written_is_asked_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("kept")
    for name in ("new", "there"):
        require_place(tmp_path / name)
    assert names(tmp_path) == ["there"]
    assert (tmp_path / "there").read_text() == "kept"
    for place in (tmp_path, tmp_path / "absent" / "new", tmp_path / "there" / "new"):
        with pytest.raises(StorageError):
            require_place(place)


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("n" * 255), b"x")
    assert names(tmp_path) == ["n" * 255]


def test_a_file_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    def overtaken() -> bytes:
        assert read_or_make(tmp_path / "key", 5, lambda: b"first") == b"first"
        return b"later"

    assert read_or_make(tmp_path / "key", 5, overtaken) == b"first"
    assert read_or_make(tmp_path / "key", 5, lambda: b"later") == b"first"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["key"]
    with pytest.raises(StorageError):
        read_or_make(tmp_path / "absent" / "key", 5, lambda: b"")


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(InputError) as refused:
        read_bounded(tmp_path / "file", 4)
    assert refused.value.code == "input.too_large"


@pytest.mark.timeout(10)
def test_only_plain_files_are_read_and_none_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, code in [
        (tmp_path / "absent", "input.missing_file"),
        (tmp_path / "absent" / "x", "input.missing_file"),
        (tmp_path / "pipe", "input.unreadable"),
        (tmp_path, "input.unreadable"),
        (Path("/dev/zero"), "input.unreadable"),
        (tmp_path / "zero\0byte", "input.unreadable"),
    ]:
        with pytest.raises(InputError) as refused:
            read_bounded(path, 10)
        assert refused.value.code == code, path


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0)
    with pytest.raises(InputError) as refused:
        read_bounded(tmp_path / "file", 10)
    assert refused.value.code == "input.unreadable"


@pytest.mark.parametrize("relative", ["data.csv", "a/b/c.csv", "./a/b", "a//b", "..a", "a..b/c"])
def test_a_path_below_the_root_is_resolved(relative: str, tmp_path: Path) -> None:
    assert resolve_inside(tmp_path, relative).is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    "relative",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "a/../b",
        "/etc/passwd",
        "//etc/passwd",
        "a/..",
        "..\\x",
        "a\\..\\b",
        "a\0b",
    ],
)
def test_a_path_that_leaves_the_root_is_refused(relative: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        resolve_inside(tmp_path, relative)
    assert refused.value.code == "input.path_escapes"


def test_links_on_the_way_are_refused_wherever_they_lead(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to("real")
    (root / "dangling").symlink_to("nowhere")
    for relative in ("out", "out/file", "in", "in/file", "dangling"):
        with pytest.raises(InputError):
            resolve_inside(root, relative)
    (tmp_path / "alias").symlink_to("root")
    assert resolve_inside(tmp_path / "alias", "real/file") == (root / "real" / "file").resolve()


@given(st.text(alphabet="ab./\\\0~", max_size=12))
def test_no_spelling_leaves_the_root(relative: str) -> None:
    root = Path("/root-of-the-data")
    try:
        path = resolve_inside(root, relative)
    except InputError:
        return
    assert path.is_relative_to(root)
    assert Path(os.path.normpath(path)).is_relative_to(root)
    assert path != root


def test_a_folder_that_is_there_and_takes_no_files_is_not_said_to_be_absent() -> None:
    with pytest.raises(StorageError) as refused:
        write_new(Path("/proc/cloister"), b"")
    assert (refused.value.code, refused.value.message) == ("storage.permission", "/proc takes no files.")
