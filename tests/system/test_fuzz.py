"""Hostile input for hours: whatever is read ends in a verdict or in a typed error, in bounded memory."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable

import pytest

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.documents import load_yaml
from cloister.core.errors import CloisterError
from cloister.enclave.attestation import Evidence
from cloister.enclave.model_file import decode_model
from cloister.evidence.checkpoint import parse_checkpoint
from cloister.evidence.envelope import decode_envelope
from cloister.evidence.statement import decode_statement
from cloister.policy import decode_manifest, decode_request
from tests.nightly import nightly_seed, spread
from tests.system.conftest import MainJob
from tests.system.example_job import TUMOUR
from tests.system.tampering import judge

MEMORY_GROWTH_KIB = 512 * 1024

READERS: dict[str, Callable[[bytes], object]] = {
    "checkpoint": lambda data: parse_checkpoint(data.decode("utf-8", "replace")),
    "envelope": decode_envelope,
    "evidence": Evidence.decode,
    "job file": load_yaml,
    "json": parse,
    "manifest": decode_manifest,
    "model": decode_model,
    "request": decode_request,
    "statement": decode_statement,
}
HOSTILE: tuple[JSON, ...] = (
    *(None, True, -1, 0, 2**53 - 1, 1e308, -0.5, "", "\x00", "\u202e", "A" * 100_000),
    *([], {}, [[]] * 1000, {"a": {"a": {}}}),
)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Bytes cut, doubled, overwritten, or with something put in."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed) + 1)
        match draw.randrange(4):
            case 0:
                del changed[at : at + draw.randint(1, 64)]
            case 1:
                changed[at:at] = changed[max(0, at - draw.randint(1, 256)) : at]
            case 2:
                changed[at : at + 4] = draw.randbytes(4)
            case _:
                changed[at:at] = draw.choice([b"[" * 2000, b'{"a":' * 500, b"9" * 5000, b"\xff", b"- " * 500])
    return bytes(changed)


def replaced(value: JSON, draw: random.Random) -> JSON:
    """The same document with one value, at a random place, put in by somebody hostile."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        return {**value, key: replaced(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        return [*value[:place], replaced(value[place], draw), *value[place + 1 :]]
    return draw.choice(HOSTILE)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_any_document_ends_in_a_value_or_a_typed_error(
    main_job: MainJob, record_property: Callable[[str, object], None]
) -> None:
    samples = [
        TUMOUR.read_bytes(),
        main_job.outcome.receipt.read_bytes()[:20_000],
        main_job.outcome.model.read_bytes(),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in spread(range(20_000), record_property):
        draw = random.Random(f"{nightly_seed()}/{seed}")
        data = mutated(draw.choice(samples), draw)
        try:
            READERS[draw.choice(sorted(READERS))](data)
        except CloisterError:
            continue
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_GROWTH_KIB


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_any_receipt_ends_in_a_verdict_that_refuses_it(
    main_job: MainJob, record_property: Callable[[str, object], None]
) -> None:
    honest = parse(main_job.outcome.receipt.read_bytes())
    survivors = []
    for seed in spread(range(5_000), record_property):
        receipt = canonicalize(replaced(honest, random.Random(f"{nightly_seed()}/{seed}")))
        if receipt != canonicalize(honest) and judge(main_job.outcome, receipt=receipt).accepted:
            survivors.append(seed)
    assert survivors == []
