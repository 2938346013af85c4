"""Writers that are killed: run as a program, it starts one again and again and kills it while it writes.

    python -m tests.evidence.log.kills PLACE ROUNDS SEED

It is a process of its own, so that what it forks holds nothing of the tests' process. It ends with 0 and
one line of JSON if, after every kill, each acknowledged entry was there and the tree led to the signed head.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.log import EvidenceLog
from tests.evidence.log.places import ORIGIN, Place, drop_logs, item

WRITERS = 4
ROUNDS_A_LOG = 10


def write(place: Place, signer: Signer, answers: int) -> None:
    """Append from several threads for ever; each acknowledgement is a line."""
    log = EvidenceLog.open(place, origin=ORIGIN, signer=signer)

    def work(stream: str) -> None:
        position = log.length(stream)
        while True:
            one = item(signer, position, stream=stream)
            entry = log.append(one.envelope, stream=stream, position=position)
            os.write(answers, f"{stream} {position} {entry.index}\n".encode())
            position += 1

    for number in range(WRITERS):
        threading.Thread(target=work, args=(f"writer-{number}",)).start()


def killed_writer(place: Place, signer: Signer, seconds: float) -> list[tuple[str, int, int]]:
    """Start a writer, kill it some time after its first answer, and return what it was told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        write(place, signer, writing)
        signal.pause()
    os.close(writing)
    data = os.read(reading, 4096)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as rest:
        data += rest.read()
    lines = [line.split() for line in data.decode().splitlines()]
    return [(stream, int(position), int(index)) for stream, position, index in lines]


def main(place: Place, rounds: int, seed: int) -> dict[str, int]:
    """Kill a writer so many times; every few rounds a new log is begun."""
    draw = random.Random(seed)
    signer = EphemeralKeyStore().generate("killed")
    told: dict[int, tuple[str, int]] = {}
    acknowledged = entries = 0
    for number in range(rounds):
        if number % ROUNDS_A_LOG == 0:
            told.clear()
            if isinstance(place, Path):
                for old in place.parent.glob(f"{place.name}*"):
                    old.unlink()
            else:
                drop_logs(place)
            EvidenceLog.create(place, origin=ORIGIN, signer=signer).close()
        for stream, position, index in killed_writer(place, signer, draw.uniform(0, 0.03)):
            assert index not in told, "one index was given twice"
            told[index] = stream, position
        with EvidenceLog.open(place, origin=ORIGIN, signer=signer) as log:
            head = log.verify()
            found = {one.index: (one.stream, one.position) for one in log.entries()}
            missing = [index for index, where in told.items() if found.get(index) != where]
            assert not missing, f"acknowledged and gone: {missing}"
            for one in log.entries():
                assert one.envelope.payload == b"%d" % one.position
        if number % ROUNDS_A_LOG == ROUNDS_A_LOG - 1 or number == rounds - 1:
            acknowledged += len(told)
            entries += head.size
    return {"kills": rounds, "acknowledged": acknowledged, "entries": entries}


if __name__ == "__main__":
    where = sys.argv[1]
    print(json.dumps(main(where if "://" in where else Path(where), int(sys.argv[2]), int(sys.argv[3]))))
