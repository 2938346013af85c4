"""A receipt of 4 sites and 50 rounds: the own checks, composing it, the whole command; and a real receipt.

For the own checks the receipt is judged again and again, so that epsilon, which is dp-accounting's time,
comes from memory; the two checks that rooms above plug in are content with everything. The whole command,
`cloister-verify` from start to exit, runs them too and refuses, as the job's attestation and policy are made
up. Without the epsilon check means that dp-accounting isn't there.

The receipt of `examples/tumour`, 3 sites and 10 rounds, is of a job that was run for this: its policy and its
attestation hold, and both commands have to accept it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "examples" / "tumour" / "job.yaml"
REFUSED, ACCEPTED = 1, 0
RUNS = 15
SITES = ("north", "south", "east", "west")
ROUNDS = 50
COMMANDS = 7
TARGETS = {
    "own checks, ms": ("at most", 150.0),
    "whole command without epsilon, ms": ("at most", 400.0),
    "whole command, ms": ("at most", 1800.0),
}


def measure(scratch: Path) -> dict[str, float]:
    """Milliseconds of the checks (median) and of composing, and the receipt's size."""
    sys.path.insert(0, str(ROOT))
    from tests.evidence.synthetic import MODEL, SyntheticJob, plugged

    from cloister.evidence.verifier import Verifier, model_artifact

    folder = scratch / "job"
    folder.mkdir()
    job = SyntheticJob(folder, sites=SITES, rounds=ROUNDS).run()
    job.receipt()
    began = time.perf_counter()
    receipt = job.receipt()
    composing = time.perf_counter() - began
    verifier, model = Verifier(job.trust, plugged()), model_artifact(MODEL)
    times: list[float] = []
    for _ in range(RUNS):
        began = time.perf_counter()
        verdict = verifier.verify(receipt, model)
        times.append(time.perf_counter() - began)
        assert verdict.accepted, verdict.failures
    (scratch / "receipt.json").write_bytes(receipt)
    (scratch / "model.safetensors").write_bytes(MODEL)
    for role, party, name in job.pinned:
        (scratch / "trust" / role.value).mkdir(parents=True, exist_ok=True)
        (scratch / "trust" / role.value / f"{party}.pem").write_text(job.keys[name].public_key.pem)
    absent = scratch / "absent" / "dp_accounting"
    absent.mkdir(parents=True)
    (absent / "__init__.py").write_text("raise ImportError")
    return {
        "own checks, ms": statistics.median(times) * 1000,
        **whole_command(scratch, "whole command", REFUSED),
        **whole_command(scratch, "whole command without epsilon", REFUSED, without_epsilon(absent.parent)),
        "composing, ms": composing * 1000,
        "receipt, KB": len(receipt) / 1000,
        **real_job(scratch / "real"),
    }


def without_epsilon(absent: Path) -> dict[str, str]:
    """The environment in which dp-accounting can't be imported."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(absent), os.environ.get("PYTHONPATH")]))}


def real_job(workspace: Path) -> dict[str, float]:
    """Run a job, and verify its receipt with both commands."""
    run = [
        sys.executable,
        "-m",
        "cloister.cli.main",
        "run",
        str(JOB),
        "--workspace",
        str(workspace),
        "--quiet",
    ]
    subprocess.run(run, check=True, capture_output=True)
    (receipt,) = workspace.glob("jobs/*/receipt.json")
    folder = receipt.parent
    return {
        **whole_command(folder, "a real job's receipt, cloister-verify", ACCEPTED),
        **whole_command(
            folder, "a real job's receipt, cloister verify", ACCEPTED, program=("cloister", "verify")
        ),
        "a real job's receipt, KB": receipt.stat().st_size / 1000,
    }


def whole_command(
    folder: Path,
    name: str,
    code: int,
    changed: Mapping[str, str] | None = None,
    *,
    program: Sequence[str] = ("cloister-verify",),
) -> dict[str, float]:
    """The medians of its wall and processor time, after a run that isn't counted; all end with that code."""
    script = str(Path(sys.executable).with_name(program[0]))
    named = ["receipt.json", "--trust", "trust", "--model", "model.safetensors", "--quiet"]
    command = [script, *program[1:], *named]
    environment = os.environ | (changed or {})
    wall, cpu = [], []
    for _ in range(COMMANDS + 1):
        before, began = os.times(), time.perf_counter()
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        assert ended.returncode == code, ended.stderr
        wall.append((time.perf_counter() - began) * 1000)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        cpu.append(spent * 1000)
    return {f"{name}, ms": statistics.median(wall[1:]), f"{name}, CPU ms": statistics.median(cpu[1:])}
