"""The hostile server where namespaces and mounts are refused, as in a container with its default rules."""

from __future__ import annotations

import errno

import pyseccomp

from cloister.enclave.sealed import server
from tests.enclave.sealed import hostile_server, light_server

if __name__ == "__main__":
    assert hostile_server.ATTACKS
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for call in ("unshare", "mount"):
        rules.add_rule(pyseccomp.ERRNO(errno.EPERM), call)
    rules.load()
    server.warm_up = light_server.keys_warmed  # type: ignore[attr-defined]
    server.main()
