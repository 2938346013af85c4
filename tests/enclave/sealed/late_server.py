"""The hostile server, to which every forbidden call comes between its poll and what it does next."""

from __future__ import annotations

from cloister.enclave.sealed import server
from cloister.enclave.sealed.control import WorkerSealed
from cloister.enclave.sealed.supervision import Supervised
from tests.enclave.sealed import hostile_server, light_server

_really = Supervised.look_at


def look_at(self: Supervised, descriptor: int, events: int) -> WorkerSealed | None:
    return None if descriptor == self._listener else _really(self, descriptor, events)


if __name__ == "__main__":
    assert hostile_server.ATTACKS
    Supervised.look_at = look_at  # type: ignore[method-assign]
    server.warm_up = light_server.keys_warmed  # type: ignore[attr-defined]
    server.main()
