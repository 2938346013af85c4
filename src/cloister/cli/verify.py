"""Verification as commands do it: read the files, let the pure verifier judge, show what it found.

``cloister verify`` and ``cloister-verify`` are two shells around `verify_command`; it needs the base
installation and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.cli.failure import EXIT_REFUTED
from cloister.cli.verdict import Paint, verdict_json, verdict_lines
from cloister.core.clock import system_clock
from cloister.core.errors import InputError
from cloister.core.files import open_plain, read_bounded
from cloister.evidence.artifacts import (
    ArtifactKind,
    Demands,
    OwnersWord,
    Simulation,
    find_kind,
    verify_artifact,
)
from cloister.evidence.trust import Trust
from cloister.evidence.verification.acceptance import TestRandomness, TimestampRule

if TYPE_CHECKING:
    from cloister.enclave.attestation.collateral import Collateral
    from cloister.evidence.checks import CheckRegistry
    from cloister.evidence.context import ModelArtifact
    from cloister.evidence.predicates.base import Role
    from cloister.evidence.segments.secrets import SecretsOpener

_MAX_ARTIFACT_BYTES: Final = 256 * 1024 * 1024
_MAX_MODEL_BYTES: Final = 8 * 1024 * 1024 * 1024
_MAX_CHAIN_BYTES: Final = 64 * 1024
_BEGINNING: Final = 4096
_MODEL_FILE: Final = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What was typed.

    Attributes:
        artifact: The file, or the folder of a log's tiles.
        trust: Folder of pinned keys.
        kind: What the artifact has to be, or None to find out.
        model: The model file of a receipt, or None for the one beside it.
        measurement: SHA-384 of the only code that will do, or None for what the manifests allow.
        production: Accept no simulated attestation.
        accept_test_randomness: Accept seeded noise.
        require_timestamp: Refuse a receipt without a timestamp.
        witnesses: How many pinned witnesses must have cosigned each head of a log, or None.
        held: Files with checkpoints held from before, or outside the process that wrote a segment.
        previous: Files with the exports before this one, oldest first.
        certificates: Files with certificate chains that came with a log's head or with segments.
        at: For which time they have to hold, RFC 3339 in UTC.
        party: Whose segments they have to be, as role/name.
        accept_owners_word: Accept that a log's owner alone says what lies outside an export's period.
        collateral: Files and folders of hardware vendors' documents of today, by which the machines of a
            receipt are judged besides.
        segment_key: File or folder of the private keys that open the secrets of segments.
        as_json: Print JSON.
        quiet: Print nothing; the exit code tells.
    """

    artifact: Path
    trust: Path
    kind: ArtifactKind | None = None
    model: Path | None = None
    measurement: str | None = None
    production: bool = False
    accept_test_randomness: bool = False
    require_timestamp: bool = False
    witnesses: int | None = None
    held: tuple[Path, ...] = ()
    previous: tuple[Path, ...] = ()
    collateral: tuple[Path, ...] = ()
    segment_key: Path | None = None
    certificates: tuple[Path, ...] = ()
    at: str | None = None
    party: str | None = None
    accept_owners_word: bool = False
    as_json: bool = False
    quiet: bool = False


def verify_command(options: VerifyOptions) -> int:
    """Verify an artifact and return the exit code.

    Args:
        options: What was typed.

    Returns:
        0 if every required check passed, else 1.

    Raises:
        CloisterError: If a file that was named can't be read, or a demand has no meaning for the artifact.
    """
    artifact = options.artifact
    kind = options.kind or find_kind(artifact if artifact.is_dir() else _beginning(artifact))
    streamed = artifact.is_dir() or kind is ArtifactKind.SEGMENT
    content = artifact if streamed else read_bounded(artifact, _MAX_ARTIFACT_BYTES)
    today = _collateral(options.collateral)
    demands = Demands(
        model=_model(options, kind),
        measurement=options.measurement,
        simulation=Simulation.REFUSE if options.production else None,
        test_randomness=TestRandomness.ACCEPT if options.accept_test_randomness else None,
        timestamp=TimestampRule.REQUIRED if options.require_timestamp else None,
        witnesses=options.witnesses,
        held=tuple(read_bounded(path, _MAX_ARTIFACT_BYTES) for path in options.held),
        previous=tuple(read_bounded(path, _MAX_ARTIFACT_BYTES) for path in options.previous),
        certificates=tuple(read_bounded(path, _MAX_CHAIN_BYTES) for path in options.certificates),
        at=None if options.at is None else moment_typed(options.at),
        party=None if options.party is None else _party(options.party),
        owners_word=OwnersWord.ACCEPT if options.accept_owners_word else None,
        now=system_clock() if kind is ArtifactKind.EXPORT else None,
        collateral=tuple(one.data for one in today.documents) if today is not None else (),
        segment_secrets=None if options.segment_key is None else _opener(options.segment_key),
    )
    verdict = verify_artifact(
        content, Trust.load(options.trust), demands, lambda: _registry(today), kind=kind
    )
    if options.as_json:
        print(json.dumps(verdict_json(verdict, production=options.production), indent=2))
    elif not options.quiet:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else None
        paint = Paint.COLOUR if terminal and "NO_COLOR" not in os.environ else Paint.PLAIN
        print("\n".join(verdict_lines(verdict, artifact.name, width=width, paint=paint)))
    return 0 if verdict.accepted else EXIT_REFUTED


def kind_named(name: str | None) -> ArtifactKind | None:
    """The kind of artifact with this name; None for None.

    Raises:
        InputError: ``input.schema`` for any other word.
    """
    if name is None:
        return None
    if name in [kind.value for kind in ArtifactKind]:
        return ArtifactKind(name)
    raise InputError(
        "input.schema", "That is no kind of artifact.", f"One of these is wanted: {', '.join(ArtifactKind)}."
    )


def moment_typed(text: str) -> datetime:
    """The time that ``--at`` says, in UTC.

    Raises:
        InputError: ``input.syntax`` for another word, or a time without its zone.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InputError(
        "input.syntax", "--at is not a time with its zone.", "Write it like 2026-11-21T14:00:00Z."
    )


def _registry(today: Collateral | None) -> CheckRegistry:
    from cloister.workflow.checks import full_registry

    registry = full_registry()
    if today is not None:
        from cloister.enclave.receipt_check import register_check_of_today

        register_check_of_today(registry, today, system_clock())
    return registry


def _collateral(paths: tuple[Path, ...]) -> Collateral | None:
    """The documents that were named; None where none were asked for."""
    if not paths:
        return None
    from cloister.cli.enclave_files import collateral_in

    found = collateral_in(paths)
    if found.documents:
        return found
    raise InputError(
        "input.missing_file",
        "No document of a hardware vendor is in what --collateral names.",
        "Import some first:  cloister collateral import FILE... --into collateral/",
    )


def _model(options: VerifyOptions, kind: ArtifactKind | None) -> ModelArtifact | None:
    path = options.model
    if path is None:
        if kind is not ArtifactKind.RECEIPT:
            return None
        path = options.artifact.parent / _MODEL_FILE
    if not path.is_file():
        raise InputError(
            "input.missing_file",
            f"the model file {path} isn't there",
            "Name it with --model: a receipt without its model proves nothing about the model you hold.",
        )
    from cloister.evidence.context import model_artifact

    return model_artifact(read_bounded(path, _MAX_MODEL_BYTES))


def _beginning(path: Path) -> bytes:
    with os.fdopen(open_plain(path), "rb") as stream:
        return stream.read(_BEGINNING)


def _party(text: str) -> tuple[Role, str]:
    from cloister.evidence.predicates.base import PARTY_PATTERN, Role

    role, _, name = text.partition("/")
    if role in [one.value for one in Role] and re.fullmatch(PARTY_PATTERN, name):
        return Role(role), name
    raise InputError("input.syntax", "--party is not a role and a name.", "Write it like site/lakeview.")


def _opener(path: Path) -> SecretsOpener:
    from cloister.evidence.segments.secrets import OpeningKey, OpeningKeys

    return OpeningKeys(path) if path.is_dir() else OpeningKey.load(path)
