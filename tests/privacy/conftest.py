"""Real records for training: the Wisconsin breast-cancer table that scikit-learn carries."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from cloister.privacy.trainer import TrainingData


@pytest.fixture(scope="session")
def tumours() -> TrainingData:
    """569 patients, 30 features scaled to [-1, 1], two classes."""
    features, labels = load_breast_cancer(return_X_y=True)
    low, high = features.min(axis=0), features.max(axis=0)
    scaled = (2 * (features - low) / (high - low) - 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(labels))
    return TrainingData(scaled[order], labels[order].astype(np.int64))


def pytest_configure(config: pytest.Config) -> None:
    """Pytest resets the filter that the trainer sets for a remark of torch's."""
    config.addinivalue_line("filterwarnings", "ignore:Full backward hook is firing:UserWarning")
