"""The peer's models: the architectures that examples name, as plain PyTorch modules.

Its own file because NVFlare's server and clients import the model by its class path.
"""

from torch import Tensor, nn


class Network(nn.Module):
    """A logistic regression (no hidden layer) or a perceptron with one hidden layer.

    Args:
        inputs: features per record.
        hidden: width of the hidden layer; 0 for none.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.hidden = hidden
        layers = (
            [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2)] if hidden else [nn.Linear(inputs, 2)]
        )
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [records, 2] for features [records, inputs]."""
        return self.layers(features)
