"""The hostile server with room for a few descriptors."""

from __future__ import annotations

import resource

from cloister.enclave.sealed import server
from tests.enclave.sealed import hostile_server, light_server

MOST = 72

if __name__ == "__main__":
    assert hostile_server.ATTACKS
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST, MOST))
    server.warm_up = light_server.keys_warmed  # type: ignore[attr-defined]
    server.main()
