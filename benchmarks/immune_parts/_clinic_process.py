"""One process of the section `handler`: the clinic's service under one sampling, measured, attacked, served.

Only one protection is on in a process, so each figure has a process of its own. Figures go to standard
output, as JSON.

Use: python -m immune_parts._clinic_process overhead SAMPLING SHARE REQUESTS_A_SECOND
     ... attacks|attacks-nothing-to-spare SAMPLING SHARE SEED, or ... serve SAMPLING SHARE 0
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from cloister.immune.protection import Protection
from immune_parts._clinic import application
from immune_parts._clinic_attacked import attacks
from immune_parts._clinic_overhead import BARE, overhead
from immune_parts._clinic_watched import Clock, OwnClock, RealTime, clinic_folder, ours, settings_of

CLOCKS: dict[str, Callable[[], Clock]] = {"attacks": RealTime, "attacks-nothing-to-spare": OwnClock}


def serve(sampling: str) -> None:
    """Serve the clinic over HTTP on a free port, which is printed, until the process is ended."""
    with clinic_folder() as folder:
        if sampling == BARE:
            _serve(application(folder, lambda _name, function: function))
            return
        with Protection(settings_of(sampling, folder)).start():
            _serve(application(folder, ours))


def _serve(app: Any) -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
    # With its protocol named: asyncio then has what is sent go at once.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        print(listening.getsockname()[1], flush=True)
        server.run([listening])


def main() -> None:
    """Do one, and print its figures."""
    what, sampling, share, number = sys.argv[1:]
    if what == "serve":
        serve(sampling)
    elif what in CLOCKS:
        json.dump(attacks(sampling, float(share), CLOCKS[what](), int(number)), sys.stdout)
    else:
        json.dump(overhead(sampling, float(share), float(number)), sys.stdout)


if __name__ == "__main__":
    main()
