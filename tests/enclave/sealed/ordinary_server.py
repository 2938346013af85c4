"""The hostile server as an ordinary user's: imports everything as whoever started it, then becomes nobody."""

from __future__ import annotations

import os

from cloister.enclave.sealed import kernel, server
from cloister.enclave.sealed.warm import warm_up
from tests.enclave.sealed import hostile_server

NOBODY = 65534

if __name__ == "__main__":
    assert hostile_server.ATTACKS
    warmed = warm_up()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
    server.warm_up = lambda: warmed  # type: ignore[attr-defined]
    server.main()
