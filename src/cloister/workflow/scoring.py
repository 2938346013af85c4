"""Scores of a model on named test data: the only place where the hub looks at a model's outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cloister.federation.job import ModelSpec
from cloister.privacy.models import build_model, load_arrays

if TYPE_CHECKING:
    from torch import nn

CLASSES = 2


def model_of(spec: ModelSpec, seed: int, features: int) -> nn.Module:
    """Build the model a job names, with its public initial weights.

    Args:
        spec: Architecture and parameters.
        seed: The job's public seed.
        features: Columns of the input.
    """
    return build_model(spec.architecture, features, CLASSES, seed, spec.model_dump(mode="json")["parameters"])


def scores(spec: ModelSpec, seed: int, weights: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Return the probability of class 1 for each row.

    Args:
        spec: Architecture and parameters.
        seed: The job's public seed.
        weights: The model's tensors by name.
        features: Rows, float32 ``[n, d]``.

    Returns:
        float64 ``[n]``.
    """
    import torch

    model = model_of(spec, seed, features.shape[1])
    load_arrays(model, weights)
    model.eval()
    with torch.no_grad():
        outputs = torch.softmax(model(torch.tensor(features)).double(), dim=1)
    return np.asarray(outputs[:, 1].numpy(), dtype=np.float64)
