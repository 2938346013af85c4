"""The hostile server on a kernel like those before 6.11: whoever receives where no call is held back waits.

The first notification of all vanishes between poll and receive, as it does where a signal comes in between.
"""

from __future__ import annotations

import select
import time

from cloister.enclave.sealed import kernel, server
from tests.enclave.sealed import hostile_server, light_server

_really = kernel.receive_notification
_vanished: list[bool] = []


def receive(listener: int) -> bytes | None:
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    if not any(events & select.POLLIN for _, events in poller.poll(0)):
        time.sleep(3600)
    if not _vanished:
        _vanished.append(True)
        return None
    return _really(listener)


if __name__ == "__main__":
    assert hostile_server.ATTACKS
    kernel.receive_notification = receive
    server.warm_up = light_server.keys_warmed  # type: ignore[attr-defined]
    server.main()
