"""The hostile server without anything that trains: starts in a moment."""

from __future__ import annotations

from cloister.enclave.keyrelease.hpke import EnclaveKey
from cloister.enclave.sealed import server
from tests.enclave.sealed import hostile_server


def keys_warmed() -> tuple[str, ...]:
    """Every worker makes a key pair, whatever its task."""
    EnclaveKey()
    return ()


if __name__ == "__main__":
    assert hostile_server.ATTACKS
    server.warm_up = keys_warmed  # type: ignore[attr-defined]
    server.main()
