"""The main job as one writes it for NVFlare's simulator: FedAvgRecipe, a client script, SimEnv.

Run as a program it does the job once in a folder that holds settings.json and a .npz file per site, and
prints one line of JSON: the seconds its run took after the imports, and where the global model is.
"""

import json
import sys
import time
from pathlib import Path

from model import Network
from nvflare.app_opt.pt.recipes import FedAvgRecipe
from nvflare.recipe import SimEnv


def main(folder: Path) -> None:
    """Runs the job in this folder."""
    settings = json.loads((folder / "settings.json").read_text())
    started = time.perf_counter()
    recipe = FedAvgRecipe(
        name="peer",
        model=Network(settings["inputs"], settings["hidden"]),
        min_clients=len(settings["sites"]),
        num_rounds=settings["rounds"],
        train_script=str(Path(__file__).with_name("client.py")),
        train_args=f"--folder {folder}",
    )
    # Sites ask for work every 0.05 s instead of every 2 s, which saves the peer a second and more per round.
    recipe.add_server_config({"server": {"task_request_interval": 0.05}})
    # As many threads as clients: with fewer, the simulator restarts a worker for every task.
    environment = SimEnv(
        clients=settings["sites"],
        num_threads=len(settings["sites"]),
        workspace_root=str(folder / "workspace"),
        log_config="ERROR",
    )
    result = recipe.execute(environment).get_result()
    seconds = time.perf_counter() - started
    model = next(Path(str(result)).rglob("FL_global_model.pt"))
    print(json.dumps({"seconds": seconds, "model": str(model)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
