"""``cloister enclave verify``: every kind of file it takes, every check it prints, and its exit codes."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cloister.cli.enclave_files import chain_from_leaf
from cloister.core.clock import fixed_clock, format_time, system_clock
from cloister.core.errors import InputError
from cloister.core.keys import PublicKey
from cloister.enclave import SimulatedVendor, certificate_pem
from cloister.enclave.attestation import Evidence, GuestSettings, SimulatedPlatform, Tee
from cloister.enclave.attestation.ear import EarStatus, read
from tests.cli.conftest import Cloister, Ended

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

MEASUREMENT = bytes(range(48))
ASKED = bytes(range(64))
KIND_OF = {
    "snp": Tee.AMD_SEV_SNP,
    "tdx": Tee.INTEL_TDX,
    "sgx": Tee.INTEL_SGX,
    "nitro": Tee.AWS_NITRO,
    "nvgpu": Tee.NVIDIA_GPU,
}
GENUINE = {
    "snp": "azure-genoa-vtpm azure-milan-vtpm-1 genoa-v3-vcek milan-v2-debug milan-v2-vcek milan-v3-vcek "
    "milan-v3-vlek",
    "tdx": "v4-chain-only v4-debug v4-no-tcb-level v4-outofdate v4-outofdate-azure v4-trailing-bytes "
    "v4-uptodate v4-uptodate-ccel v5-no-tcb-level v5-no-tcb-level-2 v5-servicetd",
    "sgx": "v3-debug-occlum v3-debug-processorca v3-prod-confighardening",
    "nitro": "debug-2022-10-pubkey debug-2023-01 debug-2023-09-a debug-2023-09-b debug-2023-09-c "
    "debug-2024-11 prod-2022-10",
    "nvgpu": "blackwell-575.32 hopper-535.86-no-fwid hopper-550.90 hopper-570.124 hopper-590.12-ppcie-a "
    "nvswitch-ls10",
}
SAMPLES = [f"{kind}/{name}" for kind, names in GENUINE.items() for name in names.split()]
FORGED = ("nvgpu/hopper-invalid-signature", "nvgpu/hopper-trailing-byte")


class Shown:
    """A simulated machine's evidence as files of a folder."""

    def __init__(self, folder: Path, platform: SimulatedPlatform, vendor: SimulatedVendor) -> None:
        self.folder = folder
        self.evidence = platform.quote(ASKED)
        self.report, self.vek = folder / "report.bin", folder / "vek.der"
        self.issuers, self.root = folder / "issuers.pem", folder / "root.pem"
        self.crl, self.encoded, self.policy = folder / "list.crl", folder / "evidence.json", folder / "p.json"
        self.report.write_bytes(self.evidence.report)
        self.vek.write_bytes(self.evidence.chain[0])
        self.issuers.write_bytes(b"".join(map(certificate_pem, reversed(self.evidence.chain[1:]))))
        self.root.write_bytes(certificate_pem(vendor.root_der))
        self.crl.write_bytes(vendor.crl_der)
        self.encoded.write_bytes(self.evidence.encode() + b"\n")
        self.write_policy()

    def write_policy(self, **changes: object) -> None:
        fields = {"measurements": [MEASUREMENT.hex()], "platforms": "hardware-or-simulated", **changes}
        self.policy.write_text(json.dumps(fields))


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    vendor = SimulatedVendor.create(system_clock)
    return Shown(tmp_path, vendor.platform("north", MEASUREMENT), vendor)


@pytest.fixture
def verify(cloister: Cloister) -> Callable[..., Ended]:
    return lambda *words: cloister("enclave", "verify", *words)


def outcomes(ended: Ended) -> dict[str, str]:
    answer: Any = ended.json()
    return {check["name"]: check["outcome"] for check in answer["checks"]}


def test_without_a_policy_only_authenticity_is_asked_and_the_rest_is_said_not_to_be(
    shown: Shown, verify: Callable[..., Ended]
) -> None:
    ended = verify(shown.report, shown.vek, "--chain", shown.issuers, "--simulated-root", shown.root)
    assert ended.code == 0
    first, *rows = ended.out.splitlines()
    assert "SIMULATED" in first
    assert rows[0].split() == ["check", "outcome", "detail"]
    for line in (
        "signature         passed     as it must be",
        "revocation-list   not run    no list of this root at hand",
        "debug             not asked  debugging by the host is off; no policy was given",
        "revocation        not asked  whether one is revoked: no list was given",
        "accepted: every check that was asked passed; 4 not asked",
        f"sealed in: {ASKED.hex()}",
        f"measurement: {MEASUREMENT.hex()}",
        "TCB status: NotRated",
        "advisories: none",
        "revocation: unknown",
    ):
        assert line in rows, line


def test_with_a_policy_and_what_was_asked_everything_is(shown: Shown, verify: Callable[..., Ended]) -> None:
    words = (shown.encoded, "--simulated-root", shown.root, "--policy", shown.policy)
    asked = ("--report-data", ASKED.hex(), "--collateral", shown.crl)
    ended = verify(*words, *asked, "--json")
    assert ended.code == 0
    found = outcomes(ended)
    assert {name for name, outcome in found.items() if outcome != "passed"} == {"runtime-data", "tpm-quote"}
    answer: Any = ended.json()
    assert (answer["accepted"], answer["simulated"], answer["tee"]) == (True, True, "amd-sev-snp")
    assert answer["claims"]["registers"]["measurement"] == MEASUREMENT.hex()
    assert [one["what"] for one in answer["claims"]["collateral"]] == ["AMD CRL"]
    assert "AMD CRL: issued" in verify(*words, *asked).out
    unasked = verify(*words, "--collateral", shown.crl, "--json")
    assert (unasked.code, outcomes(unasked)["binding"]) == (0, "not_asked")


def test_each_reason_against_evidence_is_shown_and_exits_with_4(
    shown: Shown, verify: Callable[..., Ended]
) -> None:
    words = (shown.encoded, "--simulated-root", shown.root, "--policy", shown.policy, "--json")
    every = (*words, "--collateral", shown.crl)
    cases: list[tuple[tuple[object, ...], str]] = [
        ((*every, "--report-data", "00" * 64), "binding"),
        ((*every, "--nonce", "00"), "binding"),
        (words, "revocation"),
        ((shown.encoded,), "root"),
        ((shown.encoded, "--simulated-root", shown.root, "--at", "2001-01-01T00:00:00Z"), "validity"),
        ((shown.encoded, "--simulated-root", shown.root, "--nonce", "00" * 64), "binding"),
    ]
    for case, failed in cases:
        ended = verify(*case, *(() if "--json" in case else ("--json",)))
        answer: Any = ended.json()
        assert (ended.code, answer["refused_because"]) == (4, [failed])
    shown.write_policy(measurements=["ab" * 48], platforms="hardware-only", vmpl=2)
    refused = verify(*every[:-3], "--collateral", shown.crl)
    assert refused.code == 4
    assert refused.out.splitlines()[-1] == "refused: platform, privilege-level, measurement"


def test_a_guest_open_to_debugging_is_refused_where_a_policy_asks_and_shown_where_none_does(
    tmp_path: Path, verify: Callable[..., Ended]
) -> None:
    vendor = SimulatedVendor.create(system_clock)
    debugged = vendor.platform("north", MEASUREMENT, GuestSettings(policy=0x30000 | 1 << 19))
    one = Shown(tmp_path, debugged, vendor)
    words = (one.encoded, "--simulated-root", one.root, "--collateral", one.crl)
    assert "debugging by the host is on" in verify(*words).out
    ended = verify(*words, "--policy", one.policy)
    assert (ended.code, ended.out.splitlines()[-1]) == (4, "refused: debug")


def test_files_are_known_by_their_content_in_any_order_and_from_a_folder(
    shown: Shown, verify: Callable[..., Ended], tmp_path: Path
) -> None:
    trusted = ("--simulated-root", shown.root, "--json")
    expected = outcomes(verify(shown.encoded, *trusted))
    assert outcomes(verify(shown.issuers, shown.vek, shown.report, *trusted)) == expected
    assert (
        outcomes(verify("--chain", shown.vek, "--chain", shown.issuers, shown.report, *trusted)) == expected
    )
    folder = tmp_path / "machine"
    (folder / "roots").mkdir(parents=True)
    shown.report.rename(folder / "anything")
    shown.vek.rename(folder / "at-all")
    shown.issuers.rename(folder / "roots" / "issuers")
    (folder / "notes.txt").write_text("a machine")
    assert outcomes(verify(folder, *trusted)) == expected
    assert verify(folder, *trusted, "--tee", "amd-sev-snp").code == 0


def test_revocation_is_asked_by_who_brings_the_vendors_documents(
    shown: Shown, verify: Callable[..., Ended], tmp_path: Path
) -> None:
    other = tmp_path / "another-vendors.crl"
    other.write_bytes(SimulatedVendor.create(system_clock).crl_der)
    words = (shown.encoded, "--simulated-root", shown.root, "--collateral")
    assert "revocation        passed     no certificate is revoked" in verify(*words, shown.crl).out
    ended = verify(*words, other)
    assert ended.code == 4
    assert "refused: revocation" in ended.out.splitlines()


def test_a_folder_that_one_stands_in_is_read_like_any_other(
    shown: Shown, verify: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, file in (("machine", shown.report), ("machine", shown.vek), ("roots", shown.issuers)):
        (tmp_path / folder).mkdir(exist_ok=True)
        file.rename(tmp_path / folder / file.name)
    monkeypatch.chdir(tmp_path / "machine")
    assert verify(".", "--simulated-root", shown.root).code == 0


def test_a_trust_folder_may_pin_the_roots(shown: Shown, verify: Callable[..., Ended], tmp_path: Path) -> None:
    folder = tmp_path / "trust"
    (folder / "tee-root").mkdir(parents=True)
    (folder / "tee-root" / "maker.pem").write_bytes(shown.root.read_bytes())
    assert verify(shown.encoded, "--trust", folder).code == 0
    both = verify(shown.encoded, "--trust", folder, "--simulated-root", shown.root)
    assert both.code == 2


WRONG: dict[str, Callable[[Shown], tuple[object, ...]]] = {
    "no such file": lambda one: (one.folder / "nothing",),
    "no evidence": lambda one: (one.policy,),
    "certificates alone": lambda one: (one.vek,),
    "an empty file": lambda one: (written(one, b""),),
    "no certificates": lambda one: (one.report,),
    "no endorsed key's certificate": lambda one: (one.report, one.issuers),
    "two reports": lambda one: (one.report, written(one, one.report.read_bytes())),
    "too large": lambda one: (written(one, bytes(1024 * 1024 + 1)),),
    "another kind": lambda one: (one.encoded, "--tee", "intel-tdx"),
    "no kind": lambda one: (one.encoded, "--tee", "a-toaster"),
    "no time": lambda one: (one.encoded, "--at", "yesterday"),
    "no time zone": lambda one: (one.encoded, "--at", "2026-01-01T00:00:00"),
    "no hex": lambda one: (one.encoded, "--report-data", "xyz"),
    "odd hex": lambda one: (one.encoded, "--nonce", "abc"),
    "too much asked": lambda one: (one.encoded, "--nonce", "00" * 65),
    "both asked": lambda one: (one.encoded, "--nonce", "00", "--report-data", "00"),
    "no policy": lambda one: (one.encoded, "--policy", one.report),
    "an empty policy": lambda one: (one.encoded, "--policy", written(one, b"{}")),
    "an unknown rule": lambda one: (one.encoded, "--policy", written(one, b'{"allow_debug":true}')),
    "another policy's schema": lambda one: (one.encoded, "--policy", written(one, b'{"schema":"x"}')),
    "no collateral": lambda one: (one.encoded, "--collateral", one.policy),
    "a certificate as collateral": lambda one: (one.encoded, "--collateral", one.vek),
    "a token without a policy": lambda one: (
        one.encoded,
        "--ear",
        one.folder / "ear",
        "--ear-key",
        one.folder / "keys",
        "--nonce",
        "00",
    ),
    "a token of no fresh answer": lambda one: (
        one.encoded,
        "--ear",
        one.folder / "ear",
        "--ear-key",
        one.folder / "keys",
        "--policy",
        one.policy,
    ),
    "a token without a key": lambda one: (one.encoded, "--ear", one.folder / "ear"),
}


def written(one: Shown, data: bytes) -> Path:
    path = one.folder / "written"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_said_in_a_sentence_with_what_to_do(
    name: str, shown: Shown, verify: Callable[..., Ended]
) -> None:
    ended = verify(*WRONG[name](shown))
    assert ended.code == 2, ended
    assert ended.out == ""
    assert ended.err.startswith("cloister: ")
    assert "hint: " in ended.err
    assert "internal" not in ended.err


def test_evidence_that_is_not_of_its_exact_form_is_refused_with_its_own_code(
    shown: Shown, verify: Callable[..., Ended]
) -> None:
    broken = written(shown, b'{"chain": []}'.replace(b": ", b":"))
    ended = verify(broken, "--json")
    answer: Any = ended.json()
    assert (ended.code, answer["error"]["code"]) == (4, "attestation.malformed")


def test_a_root_that_does_not_say_that_it_is_simulated_is_none(
    shared_data: Callable[[str], Path], shown: Shown, verify: Callable[..., Ended]
) -> None:
    amd = shared_data("attestation/snp/roots") / "ask_ark_milan.pem"
    ended = verify(shown.encoded, "--simulated-root", amd)
    assert ended.code == 4
    assert "attestation.trust_store" in ended.err


def test_a_verdict_is_written_as_a_token_that_others_can_read(
    shown: Shown, verify: Callable[..., Ended]
) -> None:
    ear, keys = shown.folder / "ear.jwt", shown.folder / "keys"
    words = (shown.encoded, "--simulated-root", shown.root, "--policy", shown.policy)
    signed = ("--collateral", shown.crl, "--ear", ear, "--ear-key", keys)
    assert verify(*words, *signed, "--report-data", ASKED.hex()).code == 0
    key = PublicKey.from_pem((shown.folder / "ear.jwt.pem").read_bytes())
    token = read(ear.read_text(), key, system_clock())
    assert (token.status, token.nonce) == (EarStatus.WARNING, ASKED)
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in keys.iterdir() if "verifier" in one.name)
    assert verify(*words, *signed, "--report-data", "00" * 64).code == 4
    again = read(ear.read_text(), key, system_clock())
    assert again.status is EarStatus.CONTRAINDICATED


def test_help_shows_examples(verify: Callable[..., Ended]) -> None:
    assert "Example" in verify("--help").out


@pytest.mark.parametrize("name", SAMPLES)
def test_every_genuine_sample_of_a_kind_that_is_verified_is_verified_from_its_folder(
    name: str, shared_data: Callable[[str], Path], verify: Callable[..., Ended]
) -> None:
    folder = shared_data(f"attestation/{name}")
    ended = verify(folder, "--at", verify_at(folder), "--json")
    answer: Any = ended.json()
    assert ended.code == 0, answer
    assert answer["tee"] == KIND_OF[name.partition("/")[0]].value
    assert not answer["simulated"]
    assert answer["claims"]["registers"]
    if name.startswith("snp/"):
        measurement = json.loads((folder / "expected.json").read_text())["expect"]["measurement"]
        assert answer["claims"]["registers"]["measurement"] == measurement
        late = verify(folder, "--at", "2099-01-01T00:00:00Z", "--json")
        assert late.code == 4


@pytest.mark.parametrize("name", FORGED)
def test_every_shared_sample_that_is_not_genuine_is_refused(
    name: str, shared_data: Callable[[str], Path], verify: Callable[..., Ended]
) -> None:
    folder = shared_data(f"attestation/{name}")
    assert verify(folder, "--at", "2026-06-01T00:00:00Z", "--json").code == 4


def verify_at(folder: Path) -> str:
    known = json.loads((folder / "expected.json").read_text())
    if "verify_at_ms" in known:
        return datetime.fromtimestamp(known["verify_at_ms"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(known.get("verify_at") or known.get("chain_verify_at"))


def test_a_kind_that_this_version_does_not_verify_is_named(
    shown: Shown, verify: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.enclave.attestation import authenticator

    monkeypatch.setattr(authenticator, "_HOMES", {})
    authenticator.authenticator.cache_clear()
    ended = verify(shown.encoded, "--json")
    authenticator.authenticator.cache_clear()
    answer: Any = ended.json()
    assert (ended.code, answer["error"]["code"]) == (4, "attestation.unsupported")


def test_certificates_are_put_in_order_by_whom_they_name(shown: Shown) -> None:
    chain = shown.evidence.chain
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 2, 0, 1, 1)):
        assert chain_from_leaf(chain[place] for place in order) == chain
    other = SimulatedVendor.create(fixed_clock(datetime.fromisoformat("2026-01-01T00:00:00Z")))
    strangers = other.platform("south", MEASUREMENT).chain
    assert chain_from_leaf([*strangers[2:], *chain]) == chain
    with pytest.raises(InputError):
        chain_from_leaf([*strangers, *chain])


def test_times_of_a_list_are_shown_with_the_evaluation(shown: Shown, verify: Callable[..., Ended]) -> None:
    at = system_clock() + timedelta(hours=1)
    words = (shown.encoded, "--simulated-root", shown.root, "--collateral", shown.folder)
    ended = verify(*words, "--at", format_time(at))
    assert f"evaluated at: {format_time(at)}" in ended.out
    assert "revocation: checked" in ended.out


def test_evidence_with_devices_lists_their_checks_too(shown: Shown, verify: Callable[..., Ended]) -> None:
    """A device that is no GPU: looked at, and refused by a policy for what it is."""
    machine = Evidence(
        Tee.AMD_SEV_SNP, shown.evidence.report, shown.evidence.chain, devices=(shown.evidence,)
    )
    shown.encoded.write_bytes(machine.encode())
    words = (shown.encoded, "--simulated-root", shown.root, "--collateral", shown.crl, "--json")
    found = outcomes(verify(*words))
    assert found["gpu0/signature"] == "passed"
    assert found["gpu0/binding"] == "not_asked"
    ended = verify(*words, "--policy", shown.policy)
    answer: Any = ended.json()
    assert (ended.code, answer["refused_because"]) == (4, ["composition"])
