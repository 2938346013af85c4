"""The real fork server with one task more, which does what it is asked to: attack."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from cloister.core.canonical import JSON
from cloister.core.errors import CloisterError
from cloister.enclave.keyrelease import EnclaveKey
from cloister.enclave.sealed import server
from cloister.enclave.sealed.task import Answer, Payload
from cloister.enclave.sealed.tasks import register_task

_LIBC = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int) -> None:
    if _LIBC.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _thread() -> None:
    one = threading.Thread(target=int)
    one.start()
    one.join()


def _spin() -> None:
    while True:
        pass


def _open_for_reading() -> None:
    for path in ("/etc/passwd", "/proc/self/mem", f"/proc/{os.getppid()}/mem", "/dev/mem"):
        try:
            os.close(os.open(path, os.O_RDONLY))
        except FileNotFoundError:
            continue
        raise AssertionError("a file could be read")


ATTACKS: dict[str, Callable[[], object]] = {
    "connect": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "socket-unix": lambda: socket.socket(socket.AF_UNIX),
    "socket-netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "socket-raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "write-file": lambda: os.open("/tmp/out", os.O_WRONLY | os.O_CREAT, 0o600),
    "append-file": lambda: os.open("/etc/passwd", os.O_WRONLY | os.O_APPEND),
    "temporary-file": lambda: os.open("/", os.O_RDWR | 0o20000000, 0o600),
    "mkdir": lambda: Path("/x").mkdir(),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "fork": os.fork,
    "thread": _thread,
    "ptrace": lambda: _syscall(101, 16, 1, 0, 0),
    "process_vm_readv": lambda: _syscall(310, 1, 0, 0, 0, 0, 0),
    "pidfd_open": lambda: os.pidfd_open(1),
    "kill-another": lambda: os.kill(2, 9),
    "io_uring": lambda: _syscall(425, 8, 0),
    "mount": lambda: _syscall(165, 0, 0, 0, 0, 0),
    "chroot": lambda: os.chroot("/"),
    "unshare": lambda: _syscall(272, 0x10000000),
    "keyctl": lambda: _syscall(250, 0, -3, 1),
    "bpf": lambda: _syscall(321, 0, 0, 0),
    "userfaultfd": lambda: _syscall(323, 0),
    "memfd_create": lambda: os.memfd_create("x"),
    "shmget": lambda: _syscall(29, 0, 4096, 0o1600),
    "make-dumpable": lambda: _LIBC.prctl(4, 1, 0, 0, 0),
    "perf_event_open": lambda: _syscall(298, 0, 0, 0, 0, 0),
    "open-for-reading": _open_for_reading,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "spin": _spin,
    "allocate": lambda: bytearray(64 * 1024**3),
    "allocate-tensor": lambda: sys.modules["torch"].ones(16 * 1024**3),
    "raise-limit": lambda: __import__("resource").setrlimit(7, (4096, 4096)),
    "secret-in-an-error": lambda: (_ for _ in ()).throw(ValueError("canary-in-an-error")),
    "print": lambda: (print("canary-in-a-print", flush=True), print("canary-on-stderr", file=sys.stderr)),
}


def _drawn() -> dict[str, JSON]:
    import random

    import numpy as np
    import torch

    from cloister.privacy.randomness import OsRandom
    from cloister.privacy.sampling import PoissonSampler

    sample = PoissonSampler(10_000, 0.01, OsRandom("site", "job", "sampling")).sample()
    return {
        "noise": OsRandom("site", "job", "noise").words(4).tobytes().hex(),
        "sample": [int(one) for one in sample[:20]],
        "torch": torch.rand(4, dtype=torch.float64).tolist(),
        "numpy": np.random.rand(4).tolist(),
        "python": random.random(),
        "urandom": os.urandom(8).hex(),
    }


class _NamedError(CloisterError):
    """An error with any code at all."""

    def __init__(self, code: str) -> None:
        Exception.__init__(self, code)
        self.code = code


class HostileTask:
    """Attacks, floods, or tells what it drew."""

    def __init__(self, key: EnclaveKey) -> None:
        self._key = key.public_bytes.hex()
        self._ends = True

    def handle(
        self, kind: str, fields: dict[str, JSON], payload: Payload, aborted: Callable[[], bool]
    ) -> Answer:
        payload.drop()
        match kind:
            case "attack":
                ATTACKS[str(fields["name"])]()
                return Answer({"survived": True})
            case "raw":
                os.write(1, bytes.fromhex(str(fields["bytes"])))
                return Answer()
            case "call":
                arguments = [int(str(one), 16) for one in list(fields["arguments"])]  # type: ignore[arg-type]
                _LIBC.syscall(*(ctypes.c_ulong(one) for one in arguments))
                return Answer({"survived": True})
            case "answer-then-attack":
                os.write(1, bytes.fromhex(str(fields["bytes"])))
                ATTACKS[str(fields["name"])]()
            case "never-end":
                self._ends = False
            case "fail-with":
                raise _NamedError(str(fields["code"]))
            case "draw":
                return Answer({"key": self._key, **_drawn()})
            case "echo":
                return Answer({}, bytes(int(str(fields["size"]))))
        return Answer()

    def wipe(self) -> tuple[int, int]:
        if not self._ends:
            _spin()
        return 0, 0


register_task("hostile", HostileTask)

if __name__ == "__main__":
    server.main()
