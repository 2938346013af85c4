"""Training speed beside JAX-Privacy, in CPU time, taken in turns.

JAX-Privacy runs in a process of its own, by the interpreter that ``CLOISTER_JAX_PYTHON`` names (``pip install
jax-privacy`` in an environment of its own) or by this one where it is installed. Its compilation isn't
counted. A ratio is the median of the ratios within one round; above 1 ours needs less.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from privacy_parts.engine import BATCHES, MODELS, RECORDS, ours, rows, timed
from shared_data import AbsentError


def interpreter() -> str:
    """Return the interpreter that has JAX-Privacy."""
    named = os.environ.get("CLOISTER_JAX_PYTHON")
    if named is None and find_spec("jax_privacy") is None:
        raise AbsentError("JAX-Privacy is not installed (set CLOISTER_JAX_PYTHON)")
    return named or sys.executable


@contextmanager
def peer(name: str, batch: int) -> Iterator[Callable[[int], float]]:
    """Yield what takes steps in the peer's process and returns their CPU time."""
    command = [interpreter(), str(Path(__file__).with_name("_jax_child.py")), name, str(batch), str(RECORDS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        questions, answers = child.stdin, child.stdout
        if answers.readline() != "\n":
            raise RuntimeError("JAX-Privacy did not start")

        def seconds(steps: int) -> float:
            questions.write(f"{steps}\n")
            questions.flush()
            return float(answers.readline())

        yield seconds
        questions.close()


def measure(rounds: int = 7, turn: float = 0.5) -> dict[str, float]:
    """Return our speed relative to JAX-Privacy's.

    Args:
        rounds: How often each takes its turn.
        turn: CPU time of the slower one's turn, in seconds.
    """
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name, (_, features, classes) in MODELS.items():
        data = rows(features, classes)
        for batch in BATCHES:
            runner = ours(name, data, batch)
            with peer(name, batch) as theirs:
                slower = max(timed(runner, 8), theirs(8))
                steps = max(8, round(8 * turn / slower))
                turns = [(timed(runner, steps), theirs(steps)) for _ in range(rounds)]
            figures[f"{name}, {batch}"] = statistics.median(their / our for our, their in turns)
    return figures


def table(figures: dict[str, float]) -> str:
    """Return the figures as Markdown."""
    lines = ["| CPU-time ratio to JAX-Privacy | batch 64 | 256 | 1024 |", "|---|---:|---:|---:|"]
    for name in MODELS:
        cells = " | ".join(f"{figures[f'{name}, {batch}']:.2f}" for batch in BATCHES)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)
