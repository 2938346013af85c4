"""The launcher: nothing starts that has not proved itself under a vendor's root; nothing stands in for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.clock import fixed_clock
from cloister.core.errors import EXIT_MEANINGS, InputError
from cloister.enclave.attestation import AppraisalPolicy, CollateralKind, GuestSettings, Platforms, trust
from cloister.enclave.attestation.binding import SELF_TEST, Binding, device_nonce
from cloister.enclave.attestation.collect import Collector, EvidenceSource, GpuMode, Machine, collector_for
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.trust import TrustedRoot
from cloister.enclave.detect import Detection, detect
from cloister.enclave.errors import CollectError, LaunchError
from cloister.enclave.launch import (
    INSECURE_VARIABLES,
    NO_KEY,
    NO_POLICY,
    SIMULATION_VARIABLES,
    LaunchTerms,
    SelfTest,
    gpus_of,
    require_hint,
    require_protection,
    require_switches_for,
)
from cloister.enclave.launch_file import LaunchConfiguration, load_launch_file
from cloister.enclave.observed import Observed
from cloister.enclave.protection import (
    Protection,
    require_keys_may_be_asked_for,
    require_records_may_be_read,
)
from cloister.evidence.hardware_terms import ANY_VERSION
from tests.enclave import recorded_devices as recorded
from tests.enclave.attestation_scene import MEASUREMENT, NOW, scene, vendor
from tests.enclave.recorded_devices import RecordedGpus, RecordedMachine, TsmMachine

SCENE = scene()
WAIVED = LaunchTerms(without_revocation=(Tee.AMD_SEV_SNP,))


def guest(settings: GuestSettings | None = None) -> Machine:
    """A guest whose chip is a simulated vendor's, behind the kernel's real interface."""
    platform = vendor().platform("guest", MEASUREMENT, settings)
    machine = TsmMachine(
        answer=lambda data: platform.quote(data).report, table=recorded.snp_table(platform.chain)
    )
    return Machine(collector_for(EvidenceSource.CONFIGFS_TSM, machine))


@pytest.fixture
def as_if_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated vendor's root is taken for one pinned in code: the one way to see a start pass."""
    digest = hashlib.sha256(vendor().root_der).hexdigest()
    pinned = TrustedRoot(digest, frozenset({Tee.AMD_SEV_SNP}), simulated=False)
    monkeypatch.setattr(trust, "VENDOR_ROOTS", {**trust.VENDOR_ROOTS, digest: pinned})


def start(machine: Machine, terms: LaunchTerms = WAIVED, nonce: bytes = b"n" * 32) -> SelfTest:
    return require_protection(machine, terms, clock=fixed_clock(NOW), random=lambda count: nonce[:count])


def reasons(action: Callable[[], object]) -> str:
    with pytest.raises(LaunchError) as caught:
        action()
    assert caught.value.code == "launch.unprotected"
    assert caught.value.exit_code == 78
    assert caught.value.details
    return " ".join(caught.value.details)


def test_a_simulated_chip_starts_nothing() -> None:
    assert "trusted root" in reasons(lambda: start(guest()))


@pytest.mark.parametrize("sample", ["milan-v2-vcek", "genoa-v3-vcek", "milan-v2-debug"])
def test_genuine_evidence_of_another_moment_starts_nothing(
    sample: str, shared_data: Callable[[str], Path]
) -> None:
    """Replayed by the device itself, past the collector's own look."""
    from tests.enclave.test_snp_genuine import Sample

    genuine = Sample(shared_data("attestation/snp"), sample)

    class Replaying:
        def quote(self, report_data: bytes) -> Evidence:
            del report_data
            return genuine.evidence

    def replay() -> SelfTest:
        return require_protection(Machine(Replaying()), WAIVED, clock=fixed_clock(genuine.at), random=bytes)

    told = reasons(replay)
    assert "binding" in told
    assert ("debug" in told) == sample.endswith("debug")


@pytest.mark.usefixtures("as_if_hardware")
def test_a_machine_that_proves_itself_starts() -> None:
    proof = start(guest())
    assert proof.verdict.code is None
    assert proof.verdict.measurement == MEASUREMENT.hex()
    assert not proof.code_checked


@pytest.mark.usefixtures("as_if_hardware")
@pytest.mark.parametrize(
    ("settings", "word"),
    [(GuestSettings(policy=0xB0000), "debug"), (GuestSettings(policy=0x70000), "migration")],
)
def test_a_guest_that_its_host_may_look_into_does_not_start(settings: GuestSettings, word: str) -> None:
    assert word in reasons(lambda: start(guest(settings)))


@pytest.mark.usefixtures("as_if_hardware")
def test_without_revocation_lists_nothing_starts_unless_the_operator_does_without() -> None:
    assert "revocation" in reasons(lambda: start(guest(), LaunchTerms()))


@pytest.mark.usefixtures("as_if_hardware")
def test_with_a_policy_the_code_has_to_be_the_operators() -> None:
    def terms(measurement: bytes) -> LaunchTerms:
        policy = AppraisalPolicy(
            measurements=(measurement.hex(),),
            amd_lines=tuple(ANY_VERSION),
            minimum_tcb=dict(ANY_VERSION),
            without_revocation=(Tee.AMD_SEV_SNP,),
        )
        return LaunchTerms(policy)

    assert start(guest(), terms(MEASUREMENT)).code_checked
    assert "measurement" in reasons(lambda: start(guest(), terms(bytes(48))))


@pytest.mark.usefixtures("as_if_hardware")
def test_each_start_asks_a_fresh_question_that_serves_nothing_else() -> None:
    asked: list[bytes] = []
    inner = guest()

    class Noting:
        def quote(self, report_data: bytes) -> Evidence:
            asked.append(report_data)
            return inner.quote(report_data)

    for nonce in (b"a" * 32, b"b" * 32):
        start(Machine(Noting()), nonce=nonce)
    expected = [
        Binding(nonce, NO_KEY, "self-test", NO_POLICY, SELF_TEST).report_data()
        for nonce in (b"a" * 32, b"b" * 32)
    ]
    assert asked == expected
    assert asked[0] != asked[1]


def test_a_machine_without_a_hint_is_refused_before_anything_is_asked() -> None:
    nothing = detect(Observed(cpu_flags=frozenset({"hypervisor", "sev_snp"})))
    assert "virtual machine" in reasons(lambda: require_hint(nothing))
    found = detect(Observed(present=frozenset({"/dev/nsm"})))
    assert require_hint(found).source is EvidenceSource.NITRO


def test_memory_encryption_without_proof_is_refused() -> None:
    only: Detection = detect(Observed(sev_status=0b011))
    assert only.memory_encryption_only
    assert "SEV-ES" in reasons(lambda: require_hint(only))


@pytest.mark.parametrize("source", list(EvidenceSource))
def test_a_hint_without_a_device_behind_it_is_refused(source: EvidenceSource) -> None:
    assert reasons(lambda: start(Machine(collector_for(source, RecordedMachine()))))


def test_a_tdreport_starts_nothing() -> None:
    device = RecordedMachine(ioctls={("/dev/tdx_guest", 0xC4405401): recorded.tdx_guest()})
    collector: Collector = collector_for(EvidenceSource.TDX_GUEST, device)
    assert "nobody elsewhere" in reasons(lambda: start(Machine(collector)))


# GPUs


def test_the_machine_and_its_gpus_answer_one_question(shared_data: Callable[[str], Path]) -> None:
    from tests.enclave.test_collect import gpus

    inner = guest()
    machine = replace(inner, gpus=gpus(shared_data, "hopper-550.90"))
    evidence = machine.quote(b"d" * 64)
    assert evidence.devices[0].report[4:36] == device_nonce(b"d" * 64)
    binding = SCENE.binding
    assert binding.device_nonce() == device_nonce(binding.report_data())


@pytest.mark.usefixtures("as_if_hardware")
@pytest.mark.parametrize(
    ("mode", "word"),
    [
        (GpuMode(confidential=False, production=True, developer_tools=False), "computing is off"),
        (GpuMode(confidential=True, production=True, developer_tools=True), "developer tools"),
        (GpuMode(confidential=True, production=False, developer_tools=False), "production"),
    ],
)
def test_a_gpu_outside_confidential_mode_keeps_the_machine_from_starting(mode: GpuMode, word: str) -> None:
    gpus = RecordedGpus((bytes,), (b"",), mode)
    assert word in reasons(lambda: start(replace(guest(), gpus=gpus)))
    assert not gpus.ready


@pytest.mark.usefixtures("as_if_hardware")
def test_a_machine_without_gpus_starts_with_their_driver_loaded() -> None:
    gpus = RecordedGpus((), ())
    assert start(replace(guest(), gpus=gpus)).verdict.code is None
    assert not gpus.ready


def test_a_loaded_driver_that_cannot_be_asked_keeps_the_machine_from_starting() -> None:
    assert gpus_of(RecordedMachine(), recorded.no_gpus) is None
    loaded = RecordedMachine(files={"/dev/nvidiactl": b""})
    assert "driver" in reasons(lambda: gpus_of(loaded, recorded.no_gpus))
    driver = RecordedGpus((), ())
    assert gpus_of(loaded, lambda: driver) is driver


# Switches and variables


@pytest.mark.parametrize("name", [*SIMULATION_VARIABLES, *INSECURE_VARIABLES])
@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "on", "please"])
def test_no_variable_alone_changes_the_protection(name: str, value: str) -> None:
    with pytest.raises(LaunchError) as caught:
        require_switches_for({name: value}, simulation=False, insecure=False)
    assert caught.value.code == "launch.environment"
    assert name in caught.value.message
    insecure = name in INSECURE_VARIABLES
    require_switches_for({name: value}, simulation=not insecure, insecure=insecure)
    with pytest.raises(LaunchError):
        require_switches_for({name: value}, simulation=insecure, insecure=not insecure)


@pytest.mark.parametrize("value", ["", "0", "false", "No", " off "])
def test_a_variable_that_says_no_is_no_obstacle(value: str) -> None:
    environment = dict.fromkeys((*SIMULATION_VARIABLES, *INSECURE_VARIABLES), value)
    require_switches_for(environment, simulation=False, insecure=False)


@pytest.mark.parametrize("protection", [Protection.SIMULATED, Protection.INSECURE])
def test_patients_records_stop_a_run_that_no_hardware_protects(
    protection: Protection,
) -> None:
    with pytest.raises(LaunchError) as caught:
        require_records_may_be_read(protection, "records")
    assert caught.value.code == "launch.real_records"
    assert "contents: test-data" in str(caught.value.hint)
    require_records_may_be_read(protection, "test-data")


def test_a_run_on_proven_hardware_may_read_whatever_the_hospitals_have() -> None:
    for contents in ("test-data", "records"):
        require_records_may_be_read(Protection.PROTECTED, contents)


def test_insecure_runs_may_not_ask_for_keys() -> None:
    with pytest.raises(LaunchError) as caught:
        require_keys_may_be_asked_for(Protection.INSECURE)
    assert caught.value.code == "launch.keys_refused"
    for one in (Protection.PROTECTED, Protection.SIMULATED):
        require_keys_may_be_asked_for(one)


def test_only_what_is_protected_carries_no_mark() -> None:
    assert {one: one.mark for one in Protection} == {
        Protection.PROTECTED: "",
        Protection.SIMULATED: "SIMULATED",
        Protection.INSECURE: "INSECURE",
    }


def test_the_launchers_refusal_has_an_exit_code_of_its_own() -> None:
    assert LaunchError.exit_code == 78
    assert 78 in EXIT_MEANINGS


# The configuration


def written(folder: Path, text: str) -> Path:
    path = folder / "enclave.toml"
    path.write_text(text)
    return path


def test_an_empty_configuration_asks_for_genuine_hardware_and_no_more(tmp_path: Path) -> None:
    assert load_launch_file(written(tmp_path, "")) == LaunchConfiguration()


def test_a_whole_configuration_is_read_with_its_files(tmp_path: Path) -> None:
    chain = SCENE.platform.chain
    (tmp_path / "vcek.der").write_bytes(chain[0])
    (tmp_path / "ask.pem").write_bytes(trust.certificate_pem(chain[1]))
    (tmp_path / "ark.pem").write_bytes(trust.certificate_pem(chain[2]))
    (tmp_path / "crl.der").write_bytes(b"list")
    path = written(
        tmp_path,
        'certificates = ["vcek.der", "ask.pem", "ark.pem"]\n'
        f'[policy]\nmeasurements = ["{"ab" * 48}"]\ngpus = "required"\namd_lines = ["Milan"]\n'
        'without_revocation = ["amd-sev-snp"]\n'
        "minimum_tcb.Milan = {boot_loader = 4, tee = 0, snp = 24, microcode = 219}\n"
        '[[collateral]]\nkind = "amd-crl"\nfile = "crl.der"\n',
    )
    read = load_launch_file(path)
    assert read.certificates == chain
    assert read.terms.policy is not None
    assert read.terms.policy.measurements == ("ab" * 48,)
    assert [one.data for one in read.terms.collateral.of(CollateralKind.AMD_CRL)] == [b"list"]
    assert read.terms.policy.without_revocation == (Tee.AMD_SEV_SNP,)


def test_without_a_policy_a_configuration_says_which_hardware_needs_no_list(tmp_path: Path) -> None:
    read = load_launch_file(written(tmp_path, 'without_revocation = ["amd-sev-snp"]'))
    assert read.terms.without_revocation == (Tee.AMD_SEV_SNP,)


def test_a_term_outside_of_the_policy_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    text = f'without_revocation = ["intel-sgx"]\n[policy]\nmeasurements = ["{"ab" * 32}"]'
    with pytest.raises(InputError, match=r"enclave\.toml is not valid: without_revocation stands beside"):
        load_launch_file(written(tmp_path, text))


def test_a_policy_that_no_machine_can_meet_is_refused_before_any_machine_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="This allows no machine") as caught:
        load_launch_file(written(tmp_path, f'[policy]\nmeasurements = ["{"ab" * 48}"]'))
    assert "amd_lines" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("simulation = true", "input.schema"),
        ("insecure = true", "input.schema"),
        ('[policy]\nmeasurements = ["zz"]', "input.schema"),
        (f'[policy]\nmeasurements = ["{"ab" * 48}"]\nplatforms = "hardware-or-simulated"', "input.schema"),
        ("[policy]", "input.schema"),
        ("policy = [", "input.syntax"),
        ('certificates = ["nowhere.pem"]', "input.missing_file"),
        ('certificates = ["enclave.toml.pem"]', "input.syntax"),
        ('certificates = ["a", "b", "c", "d"]', "input.schema"),
    ],
)
def test_a_configuration_that_asks_for_less_or_is_not_one_is_refused(
    tmp_path: Path, text: str, code: str
) -> None:
    (tmp_path / "enclave.toml.pem").write_text("-----BEGIN nothing")
    with pytest.raises(InputError) as caught:
        load_launch_file(written(tmp_path, text))
    assert caught.value.code == code


def test_the_policy_of_a_launcher_is_for_hardware() -> None:
    assert AppraisalPolicy(measurements=("ab" * 48,)).platforms is Platforms.HARDWARE_ONLY


@given(st.binary(max_size=200))
def test_whatever_a_device_answers_nothing_but_a_launch_error_comes_out(report: bytes) -> None:
    class Answering:
        def quote(self, report_data: bytes) -> Evidence:
            del report_data
            return Evidence(Tee.AMD_SEV_SNP, report, (report, report, report))

    class Failing:
        def quote(self, report_data: bytes) -> Evidence:
            del report_data
            raise CollectError("collect.refused", "no")

    for collector in (Answering(), Failing()):
        with pytest.raises(LaunchError):
            start(Machine(collector))
