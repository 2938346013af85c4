"""An operator's process for the tests: it serves one model from a sealed worker, and is searched.

Use: python -m tests.enclave.inference.host FOLDER, with model.safetensors and a simulated vendor in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cloister.core.clock import system_clock
from cloister.core.logging import LogLevel, configure_logging
from cloister.enclave import SimulatedVendor
from cloister.enclave.inference import InferenceListener, InferenceService, ModelDescription
from cloister.enclave.sealed import SealedHost
from tests.enclave.attestation_scene import MEASUREMENT

DESCRIPTION = ModelDescription("logistic-regression", {}, features=8)


def main(folder: Path) -> None:
    configure_logging(path=folder / "operator.log", level=LogLevel.DEBUG, experiment_id="inference")
    platform = SimulatedVendor.open(folder, system_clock).platform("provider", MEASUREMENT)
    model = (folder / "model.safetensors").read_bytes()
    with (
        SealedHost.start() as host,
        InferenceService.start(host, DESCRIPTION, model, quote=platform.quote, simulated=True) as service,
        InferenceListener(str(folder / "socket")) as listener,
    ):
        print(host.server_pid, flush=True)
        listener.serve(service)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
