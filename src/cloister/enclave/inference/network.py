"""A model with a file's weights, that answers rows with probabilities; behind the seal only.

How many weights it has follows from its public definition, for whoever has no copy of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import nn

    from cloister.enclave.inference.card import ModelCard


class Network:
    """A model with a file's weights, as a `Predictor`."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __call__(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Probabilities, float32 [n, classes], of rows, float32 [n, features]."""
        import torch

        with torch.no_grad():
            scores = self._network(torch.from_numpy(rows))
            return np.asarray(torch.softmax(scores, dim=1).numpy(), dtype=np.float32)

    def wipe(self) -> tuple[int, int]:
        """Overwrite the weights; how many arrays, and how many bytes."""
        held = [*self._network.parameters(), *self._network.buffers()]
        for one in held:
            one.data.zero_()
        return len(held), sum(one.nbytes for one in held)


def load_network(card: ModelCard, model: bytes) -> Network:
    """Build the model that a file's weights belong to.

    Args:
        card: what it is.
        model: the model file.

    Raises:
        EnclaveError: ``enclave.model_file``.
        ModelError: no such model, or the weights are not its own.
    """
    from cloister.enclave.model_file import decode_model
    from cloister.privacy.models import build_model, load_arrays

    network = build_model(card.architecture, card.features, card.classes, 0, card.parameters)
    arrays = {name: array.astype(np.float32, copy=False) for name, array in decode_model(model).items()}
    load_arrays(network, arrays)
    network.eval()
    return Network(network)


def count_weights(card: ModelCard) -> int:
    """How many numbers a model's weights are, by its public definition alone; no memory is taken for them.

    Args:
        card: what it is, as somebody else may have described it.

    Raises:
        ModelError: no such model.
    """
    import torch

    from cloister.privacy.models import build_model

    with torch.device("meta"):
        network = build_model(card.architecture, card.features, card.classes, 0, card.parameters)
    return sum(one.numel() for one in network.parameters())
