"""Run by a test: threads append while real signals interrupt the main thread, which appends as well.

Exits with 1 where a thread gets no answer any more, or an error, or an answer was not the log's. Where nobody
is answered it says first where every thread stands.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from pathlib import Path

from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.envelope import sign_envelope
from cloister.evidence.log import EvidenceLog

QUIET_SECONDS = 8.0


def main(path: Path, seconds: float) -> int:
    """Append from four threads until the time is up, and compare what was answered with what is there."""
    signer = EphemeralKeyStore().generate("site")
    envelope = sign_envelope("text/plain", b"entry", signer)
    log = EvidenceLog.create(path, origin="cloister/site/north", signer=signer)
    answered = {f"s{number}": 0 for number in range(4)}
    over = threading.Event()

    def work(stream: str) -> None:
        while not over.is_set():
            log.append(envelope, stream=stream, position=answered[stream])
            answered[stream] += 1

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in answered if name != "s0"]
    for one in threads:
        one.start()
    threading.Thread(target=shoot, args=(over,), daemon=True).start()
    threading.Thread(target=watch, args=(answered, over), daemon=True).start()
    armed, interrupted = False, 0

    def strike(*_: object) -> None:
        nonlocal armed, interrupted
        if armed:
            armed, interrupted = False, interrupted + 1
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, strike)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            armed = True
            log.append(envelope, stream="s0", position=answered["s0"])
            armed = False
            answered["s0"] += 1
        except KeyboardInterrupt:
            # What the interrupt cut off may be there, and then it is there for good: nothing comes later.
            answered["s0"] = log.length("s0")
    armed = False
    stopped = [one.name for one in threads if not one.is_alive()]
    over.set()
    for one in threads:
        one.join(QUIET_SECONDS)
    wrong = {name: count for name, count in answered.items() if log.length(name) != count}
    print(f"interrupted {interrupted} times, {log.verify().size} entries, wrong: {wrong}, stopped: {stopped}")
    return 1 if wrong or stopped or not interrupted or any(one.is_alive() for one in threads) else 0


def shoot(over: threading.Event) -> None:
    while not over.wait(0.02):
        os.kill(os.getpid(), signal.SIGINT)


def watch(answered: dict[str, int], over: threading.Event) -> None:
    """End the process where nobody is answered any more."""
    before, since = -1, time.monotonic()
    while not over.wait(0.2):
        if sum(answered.values()) != before:
            before, since = sum(answered.values()), time.monotonic()
        elif time.monotonic() - since > QUIET_SECONDS:
            print(f"nobody was answered for {QUIET_SECONDS} s: {answered}", flush=True)
            faulthandler.dump_traceback()
            os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
