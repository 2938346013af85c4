"""How a fork server comes to be: our own interpreter, started anew, with an environment of its own.

So nothing of the node's memory is in the server or in a worker that is forked from it, and nothing of the
node's environment says how either of them runs.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from typing import Final

from cloister.enclave.sealed.bytecode import own_byte_code
from cloister.enclave.sealed.ends import unavailable
from cloister.enclave.sealed.warm import THREAD_VARIABLES

_SERVER: Final = "cloister.enclave.sealed.server"


def launch_server(send_seconds: float) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a fork server, which isn't warm yet.

    Args:
        send_seconds: how long a request to it may wait, in whole seconds.

    Returns:
        The server's process, and our end of the socket on which it takes requests and tells events.

    Raises:
        SealedError: ``sealed.unavailable``.
    """
    if sys.platform != "linux":
        raise unavailable("sealed workers need Linux")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Of requests alone: a server that takes none is not waited for. Events are awaited without an end.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(send_seconds), 0))
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, *own_byte_code().options, "-m", _SERVER, str(theirs.fileno())],
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    return process, ours


def _environment() -> dict[str, str]:
    """All that the server knows of its surroundings.

    All objects live in the C library's heap: that overwrites what is freed (``MALLOC_PERTURB_``), and lies in
    huge pages where the kernel has them, so that a fork and an end copy and give back a few hundred page
    table entries instead of a hundred thousand.
    """
    return {
        "LANG": "C.UTF-8",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": os.pathsep.join(one for one in sys.path if one.startswith("/")),
        "PYTHONMALLOC": "malloc",
        "MALLOC_PERTURB_": "165",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        **dict.fromkeys(THREAD_VARIABLES, "1"),
    }
