"""``cloister verify``: read the files, let the pure verifier judge, show its table."""

from __future__ import annotations

import json
from pathlib import Path

from cloister.cli.failure import EXIT_REFUTED
from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.evidence.trust import Trust
from cloister.evidence.verifier import TestRandomness, Verifier, model_artifact
from cloister.workflow.checks import full_registry

_MAX_RECEIPT_BYTES = 256 * 1024 * 1024
_MAX_MODEL_BYTES = 8 * 1024 * 1024 * 1024


def verify_command(
    receipt: Path,
    trust: Path,
    model: Path | None,
    *,
    production: bool,
    accept_test_randomness: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Verify a receipt and return the exit code.

    Args:
        receipt: The receipt file.
        trust: Folder of pinned keys.
        model: The model file, or None for the one the receipt names, beside it.
        production: Accept no simulated attestation.
        accept_test_randomness: Accept seeded noise.
        as_json: Print JSON.
        quiet: Print nothing; the exit code tells.

    Returns:
        0 if every required check passed, else 1.
    """
    data = read_bounded(receipt, _MAX_RECEIPT_BYTES)
    pinned = Trust.load(trust)
    artifact_path = model if model is not None else receipt.parent / "model.safetensors"
    if not artifact_path.is_file():
        raise InputError(
            "input.missing_file",
            f"the model file {artifact_path} isn't there",
            "Name it with --model: a receipt without its model proves nothing about the model you hold.",
        )
    artifact = model_artifact(read_bounded(artifact_path, _MAX_MODEL_BYTES))
    accept = TestRandomness.ACCEPT if accept_test_randomness else TestRandomness.REFUSE
    verdict = Verifier(pinned, full_registry(), accept=accept).verify(data, artifact)
    accepted = verdict.accepted and not (production and verdict.simulated)

    if as_json:
        checks = [{"id": c.id, "outcome": c.outcome.value, "detail": c.detail} for c in verdict.checks]
        print(
            json.dumps(
                {
                    "accepted": accepted,
                    "simulated": verdict.simulated,
                    "test_randomness": verdict.test_randomness,
                    "production_required": production,
                    "checks": checks,
                },
                indent=2,
            )
        )
    elif not quiet:
        _show(receipt, verdict, accepted=accepted, production=production)
    return 0 if accepted else EXIT_REFUTED


def _show(receipt: Path, verdict, *, accepted: bool, production: bool) -> None:  # type: ignore[no-untyped-def]
    from cloister.cli.console import check_table, console, simulated_banner, test_randomness_banner

    out = console()
    if verdict.simulated:
        out.print(simulated_banner())
    if verdict.test_randomness:
        out.print(test_randomness_banner())
    out.print(check_table(verdict))
    if accepted:
        out.print(f"[bold green]accepted[/] {receipt.name}: every check passed")
    elif verdict.accepted and production:
        out.print(f"[bold red]refused[/] {receipt.name}: --production accepts no simulated attestation")
    else:
        failed = ", ".join(check.id for check in verdict.checks if check.outcome.value != "passed")
        out.print(f"[bold red]refused[/] {receipt.name}: {failed}")
