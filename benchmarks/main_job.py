"""Our main job against the same job written for NVFlare's own simulator with Opacus, in one sitting.

Same records at the same sites, model, rounds, steps, sampling rate, clipping, target epsilon and delta.
The peer gets arrays that are ready to train on and a noise multiplier computed beforehand, asks for epsilon
once, and signs, attests, filters and proves nothing; ours does all of that inside its time.

cold: a fresh interpreter from start to exit. warm: ours as a further run in one process; the peer without
its caller's imports (its simulator starts new processes for every run, so it has no warmer state).

Use: python benchmarks/main_job.py [--runs 3] [--write]     (--write puts the figures into README.md here)
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from opacus.accountants.utils import get_noise_multiplier

from cloister.health import FederatedData, load_source
from cloister.workflow.jobfile import JobFile, load_job
from process_tree import DidNotFinishError, Finished, run, weigh

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT / "examples" / "tumour" / "job.yaml"
README = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
LIMIT_S = 180.0
TRIES = 4
HIDDEN_UNITS = {"logistic-regression": 0, "mlp": 32}
TARGET_COLD, TARGET_WARM, TARGET_MIB = 4.0, 20.0, 1024


@dataclass(frozen=True)
class Side:
    """One side's measurements.

    Attributes:
        cold: seconds from a fresh interpreter, one per run.
        warm: seconds of a run without start-up, one per run.
        peak_mib: highest summed PSS.
        processes: most processes at once.
        accuracy: on the public test set, of the last run.
        unfinished: runs that hung or failed and were repeated.
    """

    cold: tuple[float, ...]
    warm: tuple[float, ...]
    peak_mib: float
    processes: int
    accuracy: float
    unfinished: int


def environment() -> dict[str, str]:
    """Bytecode is allowed, so that neither side compiles libraries at every start."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks" / "peer")])}


def with_retries(attempt: Callable[[], Finished]) -> tuple[Finished, int]:
    """Repeats a run that did not finish, and counts how often."""
    for unfinished in range(TRIES):
        try:
            return attempt(), unfinished
        except DidNotFinishError as error:
            print(f"  did not finish, again: {str(error)[:200]}", flush=True)
    sys.exit(f"gave up after {TRIES} tries")


def prepare_peer(folder: Path, file: JobFile, data: FederatedData) -> None:
    """Writes what the peer's job reads: the sites' arrays and the settings of our job file."""
    for name, site in data.sites.items():
        np.savez(folder / f"{name}.npz", features=site.features, labels=site.labels)
    steps = file.federation.rounds * file.training.local_steps
    noise_multiplier = file.privacy.noise_multiplier or get_noise_multiplier(
        target_epsilon=file.privacy.target_epsilon,
        target_delta=file.privacy.delta,
        sample_rate=file.training.sampling_probability,
        steps=steps,
        accountant="rdp",
    )
    settings = {
        "sites": sorted(data.sites),
        "rounds": file.federation.rounds,
        "inputs": int(data.test.features.shape[1]),
        "hidden": HIDDEN_UNITS[file.model.architecture],
        "sampling_probability": file.training.sampling_probability,
        "local_steps": file.training.local_steps,
        "learning_rate": file.training.learning_rate,
        "max_grad_norm": file.privacy.max_grad_norm,
        "noise_multiplier": noise_multiplier,
        "delta": file.privacy.delta,
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def peer_accuracy(model: Path, data: FederatedData, file: JobFile) -> float:
    """Scores the peer's global model, which also shows that its rounds were aggregated."""
    sys.path.insert(0, str(ROOT / "benchmarks" / "peer"))
    from model import Network

    network = Network(data.test.features.shape[1], HIDDEN_UNITS[file.model.architecture])
    network.load_state_dict(torch.load(model, weights_only=True)["model"])
    with torch.no_grad():
        predicted = network(torch.from_numpy(data.test.features.copy())).argmax(dim=1).numpy()
    return float((predicted == data.test.labels).mean())


def measure_peer(folder: Path, file: JobFile, data: FederatedData, runs: int) -> Side:
    """Runs the peer's job: the runs asked for on the clock, one more on the scales."""
    prepare_peer(folder, file, data)
    command = [sys.executable, str(ROOT / "benchmarks" / "peer" / "job.py"), str(folder)]
    cold, warm, unfinished, model = [], [], 0, ""
    for number in range(runs):
        done, failures = with_retries(lambda: run(command, environment(), LIMIT_S))
        unfinished += failures
        said = json.loads(done.output.strip().splitlines()[-1])
        cold.append(done.seconds)
        warm.append(said["seconds"])
        model = said["model"]
        print(f"  peer {number + 1}: cold {done.seconds:.1f} s, warm {said['seconds']:.1f} s", flush=True)
    accuracy = peer_accuracy(Path(model), data, file)
    weighed, failures = with_retries(lambda: weigh(command, environment(), LIMIT_S))
    return Side(
        tuple(cold),
        tuple(warm),
        weighed.peak_mib or 0.0,
        weighed.processes or 0,
        accuracy,
        unfinished + failures,
    )


def measure_ours(folder: Path, job: Path, runs: int) -> tuple[Side, tuple[float, ...]]:
    """Runs our job through the command line for cold and memory, in one process for warm.

    Returns:
        The measurements, and the seconds of the federated rounds alone within the warm runs.
    """

    def command(name: str) -> list[str]:
        options = ["--workspace", str(folder / name), "--json"]
        return [sys.executable, "-m", "cloister.cli.main", "run", str(job), *options]

    cold, accuracy, unfinished = [], 0.0, 0
    for number in range(runs):
        done, failures = with_retries(
            lambda: run(command(f"cold-{time.monotonic_ns()}"), environment(), LIMIT_S)
        )
        unfinished += failures
        cold.append(done.seconds)
        accuracy = json.loads(done.output)["performance"]["value"]
        print(f"  ours {number + 1}: cold {done.seconds:.1f} s", flush=True)
    arguments = [str(ROOT / "benchmarks" / "warm.py"), str(job), str(folder / "warm"), str(max(5, runs))]
    several, failures = with_retries(lambda: run([sys.executable, *arguments], environment(), LIMIT_S))
    seconds = json.loads(several.output.strip().splitlines()[-1])
    weighed, more = with_retries(lambda: weigh(command("weighed"), environment(), LIMIT_S))
    ours = Side(
        tuple(cold),
        tuple(seconds["whole"]),
        weighed.peak_mib or 0.0,
        weighed.processes or 0,
        accuracy,
        unfinished + failures + more,
    )
    return ours, tuple(seconds["training"])


def spread(seconds: Sequence[float]) -> str:
    """Median with the smallest and the largest."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def table(ours: Side, training: Sequence[float], peer: Side, file: JobFile) -> str:
    """The figures as Markdown."""
    cold = statistics.median(peer.cold) / statistics.median(ours.cold)
    warm = statistics.median(peer.warm) / statistics.median(ours.warm)
    cpus = len(os.sched_getaffinity(0))
    return "\n".join(
        [
            f"{len(file.data.sites)} sites, {file.federation.rounds} rounds, {file.model.architecture}, "
            f"epsilon {file.privacy.target_epsilon:g}. Python {platform.python_version()}, {cpus} cores, "
            f"load {os.getloadavg()[0]:.1f} at the end.",
            "",
            "| median (min to max) | cloister | NVFlare simulator + Opacus | ratio | asked for |",
            "|---|---:|---:|---:|---:|",
            f"| cold, s | {spread(ours.cold)} | {spread(peer.cold)} | {cold:.1f} | {TARGET_COLD:g} |",
            f"| warm, s | {spread(ours.warm)} | {spread(peer.warm)} | {warm:.1f} | {TARGET_WARM:g} |",
            f"| of that, the federated rounds, s | {spread(training)} | | | |",
            f"| peak memory, summed PSS, MiB | {ours.peak_mib:.0f} | {peer.peak_mib:.0f} "
            f"| {peer.peak_mib / ours.peak_mib:.1f} | under {TARGET_MIB} |",
            f"| processes at once | {ours.processes} | {peer.processes} | | |",
            f"| accuracy on the public test set | {ours.accuracy:.3f} | {peer.accuracy:.3f} | | |",
            f"| runs | {len(ours.cold)} cold, {len(ours.warm)} warm | {len(peer.cold)} | | |",
            f"| runs repeated because they hung or failed | {ours.unfinished} | {peer.unfinished} | | |",
        ]
    )


def write_figures(figures: str) -> None:
    """Replaces the figures in the README beside this file."""
    text = README.read_text()
    head, rest = text.split(BEGIN)
    README.write_text(f"{head}{BEGIN}\n{figures}\n{END}{rest.split(END)[1]}")


def main() -> None:
    """Measures both sides and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    file = load_job(JOB).file
    data = load_source(
        file.data.source,
        data_dir=None,
        sites=tuple(file.data.sites),
        seed=file.data.split_seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "peer").mkdir()
        (Path(folder) / "ours").mkdir()
        ours, training = measure_ours(Path(folder) / "ours", JOB, options.runs)
        peer = measure_peer(Path(folder) / "peer", file, data, options.runs)
    figures = table(ours, training, peer, file)
    print(f"\n{figures}")
    if options.write:
        write_figures(figures)


if __name__ == "__main__":
    main()
