"""Hostile bytes for every parser: a typed error or a value, never another exception, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import CloisterError
from tests.evidence.attacks.parsers import PARSERS, genuine
from tests.evidence.synthetic import SyntheticJob
from tests.nightly import nightly_seed, spread

ROOT = Path(__file__).parents[3]
BATCH = 200
ATHERIS_SECONDS = 30
MEMORY_BYTES = 1 << 30

HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and closed": b"[" * 50_000 + b"]" * 50_000,
    "a huge number": b"9" * 300_000,
    "a huge exponent": b"1e999999999",
    "a huge number in an object": b'{"body":' + b"9" * 300_000 + b"}",
    "duplicate keys": b'{"body":1,"body":2,"signature":1,"signature":2}',
    "invalid UTF-8": b'{"body":"\xff\xfe\xed\xa0\x80"}',
    "lone surrogates": b'{"body":"\\ud800","signature":"\\udfff"}',
    "zeros": bytes(100_000),
    "a model that claims a gibibyte": (1 << 30).to_bytes(8, "little") + b"{}",
    "a model that claims all": b"\xff" * 8,
    "DER that claims a gibibyte": b"\x30\x84\x40\x00\x00\x00",
    "DER without an end": b"\x30\x80" * 50_000,
    "a checkpoint of a size past all": b"a\n" + b"9" * 5000 + b"\n" + b"A" * 43 + b"=\n\n",
    "many lines": b"\n" * 500_000,
    "a long line": b"A" * 1_000_000,
    "an armoured gibibyte": b"-----BEGIN CERTIFICATE-----\n"
    + b"A" * 500_000
    + b"\n-----END CERTIFICATE-----\n",
}


def read(name: str, data: bytes) -> None:
    """Read bytes as a stranger's; a typed error is as good as a value."""
    with contextlib.suppress(CloisterError):
        PARSERS[name](data)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut, doubled or put in, at a few places."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(changed) + 1)
        length = min(draw.choice([1, 1, 2, 8, 64]), len(changed) - place)
        match draw.randrange(5):
            case 0:
                changed[place : place + length] = draw.randbytes(length)
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = changed[place : place + length]
            case 3:
                changed[place:place] = draw.choice(
                    [b"\x00", b'"', b"[", b"{", b",", b"\n", b"\xff", b"1e9", b"=", b"\\ud800", b"\x30\x80"]
                )
            case _:
                if place < len(changed):
                    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


@pytest.fixture(scope="session")
def samples(honest_job: SyntheticJob) -> dict[str, bytes]:
    return genuine(honest_job)


@pytest.mark.parametrize("name", PARSERS)
def test_a_genuine_sample_is_read(samples: dict[str, bytes], name: str) -> None:
    """What the mutations start from is sound; tiles and continuations start from a part of themselves."""
    if name in samples and name not in {"tiles", "continuation"}:
        PARSERS[name](samples[name])


@pytest.mark.parametrize("name", PARSERS)
def test_hostile_shapes_end_in_typed_errors(name: str) -> None:
    for data in HOSTILE.values():
        read(name, data)


@pytest.mark.parametrize("name", PARSERS)
def test_mutated_samples_end_in_typed_errors(samples: dict[str, bytes], name: str) -> None:
    draw = random.Random(2026)
    for _ in range(40):
        read(name, mutated(samples.get(name, b'{"body":{}}\n'), draw))


@given(data=st.data())
def test_any_bytes_end_in_typed_errors(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([one for one in PARSERS if one not in {"tiles", "export bundle"}]))
    read(name, data.draw(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode))))


MEASURE = """
import resource, sys
from pathlib import Path
from tests.evidence.attacks.parsers import PARSERS
from tests.evidence.attacks.test_fuzz import HOSTILE, read
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
for name in PARSERS:
    for data in HOSTILE.values():
        read(name, data)
status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with what the parent had
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited so on Linux only")
def test_hostile_shapes_stay_within_a_gibibyte_of_address_space() -> None:
    """A parser that believed a claim of a gibibyte, or recursed as deep as told, would be killed for it."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE.format(limit=MEMORY_BYTES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) < 400 * 1024


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PARSERS)
def test_thousands_of_mutations_end_in_typed_errors(
    samples: dict[str, bytes], name: str, record_property: Callable[[str, object], None]
) -> None:
    for batch in spread(range(25), record_property):
        draw = random.Random(nightly_seed() * 1000 + batch)
        for _ in range(BATCH):
            read(name, mutated(samples.get(name, b'{"body":{}}\n'), draw))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", PARSERS)
def test_a_search_led_by_coverage_finds_nothing_but_typed_errors(
    samples: dict[str, bytes], name: str, tmp_path: Path
) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed on this machine")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if name in samples:
        (corpus / "genuine").write_bytes(samples[name])
    share = float(os.environ.get("CLOISTER_NIGHTLY_SECONDS", "inf"))
    options = [
        f"-max_total_time={int(max(5, min(share, ATHERIS_SECONDS)))}",
        f"-seed={nightly_seed() + 1}",
        "-rss_limit_mb=1024",
        "-timeout=20",
        f"-artifact_prefix={tmp_path}/",
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.evidence.attacks.fuzzing", name, *options, str(corpus)],
        cwd=ROOT,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:].decode("utf-8", "replace")
