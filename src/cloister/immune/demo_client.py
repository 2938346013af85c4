"""The people who send the demo's requests: a process of its own, as clients are.

Inside the service's process they would share its interpreter, and what the service's function takes would be
theirs as well. `Client` starts the process; it gets batches of requests as JSON lines on its standard input,
sends them over HTTP, one after the other on one connection, and writes the answers of each batch as a line.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TextIO

from cloister.core.closing import Closing
from cloister.immune.errors import ImmuneError

_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got.

    Attributes:
        status: of HTTP.
        records: how many records came back.
        reason: why it was blocked; empty where it wasn't.
        event: id of the block in the audit; empty where there is none.
    """

    status: int
    records: int
    reason: str = ""
    event: str = ""


class Client(Closing):
    """Asks the service from another process; use it in a ``with`` block.

    Args:
        port: of the service, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this module, by this interpreter
            [sys.executable, "-P", "-m", __name__, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, batch: Sequence[Sequence[int]]) -> list[Answer]:
        """Send requests.

        Args:
            batch: the ids that each request asks for.

        Returns:
            What each got.

        Raises:
            ImmuneError: ``immune.demo_failed``: the other process has ended.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(json.dumps([list(ids) for ids in batch]), file=process.stdin, flush=True)
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ImmuneError("immune.demo_failed", "The process that sends the demo's requests has ended.")
        return [Answer(*one) for one in json.loads(line)]

    def close(self) -> None:
        """End the process."""
        with self._process as process:
            if process.stdin is not None:
                process.stdin.close()


def send(port: int, batches: TextIO, answers: TextIO) -> None:
    """Send batches until there are no more.

    Args:
        port: of the service, on this machine.
        batches: a JSON line for each.
        answers: where a line for each goes.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    for line in batches:
        print(json.dumps([_asked(connection, ids) for ids in json.loads(line)]), file=answers, flush=True)
    connection.close()


def _asked(connection: HTTPConnection, ids: list[int]) -> tuple[int, int, str, str]:
    query = "&".join(f"id={one}" for one in ids)
    connection.request("GET", f"/records?{query}")
    answer = connection.getresponse()
    said = json.loads(answer.read())
    if isinstance(said, list):
        return answer.status, len(said), "", ""
    return answer.status, 0, str(said.get("blocked", "")), str(said.get("event", ""))


if __name__ == "__main__":
    # Ctrl-C is for the process that started this one; its end ends the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    send(int(sys.argv[1]), sys.stdin, sys.stdout)
