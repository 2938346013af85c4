"""The improvement score, by which a model is compared with its baseline and credits are later paid."""

from __future__ import annotations


def improvement_score(value: float, baseline: float) -> float:
    """The share of the gap between the baseline and perfection that the model closes.

    Args:
        value: the model's metric, 0 to 1.
        baseline: the baseline's metric on the same records, 0 to 1.

    Returns:
        ``(value - baseline) / (1 - baseline)``; 0 where the baseline is perfect and nothing can be gained;
        negative where the model is worse.
    """
    return (value - baseline) / (1 - baseline) if baseline < 1 else 0.0
