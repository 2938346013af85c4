"""Tampers with a finished job in every way a dishonest hub might try first; each must be refused by name.

Use: python tools/refuse_tampered.py JOB-FOLDER     (as left by `cloister run` under jobs/)
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cloister.core.canonical import JSON, canonicalize, parse


def flip_model_byte(folder: Path) -> None:
    """Flips one bit in the middle of the model file."""
    model = folder / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def edit_receipt(folder: Path, edit: Callable[[dict[str, JSON]], None]) -> None:
    """Changes the receipt's body and writes it canonically, so that its form is not the reason."""
    path = folder / "receipt.json"
    receipt = parse(path.read_bytes())
    assert isinstance(receipt, dict)
    body = receipt["body"]
    assert isinstance(body, dict)
    edit(body)
    path.chmod(0o600)
    path.write_bytes(canonicalize(receipt))


def lower_epsilon(body: dict[str, JSON]) -> None:
    """Halves the epsilon stated for one site."""
    privacy = body["summary"]["privacy"]
    site = sorted(privacy)[0]
    privacy[site]["epsilon"] /= 2


TAMPERINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "model byte flipped": (flip_model_byte, "model-hash"),
    "epsilon edited": (lambda folder: edit_receipt(folder, lower_epsilon), "epsilon"),
    "statement removed": (
        lambda folder: edit_receipt(folder, lambda body: body["statements"].pop(3)),
        "statements-complete",
    ),
    "statements reordered": (
        lambda folder: edit_receipt(folder, lambda body: body["statements"].reverse()),
        "statement-order",
    ),
}


def failed_checks(folder: Path) -> list[str] | None:
    """Verifies a job folder; the checks that failed, or None if the receipt was accepted."""
    command = [str(Path(sys.executable).with_name("cloister")), "verify", str(folder / "receipt.json")]
    options = ["--trust", str(folder / "trust"), "--model", str(folder / "model.safetensors"), "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        sys.exit(f"cloister verify exited with {done.returncode}: {done.stdout}{done.stderr}")
    verdict = json.loads(done.stdout)
    if verdict["accepted"] != (done.returncode == 0):
        sys.exit(f"cloister verify exited with {done.returncode} but said accepted: {verdict['accepted']}")
    failed = [check["id"] for check in verdict["checks"] if check["outcome"] != "passed"]
    return None if verdict["accepted"] else failed


def main(job_folder: Path) -> int:
    """Tries every tampering on a copy."""
    if failed_checks(job_folder) is not None:
        print(f"the receipt as it was left does not verify: {failed_checks(job_folder)}", file=sys.stderr)
        return 1
    missed = 0
    for name, (tamper, expected) in TAMPERINGS.items():
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "job"
            shutil.copytree(job_folder, copy)
            tamper(copy)
            failed = failed_checks(copy)
        refused = failed is not None and expected in failed
        missed += not refused
        print(f"{name}: {'refused by ' + expected if refused else f'NOT refused by {expected}: {failed}'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
