"""An operator's process for the tests that serves a developer's sealed package, and is searched.

Use: python -m tests.enclave.inference.packaged_host FOLDER POLICY_ID, with model.package, developer.pem, a
simulated vendor and the developer's key service at keys.sock in it.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from cloister.core.clock import system_clock
from cloister.core.keys import PublicKey
from cloister.core.logging import LogLevel, configure_logging
from cloister.enclave import SimulatedVendor
from cloister.enclave.inference import InferenceListener, InferenceService
from cloister.enclave.keyrelease import KeyServiceEndpoint
from cloister.enclave.sealed import SealedHost
from tests.enclave.attestation_scene import MEASUREMENT


def main(folder: Path, policy_id: str) -> None:
    configure_logging(path=folder / "operator.log", level=LogLevel.DEBUG, experiment_id="inference")
    platform = SimulatedVendor.open(folder, system_clock).platform("provider", MEASUREMENT)
    with SealedHost.start() as host, closing(KeyServiceEndpoint(str(folder / "keys.sock"))) as keeper:
        service = InferenceService.start_package(
            host,
            (folder / "model.package").read_bytes(),
            PublicKey.from_pem((folder / "developer.pem").read_bytes()),
            keeper=keeper,
            policy_id=policy_id,
            quote=platform.quote,
            simulated=True,
        )
        with service, InferenceListener(str(folder / "socket")) as listener:
            print(host.server_pid, flush=True)
            listener.serve(service)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
