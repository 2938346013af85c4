"""Reading below a folder: no spelling, link, race or odd file leads out of it or holds the reader up."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import InputError
from cloister.core.inside import open_inside, read_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "ward").mkdir(parents=True)
    (folder / "ward" / "north.csv").write_text("records")
    (tmp_path / "outside.csv").write_text("secret")
    return folder


def refusal(root: Path, relative: str, limit: int = 100) -> InputError:
    with pytest.raises(InputError) as caught:
        read_inside(root, relative, limit)
    assert "secret" not in repr(caught.value.as_json())
    return caught.value


@pytest.mark.parametrize("relative", ["ward/north.csv", "./ward/north.csv", "ward//north.csv"])
def test_a_file_below_the_root_is_read(relative: str, root: Path) -> None:
    assert read_inside(root, relative, 7) == b"records"


@pytest.mark.parametrize(
    "relative", ["", ".", "..", "../outside.csv", "ward/../../outside.csv", "/etc/passwd", "a\\b", "a\0b"]
)
def test_a_path_that_leaves_the_root_is_refused(relative: str, root: Path) -> None:
    assert refusal(root, relative).code == "input.path_escapes"


def test_links_are_refused_wherever_they_stand_and_lead(root: Path) -> None:
    (root / "file.csv").symlink_to(root.parent / "outside.csv")
    (root / "inner.csv").symlink_to(root / "ward" / "north.csv")
    (root / "up").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    (root / "gone.csv").symlink_to(root / "nothing")
    for relative in ("file.csv", "inner.csv", "up/outside.csv", "up/data/ward/north.csv", "loop", "gone.csv"):
        assert refusal(root, relative).code == "input.path_escapes", relative


def test_the_root_itself_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(root)
    assert read_inside(tmp_path / "mounted", "ward/north.csv", 100) == b"records"


def test_odd_files_are_refused_and_never_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.csv"))
        for relative in ("pipe.csv", "socket.csv", "ward"):
            assert refusal(root, relative).code == "input.unreadable", relative
    assert refusal(Path("/dev"), "null").code == "input.unreadable"
    assert refusal(root, "absent.csv").code == "input.missing_file"
    assert refusal(root, "absent/north.csv").code == "input.missing_file"
    assert refusal(root, "ward/north.csv/more").code == "input.missing_file"
    assert refusal(root / "absent", "north.csv").code == "input.missing_file"


def test_a_file_over_its_bound_is_refused_by_its_size(root: Path) -> None:
    with (root / "sparse.csv").open("wb") as file:
        file.truncate(2**40)
    assert refusal(root, "sparse.csv").code == "input.too_large"
    assert refusal(root, "ward/north.csv", 6).code == "input.too_large"


def test_a_link_that_is_put_between_look_and_opening_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = root.parent / "away"
    away.mkdir()
    (away / "north.csv").write_text("secret!")
    look = os.stat

    def then_swap(name: str, **where: object) -> os.stat_result:
        found = look(name, **where)  # type: ignore[arg-type]
        if name == "ward":
            (root / "ward").rename(root / "kept")
            (root / "ward").symlink_to(away)
        if name == "south.csv":
            (root / "south.csv").unlink()
            (root / "south.csv").symlink_to(root.parent / "outside.csv")
        return found

    (root / "south.csv").write_text("records")
    monkeypatch.setattr("cloister.core.inside.os.stat", then_swap)
    assert refusal(root, "south.csv").code == "input.unreadable"
    assert refusal(root, "ward/north.csv").code == "input.missing_file"


def test_a_folder_that_is_swapped_for_a_link_meanwhile_never_leads_out(root: Path) -> None:
    """Another process swaps the folder on the way, back and forth, while it is read again and again."""
    away = root.parent / "away"
    away.mkdir()
    (away / "north.csv").write_text("secret!")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "ward").rename(root / "kept")
            (root / "ward").symlink_to(away)
            (root / "ward").unlink()
            (root / "kept").rename(root / "ward")
            time.sleep(0.0002)

    thread = threading.Thread(target=swap)
    thread.start()
    read, refused = 0, 0
    try:
        for _ in range(3000):
            try:
                assert read_inside(root, "ward/north.csv", 100) == b"records"
                read += 1
            except InputError:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert read > 0


def test_a_file_that_is_swapped_for_a_link_meanwhile_is_never_read(root: Path) -> None:
    stop = threading.Event()
    path = root / "ward" / "north.csv"

    def swap() -> None:
        while not stop.is_set():
            (root / "ward" / "next").symlink_to(root.parent / "outside.csv")
            (root / "ward" / "next").rename(path)
            (root / "ward" / "next").write_text("records")
            (root / "ward" / "next").rename(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(3000):
            try:
                assert read_inside(root, "ward/north.csv", 100) in (b"records", b"")
            except InputError:
                continue
    finally:
        stop.set()
        thread.join()


def test_descriptors_are_closed_whatever_happens(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        for relative in ("ward/north.csv", "../x", "ward/absent", "absent/x", "ward"):
            try:
                os.close(open_inside(root, relative))
            except InputError:
                continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.text(alphabet=st.sampled_from("./\\\0ab~"), max_size=12))
def test_no_spelling_leaves_the_root(relative: str) -> None:
    root = Path(__file__).parent
    try:
        descriptor = open_inside(root, relative)
    except InputError:
        return
    found = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    os.close(descriptor)
    assert found.startswith(str(root.resolve()))
