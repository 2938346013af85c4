"""MNIST at (3, 1e-5): a small CNN, trained from nothing, with its plan in a budget ledger.

Network and recipe are public ones, so nothing was tuned on the records: the CNN of Papernot et al. 2021
(arXiv:2007.14191, tanh in place of ReLU), clip norm and momentum of Tramer and Boneh 2021 (arXiv:2011.11660),
who report 98.1 % for it. Pixels are mapped from their bounds to [-1, 1]. The score is taken once, after the
last step, on the public test images.
"""

from __future__ import annotations

import gzip
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import FIXED_PLAN, epsilon_pld
from cloister.privacy.budget import PrivacyBudget
from cloister.privacy.ledger import BudgetLedger, Purpose
from cloister.privacy.planning import plan
from cloister.privacy.randomness import OsRandom
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan
from shared_data import data_folder

EPSILON, DELTA = 3.0, 1e-5
BATCH, EPOCHS = 1024, 30
CLIP, LEARNING_RATE, MOMENTUM = 0.1, 1.0, 0.9
ASKED, PUBLISHED = 0.975, 0.981

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def read(part: str) -> tuple[Images, Labels]:
    """Return images as rows of 784 values in [-1, 1], and labels, of ``train`` or ``t10k`` (idx format)."""
    folder = data_folder("mnist")
    pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    digits = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, dtype=np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(digits, dtype=np.uint8, offset=8)
    return (images / np.float32(127.5) - 1).astype(np.float32), labels.astype(np.int64)


def cnn() -> nn.Module:
    """26,010 weights."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 8, 2, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )


def measure() -> dict[str, float]:
    """Train once and return accuracy, what was spent, and the CPU time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # of the public starting weights alone
    features, labels = read("train")
    budget = PrivacyBudget(EPSILON, DELTA)
    planned = plan(budget, len(labels), BATCH, EPOCHS, FIXED_PLAN)
    training = TrainingPlan(
        planned.sampling_probability, planned.sigma, CLIP, planned.steps, LEARNING_RATE, MOMENTUM
    )
    model = cnn()
    trainer = DPTrainer(training, noise=OsRandom("mnist", "noise"), sampling=OsRandom("mnist", "sampling"))
    with (
        tempfile.TemporaryDirectory() as folder,
        BudgetLedger.create(Path(folder) / "mnist.ledger", "mnist", DELTA, mode=FIXED_PLAN) as ledger,
    ):
        reservation = ledger.reserve(
            training.event,
            dataset_sha256=sha256_hex(features.tobytes()),
            job_id="mnist",
            round_number=0,
            purpose=Purpose.TRAINING,
            limits=[],
        )
        started = time.process_time()
        fit = trainer.fit(model, TrainingData(features, labels))
        seconds = time.process_time() - started
        ledger.settle(reservation, fit.executed_steps)
        spent = ledger.events()
    return {
        "accuracy": accuracy(model),
        "epsilon": epsilon_pld(spent, DELTA),
        "noise multiplier": planned.sigma,
        "steps": float(planned.steps),
        "CPU seconds": seconds,
    }


def accuracy(model: nn.Module) -> float:
    """Share of the public test images that are read right."""
    images, labels = read("t10k")
    with torch.no_grad():
        answers = model(torch.from_numpy(images)).argmax(1)
    return float((answers == torch.from_numpy(labels)).double().mean())


def table(figures: dict[str, float]) -> str:
    """Return the figures beside what is asked for, as Markdown."""
    return "\n".join(
        [
            "| MNIST, CNN of 26,010 weights | measured | asked | published |",
            "|---|---:|---:|---:|",
            f"| test accuracy | {figures['accuracy']:.4f} | {ASKED} | {PUBLISHED} (Tramer and Boneh 2021) |",
            f"| epsilon at delta {DELTA:g}, from the ledger | {figures['epsilon']:.4f} | {EPSILON} | 3 |",
            f"| noise multiplier, steps | {figures['noise multiplier']:.3f}, {figures['steps']:.0f} | | |",
            f"| CPU seconds | {figures['CPU seconds']:.0f} | | |",
        ]
    )
