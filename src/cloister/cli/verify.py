"""``cloister verify``: read the files, let the pure verifier judge, show its table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cloister.cli.failure import EXIT_REFUTED
from cloister.cli.text import printable
from cloister.core.canonical import parse_canonical
from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.evidence.receipt import receipt_from_json
from cloister.evidence.trust import Trust
from cloister.evidence.verifier import TestRandomness, Verdict, Verifier, model_artifact
from cloister.workflow.checks import full_registry

_MAX_RECEIPT_BYTES = 256 * 1024 * 1024
_MAX_MODEL_BYTES = 8 * 1024 * 1024 * 1024


@dataclass(frozen=True)
class Judgement:
    """What the verifier found, and what the caller asked for beyond it.

    Attributes:
        verdict: Every check.
        measurements: SHA-384 of the code each platform attested, if the checks passed.
        refused_because: Why the receipt is refused; empty if it is accepted.
    """

    verdict: Verdict
    measurements: tuple[str, ...]
    refused_because: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against the receipt."""
        return not self.refused_because


def verify_command(
    receipt: Path,
    trust: Path,
    model: Path | None,
    measurement: str | None,
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
        measurement: SHA-384 of the only code that will do, or None for what the manifests allow.
        production: Accept no simulated attestation.
        accept_test_randomness: Accept seeded noise.
        as_json: Print JSON.
        quiet: Print nothing; the exit code tells.

    Returns:
        0 if every required check passed, else 1.
    """
    data = read_bounded(receipt, _MAX_RECEIPT_BYTES)
    artifact_path = model if model is not None else receipt.parent / "model.safetensors"
    if not artifact_path.is_file():
        raise InputError(
            "input.missing_file",
            f"the model file {artifact_path} isn't there",
            "Name it with --model: a receipt without its model proves nothing about the model you hold.",
        )
    artifact = model_artifact(read_bounded(artifact_path, _MAX_MODEL_BYTES))
    accept = TestRandomness.ACCEPT if accept_test_randomness else TestRandomness.REFUSE
    verdict = Verifier(Trust.load(trust), full_registry(), accept=accept).verify(data, artifact)
    judgement = _judge(verdict, data, measurement, production=production)
    if as_json:
        print(json.dumps(_as_json(judgement, production=production), indent=2))
    elif not quiet:
        _show(receipt, judgement)
    return 0 if judgement.accepted else EXIT_REFUTED


def _judge(verdict: Verdict, data: bytes, measurement: str | None, *, production: bool) -> Judgement:
    reasons = [check.id for check in verdict.failures]
    measurements: tuple[str, ...] = ()
    if verdict.accepted:
        enclaves = receipt_from_json(
            parse_canonical(data, max_bytes=_MAX_RECEIPT_BYTES), data
        ).body.summary.execution.enclaves
        measurements = tuple(sorted({enclave.measurement for enclave in enclaves.values()}))
        if production and verdict.simulated:
            reasons.append("--production accepts no simulated attestation")
        if measurement is not None and measurements != (measurement.lower(),):
            reasons.append("--measurement names other code than was attested")
    return Judgement(verdict, measurements, tuple(reasons))


def _as_json(judgement: Judgement, *, production: bool) -> dict[str, object]:
    verdict = judgement.verdict
    return {
        "accepted": judgement.accepted,
        "refused_because": list(judgement.refused_because),
        "simulated": verdict.simulated,
        "test_randomness": verdict.test_randomness,
        "production_required": production,
        "measurements": list(judgement.measurements),
        "checks": [{"id": c.id, "outcome": c.outcome.value, "detail": c.detail} for c in verdict.checks],
    }


def _show(receipt: Path, judgement: Judgement) -> None:
    from rich.markup import escape

    from cloister.cli.console import check_table, console, simulated_banner, test_randomness_banner

    out, name = console(), escape(printable(receipt.name))
    if judgement.verdict.simulated:
        out.print(simulated_banner())
    if judgement.verdict.test_randomness:
        out.print(test_randomness_banner())
    out.print(check_table(judgement.verdict))
    for measured in judgement.measurements:
        out.print(f"code measured: {measured}", style="dim", soft_wrap=True)
    if judgement.accepted:
        out.print(f"[bold green]accepted[/] {name}: every check passed")
    else:
        out.print(f"[bold red]refused[/] {name}: {', '.join(judgement.refused_because)}")
