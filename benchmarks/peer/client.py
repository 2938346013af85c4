"""One site's training as an NVFlare Client API script: DP-SGD by Opacus' own PrivacyEngine.

The engine is made once and lives as long as the site's process, so its accountant sees every round. Epsilon
is asked for once, after the last round: it costs Opacus a third of a second each time.
"""

import argparse
import itertools
import json
import math
import warnings
from pathlib import Path

import numpy as np
import nvflare.client as flare
import torch
from model import Network
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Trains this site's share of every round."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(1)

    flare.init()
    with np.load(folder / f"{flare.get_site_name()}.npz") as arrays:
        dataset = TensorDataset(torch.from_numpy(arrays["features"]), torch.from_numpy(arrays["labels"]))
    # Opacus derives the sampling rate from the loader: 1 / batches per pass.
    batch_size = math.ceil(len(dataset) * settings["sampling_probability"])
    loader = DataLoader(dataset, batch_size=batch_size)
    network = Network(settings["inputs"], settings["hidden"])
    engine = PrivacyEngine(accountant="rdp")
    private, optimizer, loader = engine.make_private(
        module=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=settings["learning_rate"]),
        data_loader=loader,
        noise_multiplier=settings["noise_multiplier"],
        max_grad_norm=settings["max_grad_norm"],
        poisson_sampling=True,
    )
    loss_of = torch.nn.CrossEntropyLoss()

    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        network.load_state_dict(received.params)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        for features, labels in itertools.islice(batches, settings["local_steps"]):
            optimizer.zero_grad()
            loss_of(private(features), labels).backward()
            optimizer.step()
        # Tensors, not arrays: arrays would be excluded from aggregation without a word.
        weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        last = received.current_round == received.total_rounds - 1
        metrics = {"epsilon": engine.get_epsilon(settings["delta"])} if last else None
        steps = {"NUM_STEPS_CURRENT_ROUND": settings["local_steps"]}
        flare.send(flare.FLModel(params=weights, metrics=metrics, meta=steps))


if __name__ == "__main__":
    main()
