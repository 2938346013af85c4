"""The verifier stands alone: cryptography and pydantic suffice, nothing heavy is loaded, and it is quick."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.evidence.checks import Outcome, passed
from cloister.evidence.log import export_tiles
from cloister.evidence.predicates import Role
from cloister.evidence.segments import FileSink, OpeningKey, SegmentWriter
from cloister.evidence.trust import Trust, TrustEntry, write_trust
from tests.evidence.custody.house import House
from tests.evidence.synthetic import MODEL, SyntheticJob, verify
from tests.timing import at_a_quiet_pace, shortest

HEAVY = (
    "sqlalchemy",
    "numpy",
    "torch",
    "opacus",
    "nvflare",
    "sklearn",
    "scipy",
    "structlog",
    "yaml",
    "pydantic_settings",
    "typer",
    "rich",
    "safetensors",
    "psycopg",
    "pkcs11",
    "jinja2",
)

SCRIPT = """
import json, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[4].split(",")):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from cloister.evidence.checks import CheckRegistry, passed
from cloister.evidence.trust import Trust
from cloister.evidence.verifier import Verifier, model_artifact

registry = CheckRegistry()
for name in ("policy", "attestation"):
    registry.register(name, lambda context, name=name: passed(name, ""))
verdict = Verifier(Trust.load(Path(sys.argv[1])), registry).verify(
    Path(sys.argv[2]).read_bytes(), model_artifact(bytes.fromhex(sys.argv[3]))
)
print(json.dumps({"checks": {c.id: c.outcome.value for c in verdict.checks}, "modules": sorted(sys.modules)}))
"""


COMMAND = """
import contextlib, json, sys, time

absent = set(sys.argv[1].split(","))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(name)

if absent != {""}:
    sys.meta_path.insert(0, Absent())
from cloister.cli.standalone import main
code = None
try:
    main(sys.argv[2:])
except SystemExit as ended:
    code = ended.code
told = {"code": code, "seconds": time.process_time(), "modules": sorted(sys.modules)}
print(json.dumps(told), file=sys.stderr)
"""
"""Runs the command as its script would, and tells what it cost from the interpreter's start."""


@dataclass(frozen=True)
class Commanded:
    """How a run of the command in a process of its own ended."""

    code: int
    seconds: float
    modules: frozenset[str]
    verdict: dict[str, object]

    @property
    def refused_because(self) -> object:
        """The checks that did not pass."""
        return self.verdict["refused_because"]


def command(*words: str | Path, absent: tuple[str, ...] = ()) -> Commanded:
    """Run ``cloister-verify`` in a fresh interpreter in which some libraries can't be imported."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, ",".join(absent), *map(str, words), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = json.loads(done.stderr)
    modules = frozenset(name.partition(".")[0] for name in told["modules"])
    return Commanded(told["code"], told["seconds"], modules, json.loads(done.stdout))


def pin(folder: Path, trust: Trust) -> Path:
    """Write the public keys of a trust into a folder."""
    roles = (Role.HUB, Role.SITE, Role.HOSPITAL, Role.DEVELOPER)
    entries = [
        TrustEntry(role, party, trust.key(role, party).pem.encode())
        for role in roles
        for party in trust.parties(role)
    ]
    write_trust(folder / "trust", entries)
    return folder / "trust"


def run_alone(
    tmp_path: Path, job: SyntheticJob, receipt: bytes, absent: tuple[str, ...]
) -> dict[str, object]:
    """Verify in a fresh interpreter in which some libraries can't be imported."""
    pin(tmp_path, job.trust)
    (tmp_path / "receipt.json").write_bytes(receipt)
    arguments = [
        str(tmp_path / "trust"),
        str(tmp_path / "receipt.json"),
        MODEL.hex(),
        ",".join(absent),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_with_cryptography_and_pydantic_alone_only_epsilon_is_not_run(
    tmp_path: Path, honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    answer = run_alone(tmp_path, honest_job, honest_receipt, (*HEAVY, "dp_accounting", "absl"))
    checks = answer["checks"]
    assert isinstance(checks, dict)
    assert {name: outcome for name, outcome in checks.items() if outcome != "passed"} == {
        "epsilon": "not_run"
    }
    modules = answer["modules"]
    assert isinstance(modules, list)
    assert {name.partition(".")[0] for name in modules} & set(HEAVY) == set()


def test_where_they_are_installed_the_heavy_libraries_are_still_not_loaded_for_a_bad_receipt(
    tmp_path: Path, honest_job: SyntheticJob
) -> None:
    modules = run_alone(tmp_path, honest_job, b"{}", ())["modules"]
    assert isinstance(modules, list)
    assert {name.partition(".")[0] for name in modules} & {*HEAVY, "dp_accounting"} == set()


@pytest.mark.timed
def test_a_receipt_of_three_sites_and_ten_rounds_is_verified_in_150_ms_without_epsilon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.evidence import verifier

    job = SyntheticJob(tmp_path, sites=("east", "north", "south"), rounds=10).run()
    receipt = job.receipt()
    assert verify(job, receipt).accepted
    checks = {**verifier._CHECKS, "epsilon": lambda _: passed("epsilon", "left out of the measurement")}
    monkeypatch.setattr(verifier, "_CHECKS", checks)

    def once() -> float:
        began = time.process_time()
        verdict = verify(job, receipt)
        seconds = time.process_time() - began
        assert all(one.outcome is Outcome.PASSED for one in verdict.checks)
        return seconds

    assert shortest(once, 0.150, least=2) < 0.150


# The command


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The receipt of a job of four sites and fifty rounds, with its model and the keys beside it."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "logs").mkdir()
    sites = ("east", "north", "south", "west")
    job = SyntheticJob(folder / "logs", sites=sites, rounds=50, noise_multiplier=16.0).run()
    (folder / "receipt.json").write_bytes(job.receipt())
    (folder / "model.safetensors").write_bytes(MODEL)
    pin(folder, job.trust)
    return folder


def test_the_command_judges_a_receipt_with_cryptography_and_pydantic_alone(large: Path) -> None:
    told = command(
        large / "receipt.json", "--trust", large / "trust", absent=(*HEAVY, "dp_accounting", "rfc3161_client")
    )
    assert told.code == 1
    # What the synthetic job has not: a real chip's evidence and a whole request.
    assert told.refused_because == ["policy", "attestation", "epsilon"]
    assert told.modules.isdisjoint(HEAVY)


def test_the_command_judges_every_other_artifact_likewise(tmp_path: Path) -> None:
    audit, sink = tmp_path / "audit", tmp_path / "sink.jsonl"
    audit.mkdir()
    with House(tmp_path) as house:
        house.job()
        (tmp_path / "export.json").write_bytes(house.export(house.of_job(), "north", ()))
        (tmp_path / "north.note").write_text(house.logs["north"].checkpoint().encode())
        export_tiles(house.logs["north"], tmp_path / "tiles")
        outside = FileSink(sink)
        sealing = OpeningKey.generate().sealing_key
        writer = SegmentWriter(audit, "immune", house.keys["north"], sealing, sinks=[outside])
        writer.append({"call": 1})
        writer.close()
        outside.close()
        trust = pin(tmp_path, house.trust)
    held = {"audit": ("--held", sink), "tiles": ("--held", tmp_path / "north.note")}
    kinds = {"export.json": "export", "north.note": "checkpoint", "tiles": "log", "audit": "segment"}
    for name, kind in kinds.items():
        told = command(
            tmp_path / name, "--trust", trust, *held.get(name, ()), absent=(*HEAVY, "dp_accounting")
        )
        assert told.verdict["kind"] == kind
        assert told.verdict["accepted"] is True, told.verdict
        assert told.modules.isdisjoint({*HEAVY, "dp_accounting"})


@pytest.mark.timed
def test_the_whole_command_is_quick_and_epsilon_costs_a_second_more(large: Path) -> None:
    """The goals, 400 ms and 1.8 s, are of a quiet machine; here half as much again is borne."""
    words = (large / "receipt.json", "--trust", large / "trust")
    without, whole = 1.5 * 0.4, 1.5 * 1.8

    def seconds(*absent: str) -> Callable[[], float]:
        return at_a_quiet_pace(lambda: command(*words, absent=absent).seconds)

    assert shortest(seconds("dp_accounting"), without) < without
    assert shortest(seconds(), whole) < whole
