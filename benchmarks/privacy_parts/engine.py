"""Training speed beside Opacus's full pipeline and plain torch, in CPU time, taken in turns.

Ours has everything on: Poisson sampling and noise from the operating system's entropy, the guard against
non-finite gradients, the grid, the model's checks. Opacus is used as its documentation shows:
``PrivacyEngine`` with hooks, its own Poisson data loader, its ordinary noise. Plain
torch draws rows from the same tensors and takes an SGD step. A ratio is the median of the ratios within one
round.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from cloister.privacy.randomness import OsRandom
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan

warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)

RECORDS = 16_384
BATCHES = (64, 256, 1024)
ASKED = {
    "logistic regression": (3.3, 4.8, 10, 0.5),
    "MLP": (3.3, 5.5, 10, 0.5),
    "CNN 28x28": (1.2, 1.2, 1.4, 0.55),
    "ECG 1-D CNN": (1.2, 1.2, 1.2, 0.6),
}
"""What the issue asks for: ratio to Opacus at each batch, then share of plain torch's speed."""


def logistic_regression() -> nn.Module:
    return nn.Sequential(nn.Linear(30, 2))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))


def cnn() -> nn.Module:
    """Opacus's own MNIST example."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 8, 2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def ecg() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 360)),
        nn.Conv1d(1, 16, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv1d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv1d(32, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(8),
        nn.Flatten(),
        nn.Linear(256, 5),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "logistic regression": (logistic_regression, 30, 2),
    "MLP": (mlp, 32, 2),
    "CNN 28x28": (cnn, 784, 10),
    "ECG 1-D CNN": (ecg, 360, 5),
}
Runner = Callable[[int], None]


def rows(features: int, classes: int) -> TrainingData:
    generator = np.random.default_rng(0)
    return TrainingData(
        generator.standard_normal((RECORDS, features), dtype=np.float32),
        generator.integers(0, classes, RECORDS, dtype=np.int64),
    )


def ours(name: str, data: TrainingData, batch: int) -> Runner:
    """As at a site: one trainer for all rounds, so that the model is checked once, before the first."""
    model, trainers = MODELS[name][0](), dict[int, DPTrainer]()

    def run(steps: int) -> None:
        if steps not in trainers:
            plan = TrainingPlan(batch / RECORDS, 1.0, 1.0, steps, 0.1)
            trainers[steps] = DPTrainer(
                plan, noise=OsRandom("bench", "noise"), sampling=OsRandom("bench", "sampling")
            )
        trainers[steps].fit(model, data)

    return run


def opacus(name: str, data: TrainingData, batch: int) -> Runner:
    dataset = TensorDataset(torch.from_numpy(data.features), torch.from_numpy(data.labels))
    model = MODELS[name][0]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, optimizer, loader = PrivacyEngine().make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            data_loader=DataLoader(dataset, batch_size=batch),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            poisson_sampling=True,
        )
    batches = iter(loader)
    loss_of = nn.CrossEntropyLoss()

    def run(steps: int) -> None:
        nonlocal batches
        for _ in range(steps):
            batch_rows = next(batches, None)
            if batch_rows is None:
                batches = iter(loader)
                batch_rows = next(batches)
            optimizer.zero_grad()
            loss_of(model(batch_rows[0]), batch_rows[1]).backward()
            optimizer.step()

    return run


def plain(name: str, data: TrainingData, batch: int) -> Runner:
    model = MODELS[name][0]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)

    def run(steps: int) -> None:
        for _ in range(steps):
            chosen = torch.randint(0, RECORDS, (batch,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(features[chosen]), labels[chosen]).backward()
            optimizer.step()

    return run


PIPELINES = {"ours": ours, "Opacus": opacus, "plain torch": plain}


def measure(rounds: int = 7, seconds: float = 0.6) -> dict[str, float]:
    """Return speeds relative to Opacus and plain torch, and peak memory relative to plain torch.

    Args:
        rounds: How often every pipeline takes its turn.
        seconds: CPU time of the slowest pipeline's turn.
    """
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name, (_, features, classes) in MODELS.items():
        data = rows(features, classes)
        for batch in BATCHES:
            runners = {peer: build(name, data, batch) for peer, build in PIPELINES.items()}
            spent = {peer: timed(runner, 8) for peer, runner in runners.items()}
            steps = max(8, round(8 * seconds / max(spent.values())))
            turns: list[dict[str, float]] = []
            for _ in range(rounds):
                gc.collect()
                turns.append({peer: timed(runner, steps) for peer, runner in runners.items()})
            key = f"{name}, {batch}"
            figures[f"{key}: times Opacus"] = statistics.median(t["Opacus"] / t["ours"] for t in turns)
            figures[f"{key}: of plain torch"] = statistics.median(t["plain torch"] / t["ours"] for t in turns)
            figures[f"{key}: rows a second"] = (
                batch * steps / statistics.median(turn["ours"] for turn in turns)
            )
        peaks = {peer: peak_in_a_process(name, peer) for peer in ("ours", "plain torch")}
        figures[f"{name}: peak memory of plain torch"] = peaks["ours"] / peaks["plain torch"]
    return figures


def timed(runner: Runner, steps: int) -> float:
    started = time.process_time()
    runner(steps)
    return time.process_time() - started


def table(figures: dict[str, float]) -> str:
    """Return the figures beside what is asked for, as Markdown."""
    lines = [
        "| CPU-time ratio to Opacus (asked) | batch 64 | 256 | 1024 | of plain torch, least | peak memory |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, asked in ASKED.items():
        cells = [
            f"{figures[f'{name}, {batch}: times Opacus']:.1f} ({wanted})"
            for batch, wanted in zip(BATCHES, asked, strict=False)
        ]
        least = min(figures[f"{name}, {batch}: of plain torch"] for batch in BATCHES)
        memory = figures[f"{name}: peak memory of plain torch"]
        lines.append(f"| {name} | {' | '.join(cells)} | {least:.2f} ({asked[3]}) | {memory:.2f} (1.3) |")
    return "\n".join(lines)


def peak_in_a_process(name: str, pipeline: str) -> float:
    """Return the peak memory in MiB of a process that trains by one pipeline at the largest batch."""
    command = [sys.executable, "-m", "privacy_parts.engine", name, pipeline]
    answer = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    return float(answer.stdout)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _, width, answers = MODELS[sys.argv[1]]
    PIPELINES[sys.argv[2]](sys.argv[1], rows(width, answers), BATCHES[-1])(6)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)
