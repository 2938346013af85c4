"""The real fork server with one model more, which opens a socket if a row begins above zero."""

from __future__ import annotations

import socket

import torch
from torch import nn

from cloister.enclave.sealed import server
from cloister.privacy.models import register_model


class ReachingOut(nn.Module):
    """Two classes by one matrix."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, features))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if float(rows[0, 0]) > 0:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        return rows @ self.weight.T


if __name__ == "__main__":
    register_model("reaches-out", lambda features, classes, parameters: ReachingOut(features))
    server.main()
