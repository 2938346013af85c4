"""The command that serves a keeper's data keys, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from cloister.core.clock import system_clock
from cloister.core.keys import open_key_store
from cloister.core.settings import Settings, load_settings
from cloister.enclave import SimulatedVendor
from cloister.enclave.attestation import certificate_pem
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import KeyRequest, KeyServiceEndpoint
from cloister.enclave.keyrelease.folder import KeeperFolder
from cloister.evidence.predicates import KeyRelease
from cloister.evidence.statement import open_statement
from cloister.workflow.party import Party
from tests.cli.conftest import Cloister
from tests.console import CLOISTER
from tests.enclave.attestation_scene import MEASUREMENT
from tests.enclave.keyrelease.scene import SEAL

SCOPE = "study:HEART"


@dataclass(frozen=True)
class Service:
    """A key service that runs."""

    process: subprocess.Popen[bytes]
    facts: dict[str, str]


@contextmanager
def service(keeper: Path, *more: str) -> Iterator[Service]:
    words = [*CLOISTER, "keys", "serve", str(keeper), "--json", *more]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=keeper.parent,
    )
    try:
        assert process.stdout is not None
        yield Service(process, json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def stated(keeper: Path) -> list[KeyRelease]:
    """What the keeper's log says, oldest first."""
    folder = keeper / "log"
    signer = open_key_store(Settings(), folder / "keys", owner="site/keeper").load("site")
    with Party("keeper", "site", signer, folder).open_log_to_show() as log:
        found = [open_statement(log.entry(index)).predicate for index in range(log.size)]
    return [one for one in found if isinstance(one, KeyRelease)]


def test_a_worker_elsewhere_gets_a_key_and_the_log_of_the_command_has_each_release_and_refusal(
    cloister: Cloister, tmp_path: Path
) -> None:
    keeper = tmp_path / "keeper"
    vendor = SimulatedVendor.open(tmp_path, system_clock)
    (tmp_path / "root.pem").write_bytes(certificate_pem(vendor.root_der))
    words = ("keys", "data-key", "create", keeper, "--dataset", "heart", "--purpose", "test-data", "--json")
    key = cast(str, cloister(*words).json()["data_key"])
    allowed = cloister(
        *("keys", "data-key", "allow", keeper, key, "--scope", SCOPE, "--releases", "2", "--json"),
        *("--measurement", MEASUREMENT.hex(), "--allow-simulated", "--without-revocation"),
    ).json()
    policy_id = cast(str, allowed["policy_id"])

    def ask(address: str, measurement: bytes = MEASUREMENT) -> bytes:
        endpoint = KeyServiceEndpoint(address)
        try:
            asking = KeyRequest(SCOPE, policy_id, SEAL)
            request = asking.answer(
                endpoint.challenge(asking.ask()), vendor.platform("node", measurement).quote
            )
            return bytes(asking.open(endpoint.release(request), dataset="heart"))
        finally:
            endpoint.close()

    book = KeeperFolder(keeper, load_settings({}))
    for round_ in range(2):  # the second one goes on in the log and the counts of the first
        more = ("--listen", str(tmp_path / "k.sock"), "--simulated-root", str(tmp_path / "root.pem"))
        with service(keeper, *more) as running:
            assert running.facts["owner"] == book.signer().public_key.key_id
            assert "NOT HARDWARE" in running.facts["platforms"]
            assert ask(running.facts["listening"]) == bytes(book.unwrap(book.book.key(key)))
            with pytest.raises(ReleaseError) as caught:
                ask(running.facts["listening"], bytes(48))
            assert caught.value.code == "release.refused"
            if round_:
                with pytest.raises(ReleaseError):
                    ask(running.facts["listening"])
            second = cloister("keys", "serve", keeper, "--listen", running.facts["listening"], "--json")
            assert (second.code, second.json()["error"]["code"]) == (5, "storage.in_use")  # type: ignore[index]
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(30) == 0
        assert not (tmp_path / "k.sock").exists()
    assert [(one.outcome, one.number, one.code) for one in stated(keeper)] == [
        ("released", 1, None),
        ("refused", 0, "attestation.measurement"),
        ("released", 2, None),
        ("refused", 0, "attestation.measurement"),
        ("refused", 0, "release.count"),
    ]
    assert {one.scope for one in stated(keeper)} == {SCOPE}


def test_a_service_of_hardware_gives_a_simulated_machine_nothing(cloister: Cloister, tmp_path: Path) -> None:
    keeper = tmp_path / "keeper"
    words = ("keys", "data-key", "create", keeper, "--dataset", "heart", "--purpose", "test-data", "--json")
    key = cast(str, cloister(*words).json()["data_key"])
    allowed = cloister(
        *("keys", "data-key", "allow", keeper, key, "--scope", SCOPE, "--json"),
        *("--measurement", MEASUREMENT.hex(), "--allow-simulated", "--without-revocation"),
    ).json()
    asking = KeyRequest(SCOPE, cast(str, allowed["policy_id"]), SEAL)
    quote = SimulatedVendor.create(system_clock).platform("node", MEASUREMENT).quote
    with service(keeper, "--listen", "127.0.0.1:0") as running:
        assert running.facts["platforms"] == "hardware"
        endpoint = KeyServiceEndpoint(running.facts["listening"])
        with pytest.raises(ReleaseError):
            endpoint.release(asking.answer(endpoint.challenge(asking.ask()), quote))
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0
    assert [one.code for one in stated(keeper)] == ["attestation.untrusted_root"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("absent",), "storage.failed"),
        (("keeper", "--listen", "nowhere"), "input.syntax"),
        (("keeper", "--listen", "absent/socket"), "storage.in_use"),
        (("keeper", "--collateral", "absent"), "input.missing_file"),
        (("keeper", "--simulated-root", "absent"), "input.missing_file"),
    ],
)
def test_what_a_keeper_gets_wrong_is_said(
    cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    cloister("keys", "data-key", "create", "keeper", "--dataset", "heart")
    ended = cloister("keys", "serve", *words, "--json")
    assert cast(dict[str, str], ended.json()["error"])["code"] == code
    assert ended.code != 70
