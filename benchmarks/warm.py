"""Runs one job several times in this process and prints the seconds each took as a line of JSON.

The first run, which still loads libraries, is not printed. Each has a workspace of its own, so that none
finds another's budget spent. Everything counts: keys, manifests, attestation, training, evidence,
verification of the receipt, report.

Use: python warm.py JOB FOLDER RUNS
"""

import json
import sys
import time
from pathlib import Path

from cloister.cli.progress import silent
from cloister.workflow.jobfile import load_job
from cloister.workflow.run import run_job
from cloister.workflow.workspace import open_workspace


def main(job: Path, folder: Path, runs: int) -> None:
    """Runs the job once to warm up, then as often as asked."""
    whole, training = [], []
    for number in range(runs + 1):
        started = time.perf_counter()
        spec = load_job(job)
        with open_workspace(folder / str(number)) as workspace:
            outcome = run_job(spec, workspace, data_dir=None, test_seed=None, watch=silent)
        whole.append(time.perf_counter() - started)
        training.append(outcome.training_seconds)
        if not outcome.accepted:
            sys.exit("the job was not accepted")
    print(json.dumps({"whole": whole[1:], "training": training[1:]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
