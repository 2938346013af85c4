"""A worker that root starts gets a user number of its own, wherever that root is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.enclave.sealed.users import FIRST_IN_CONTAINER, FIRST_UID, worker_user


def maps(folder: Path, users: str, groups: str) -> tuple[Path, Path]:
    (folder / "uid_map").write_text(users)
    (folder / "gid_map").write_text(groups)
    return folder / "uid_map", folder / "gid_map"


@pytest.mark.parametrize(
    ("users", "groups", "first"),
    [
        ("         0          0 4294967295\n", "0 0 4294967295\n", FIRST_UID),
        ("0 100000 65536\n", "0 100000 65536\n", FIRST_IN_CONTAINER),
        ("0 1000 1\n1 100000 65536\n", "0 1000 1\n1 100000 65536\n", FIRST_IN_CONTAINER),
        ("0 0 4294967295\n", "0 100000 65536\n", FIRST_IN_CONTAINER),
        ("0 1000 1\n", "0 1000 1\n", FIRST_UID),
        ("0 1000\n", "garbage\n", FIRST_UID),
    ],
)
def test_a_workers_user_is_one_that_exists_here_where_one_can(
    tmp_path: Path, users: str, groups: str, first: int
) -> None:
    given = maps(tmp_path, users, groups)
    assert worker_user(1, given) == first + 1
    assert worker_user(2, given) == first + 2


def test_many_workers_in_a_container_stay_among_the_users_that_exist(tmp_path: Path) -> None:
    given = maps(tmp_path, "0 100000 65536\n", "0 100000 65536\n")
    assert all(FIRST_IN_CONTAINER <= worker_user(one, given) < 50000 for one in range(1, 100000, 777))


AS_ROOT_OF_A_CONTAINER = """
import ctypes, os
from cloister.enclave.sealed.users import worker_user
unshared, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    refused = ctypes.CDLL(None).unshare(0x10000000)
    os.write(unshared[1], b"n" if refused else b"y")
    os.read(mapped[0], 1)
    uid = worker_user(1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    print(os.getuid(), flush=True)
    os._exit(0)
if os.read(unshared[0], 1) == b"n":
    print("refused", flush=True)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 0 65536")
os.write(mapped[1], b"y")
os.waitpid(child, 0)
"""


def test_a_root_that_has_65536_users_can_become_a_workers() -> None:
    if os.getuid() != 0:
        pytest.skip("only root may map users")
    ended = subprocess.run(
        [sys.executable, "-c", AS_ROOT_OF_A_CONTAINER],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "refused" in ended.stdout:
        pytest.skip("this kernel gives no user namespace")
    assert ended.stdout == f"{FIRST_IN_CONTAINER + 1}\n"
