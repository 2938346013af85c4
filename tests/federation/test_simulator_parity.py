"""The compiled folder in NVFlare's own simulator: several processes, its own transport, equal weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloister.federation import JobFolder, LocalBackend, compile_job
from cloister.federation.flare.messages import HUB_NODE, SITE_NODE
from tests.conftest import ROOT
from tests.federation.nodes import ArithmeticHub, a_job, sites_for

RUN = """
import sys
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner
job, workspace, clients = sys.argv[1:]
count = len(clients.split(","))
sys.exit(SimulatorRunner(job, workspace, clients, threads=count, log_config="ERROR").run())
"""


def with_nodes(folder: JobFolder, job: str, output: Path) -> JobFolder:
    files = dict(folder.files)
    nodes = "tests.federation.simulated_nodes"
    for name, component in {
        "server": {
            "id": HUB_NODE,
            "path": f"{nodes}.SimulatedHub",
            "args": {"job": job, "output": str(output)},
        },
        "client": {"id": SITE_NODE, "path": f"{nodes}.SimulatedSite", "args": {"job": job}},
    }.items():
        path = f"app/config/config_fed_{name}.json"
        config = json.loads(files[path])
        config["components"].append(component)
        files[path] = json.dumps(config).encode()
    return JobFolder(files)


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_the_simulator_of_nvflare_accepts_the_folder_and_ends_in_the_same_weights(tmp_path: Path) -> None:
    job = a_job(rounds=3)
    output = tmp_path / "weights.npz"
    folder = with_nodes(compile_job(job), job.canonical().decode(), output)
    folder.write(tmp_path / "job")
    (tmp_path / "work" / "local").mkdir(parents=True)
    allowed = {"format_version": 2, "class_allow_list": ["cloister.", "tests.", "nvflare."]}
    (tmp_path / "work" / "local" / "resources.json").write_text(json.dumps(allowed))
    subprocess.run(
        [sys.executable, "-c", RUN, tmp_path / "job", tmp_path / "work", ",".join(job.clients)],
        cwd=ROOT,
        check=True,
        timeout=240,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    local = LocalBackend(tmp_path).run(job, compile_job(job), ArithmeticHub(job), sites_for(job))
    with np.load(output) as simulated:
        assert simulated["rounds"] == 3
        for name, value in local.weights.items():
            np.testing.assert_allclose(simulated[name], value, atol=1e-6)
