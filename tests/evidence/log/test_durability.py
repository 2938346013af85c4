"""What was acknowledged is there: after kills, on a full disk, from many processes. What was cut is not."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.core.errors import StorageError
from cloister.core.keys import FileKeyStore, Signer
from cloister.evidence.errors import LogError
from cloister.evidence.log import EvidenceLog
from tests.conftest import ROOT
from tests.evidence.log.places import ORIGIN, Place, fill, item
from tests.nightly import nightly_seed, spread

PARTS = 5
"""In parts, so that each fits into its share of a night."""


def run(module: str, *arguments: object, timeout: float = 300) -> dict[str, int]:
    ended = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        timeout=timeout,
        check=False,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, int] = json.loads(ended.stdout)
    return found


def test_each_acknowledged_entry_survives_kills(place: Place) -> None:
    found = run("tests.evidence.log.kills", place, 15 if isinstance(place, Path) else 5, 1)
    assert found["acknowledged"] > 0


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_each_acknowledged_entry_survives_five_hundred_kills(
    place: Place, part: int, record_property: Callable[[str, object], None]
) -> None:
    for number in spread(range(part, 50, PARTS), record_property):
        assert run("tests.evidence.log.kills", place, 10, 100 * nightly_seed() + number)["kills"] == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a mebibyte."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    folder = tmp_path / "small"
    folder.mkdir()
    command = [str(mount), "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if mount is None or umount is None or os.geteuid() or subprocess.run(command, check=False).returncode:
        pytest.skip("a small file system can't be mounted here")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


def fill_up(log: EvidenceLog, signer: Signer) -> tuple[int, StorageError]:
    """Append until it fails: how many were acknowledged, and the error."""
    told = 0
    while True:
        try:
            log.append_many([item(signer, told)])
        except StorageError as error:
            return told, error
        told += 1


def test_on_a_full_disk_nothing_is_acknowledged_and_nothing_is_half_there(
    small_disk: Path, signer: Signer
) -> None:
    path = small_disk / "log.sqlite"
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        told, error = fill_up(log, signer)
        assert error.code == "storage.no_space"
        assert log.size == told > 10
        with pytest.raises(StorageError):
            log.append_many([item(signer, told)])
        assert log.verify().size == told
    with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        assert log.verify().size == told


def test_a_limit_on_files_is_a_full_disk_and_lifting_it_goes_on(path: Path, signer: Signer) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
        try:
            told, _ = fill_up(log, signer)
            assert log.verify().size == told > 3
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        fill(log, signer, 3, start=told)
        assert log.verify().size == told + 3


def test_writers_of_several_processes_build_one_tree(place: Place, tmp_path: Path) -> None:
    signer = FileKeyStore(tmp_path / "keys").generate("shared")
    EvidenceLog.create(place, origin=ORIGIN, signer=signer).close()
    program = (
        "import sys, threading; from pathlib import Path\n"
        "from cloister.core.keys import FileKeyStore\n"
        "from cloister.evidence.log import EvidenceLog\n"
        "from tests.evidence.log.places import ORIGIN, item\n"
        "place, keys, name = sys.argv[1:]\n"
        "signer = FileKeyStore(Path(keys)).load('shared')\n"
        "log = EvidenceLog.open(place if '://' in place else Path(place), origin=ORIGIN, signer=signer)\n"
        "def work(stream):\n"
        "    for n in range(25): log.append_many([item(signer, n, stream=stream)])\n"
        "threads = [threading.Thread(target=work, args=(f'{name}-{n}',)) for n in range(3)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(place), str(tmp_path / "keys"), str(number)], cwd=ROOT
        )
        for number in range(3)
    ]
    assert [one.wait(100) for one in running] == [0, 0, 0]
    with EvidenceLog.open(place, origin=ORIGIN, signer=signer) as log:
        assert log.verify().size == 225
        assert {log.length(f"{one}-{two}") for one in range(3) for two in range(3)} == {25}


@pytest.fixture
def whole(path: Path, signer: Signer) -> tuple[bytes, bytes]:
    """The bytes of a closed log of 40 entries, and its root."""
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        log.append_many([item(signer, number) for number in range(40)])
        root = log.checkpoint().root
    return path.read_bytes(), root


def require_refused(path: Path, data: bytes, signer: Signer) -> None:
    path.write_bytes(data)
    with pytest.raises((LogError, StorageError)), EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        log.verify()


def test_a_log_cut_anywhere_is_refused(path: Path, signer: Signer, whole: tuple[bytes, bytes]) -> None:
    data, root = whole
    lengths = sorted(
        {0, 1, 99, 100, 4095, 4096, len(data) - 1, *random.Random(5).sample(range(len(data)), 30)}
    )
    for length in lengths:
        require_refused(path, data[:length], signer)
    path.write_bytes(data)
    with EvidenceLog.open(path, origin=ORIGIN, signer=signer) as log:
        assert log.verify().root == root


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_log_cut_at_every_length_is_refused(
    path: Path,
    signer: Signer,
    whole: tuple[bytes, bytes],
    part: int,
    record_property: Callable[[str, object], None],
) -> None:
    data, _ = whole
    for length in spread(range(part, len(data), PARTS), record_property):
        require_refused(path, data[:length], signer)


def test_a_write_ahead_log_cut_anywhere_gives_an_older_log_or_a_refusal(
    path: Path, tmp_path: Path, signer: Signer
) -> None:
    with EvidenceLog.create(path, origin=ORIGIN, signer=signer) as log:
        fill(log, signer, 8)
        roots = [log.root_at(size) for size in range(9)]
        main, ahead = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    sizes = set()
    for length in random.Random(6).sample(range(len(ahead)), 40):
        cut = tmp_path / "cut.sqlite"
        for leftover in tmp_path.glob("cut.sqlite*"):
            leftover.unlink()
        cut.write_bytes(main)
        Path(f"{cut}-wal").write_bytes(ahead[:length])
        try:
            with EvidenceLog.open(cut, origin=ORIGIN, signer=signer) as log:
                head = log.verify()
        except (LogError, StorageError):
            continue
        sizes.add(head.size)
        assert head.root == roots[head.size]
    assert len(sizes) > 3
