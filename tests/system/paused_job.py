"""A job in a process of its own that waits after its first round, so that its memory can be looked at."""

from __future__ import annotations

import sys
from pathlib import Path

from cloister.federation.events import RoundFinished
from cloister.workflow.jobfile import load_job
from cloister.workflow.run import run_job
from cloister.workflow.workspace import open_workspace


def main(job: Path, tables: Path, work: Path) -> None:
    """Run it, saying ``looking`` after the first round and going on when a line comes."""

    def watch(event: object) -> None:
        if isinstance(event, RoundFinished) and event.round == 0:
            print("looking", flush=True)
            sys.stdin.readline()

    with open_workspace(work) as workspace:
        outcome = run_job(load_job(job, data_dir=tables), workspace, watch=watch, data_dir=tables)
    print("accepted" if outcome.verdict.accepted else "refused", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
