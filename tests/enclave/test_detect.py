"""What a machine is, from what there is to see: hints are no proof, a host's capability is no guest's."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.enclave.attestation.collect import EvidenceSource, GpuMode
from cloister.enclave.attestation.evidence import Tee
from cloister.enclave.detect import detect
from cloister.enclave.observed import WATCHED, Observed, observe
from tests.enclave import recorded_devices as recorded
from tests.enclave.recorded_devices import RecordedGpus, RecordedMachine, TsmMachine, no_gpus

TSM = "/sys/kernel/config/tsm/report"
HOST_FLAGS = frozenset({"sme", "sev", "sev_es", "sev_snp", "sgx", "sgx_lc", "tme", "tdx_host_platform"})
FLAGS = st.frozensets(st.sampled_from([*sorted(HOST_FLAGS), "tdx_guest", "hypervisor"]))


def test_a_plain_virtual_machine_is_none_and_told_why() -> None:
    found = detect(Observed(cpu_flags=frozenset({"hypervisor", "avx2"})))
    assert (found.kind, found.memory_encryption_only, found.host_capabilities) == (None, False, ())
    assert "a virtual machine" in found.reasons[0]


@given(FLAGS, st.frozensets(st.sampled_from(["snp", "tdx"])))
def test_no_processor_flag_and_no_switch_of_a_host_ever_makes_a_guest(
    flags: frozenset[str], modules: frozenset[str]
) -> None:
    present = frozenset({"/dev/sev", "/dev/sgx_enclave", "/sys/firmware/acpi/tables/CCEL"})
    found = detect(Observed(cpu_flags=flags, host_modules=modules, present=present))
    assert found.kind is None
    assert found.reasons


def test_what_a_host_can_do_is_said_as_that() -> None:
    seen = Observed(
        cpu_flags=HOST_FLAGS,
        present=frozenset({"/dev/sev", "/dev/sgx_enclave"}),
        host_modules=frozenset({"snp"}),
    )
    found = detect(seen)
    assert len(found.host_capabilities) == 10
    assert any("SEV-SNP guests (sev_snp)" in one for one in found.host_capabilities)


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (Observed(sev_status=0b001), "SEV"),
        (Observed(sev_status=0b011), "SEV-ES"),
        (Observed(cpu_flags=frozenset({"sme"}), kernel_parameters=frozenset({"mem_encrypt=on"})), "SME"),
        (Observed(cpu_flags=frozenset({"tme"})), "TME"),
    ],
)
def test_encrypted_memory_without_proof_is_no_trusted_execution_environment(
    seen: Observed, word: str
) -> None:
    found = detect(seen)
    assert found.memory_encryption_only
    assert found.kind is None
    assert any(word in reason for reason in found.reasons)


def test_sme_that_is_not_switched_on_encrypts_nothing() -> None:
    assert not detect(Observed(cpu_flags=frozenset({"sme"}))).memory_encryption_only


@pytest.mark.parametrize(
    ("seen", "source", "tee"),
    [
        (
            Observed(present=frozenset({TSM}), tsm_provider="sev_guest"),
            EvidenceSource.CONFIGFS_TSM,
            Tee.AMD_SEV_SNP,
        ),
        (
            Observed(present=frozenset({TSM, "/dev/tdx_guest"}), tsm_provider="tdx_guest"),
            EvidenceSource.CONFIGFS_TSM,
            Tee.INTEL_TDX,
        ),
        (Observed(present=frozenset({"/dev/sev-guest"})), EvidenceSource.SEV_GUEST, Tee.AMD_SEV_SNP),
        (Observed(present=frozenset({"/dev/nsm"})), EvidenceSource.NITRO, Tee.AWS_NITRO),
        (Observed(present=frozenset({"/dev/tdx_guest"})), EvidenceSource.TDX_GUEST, Tee.INTEL_TDX),
        (
            Observed(present=frozenset({"/dev/attestation/quote"}), gramine_type="dcap"),
            EvidenceSource.GRAMINE,
            Tee.INTEL_SGX,
        ),
    ],
)
def test_each_device_is_a_hint_of_its_kind(seen: Observed, source: EvidenceSource, tee: Tee) -> None:
    found = detect(seen)
    assert (found.hints[0].source, found.kind) == (source, tee)
    assert found.reasons[0] == found.hints[0].reason
    assert not found.memory_encryption_only


def test_the_kernels_own_interface_comes_before_the_older_device() -> None:
    seen = Observed(present=frozenset({TSM, "/dev/sev-guest"}), tsm_provider="sev_guest")
    assert [hint.source.value for hint in detect(seen).hints] == ["configfs-tsm", "sev-guest"]


@pytest.mark.parametrize("kind", ["none", "epid", None])
def test_gramine_without_dcap_is_no_hint(kind: str | None) -> None:
    found = detect(Observed(present=frozenset({"/dev/attestation/quote"}), gramine_type=kind))
    assert found.kind is None
    assert "DCAP" in found.reasons[0]


def test_what_contradicts_itself_is_told() -> None:
    flag = detect(Observed(cpu_flags=frozenset({"tdx_guest"})))
    assert flag.kind is None
    assert "TDX guest" in flag.reasons[0]
    status = detect(Observed(present=frozenset({"/dev/sev-guest"}), sev_status=0))
    assert any("SNP is off" in reason for reason in status.reasons)
    other = detect(Observed(present=frozenset({TSM}), tsm_provider="arm_cca_guest"))
    assert other.kind is None
    assert "not verified here" in other.reasons[0]


@given(
    FLAGS,
    st.frozensets(st.sampled_from(WATCHED)),
    st.sampled_from([None, "sev_guest", "tdx_guest", "x"]),
    st.sampled_from([None, "dcap", "none"]),
    st.none() | st.integers(0, 2**64 - 1),
)
def test_whatever_is_seen_there_is_one_verdict_with_its_reasons(
    flags: frozenset[str],
    present: frozenset[str],
    provider: str | None,
    gramine: str | None,
    status: int | None,
) -> None:
    seen = Observed(flags, frozenset(), present, provider, gramine, None, status)
    found = detect(seen)
    assert found.reasons
    assert (found.kind is None) == (not found.hints)
    assert not (found.hints and found.memory_encryption_only)
    assert found.as_json()["kind"] == (found.kind and found.kind.value)
    assert detect(seen) == found


# Looking


def test_what_is_looked_at_is_what_linux_shows() -> None:
    seen = observe(
        RecordedMachine(
            files={
                "/proc/cpuinfo": b"processor\t: 0\nflags\t\t: fpu hypervisor sme\n\n"
                b"processor\t: 1\nflags\t\t: sgx\n",
                "/proc/cmdline": b"root=/dev/vda mem_encrypt=on\n",
                "/sys/devices/system/cpu/sev/vmpl": b"2\n",
                "/dev/cpu/0/msr": b"",
                "/dev/cpu/0/msr@0xc0010131": (7).to_bytes(8, "little"),
                "/sys/module/kvm_amd/parameters/sev_snp": b"Y\n",
                "/sys/module/kvm_intel/parameters/tdx": b"N\n",
                "/dev/sev-guest": b"",
                "/dev/attestation/quote": b"",
                "/dev/attestation/attestation_type": b"dcap\n",
            }
        ),
        no_gpus,
    )
    assert seen.cpu_flags == {"fpu", "hypervisor", "sme"}
    assert "mem_encrypt=on" in seen.kernel_parameters
    assert (seen.vmpl, seen.sev_status, seen.gramine_type) == (2, 7, "dcap")
    assert seen.host_modules == {"snp"}
    assert seen.present == {"/dev/sev-guest", "/dev/attestation/quote", "/dev/cpu/0/msr"}
    assert (seen.gpus, seen.gpu_mode) == (None, None)
    assert detect(seen).vmpl == 2


def test_looking_at_configfs_leaves_no_entry_behind() -> None:
    guest = TsmMachine(provider="tdx_guest")
    assert observe(guest, no_gpus).tsm_provider == "tdx_guest"
    assert guest.entries == {}
    assert len(guest.removed) == 1


def test_what_a_user_may_not_look_at_is_named_and_not_taken_for_absent() -> None:
    errors = {recorded.REPORTS: errno.EACCES, "/dev/cpu/0/msr@0xc0010131": errno.EPERM}
    denied = TsmMachine(files={"/dev/cpu/0/msr": b""}, errors=errors)
    seen = observe(denied, no_gpus)
    assert set(seen.unreadable) == {TSM, "/dev/cpu/0/msr"}
    found = detect(seen)
    assert "doesn't say" in found.reasons[0]
    assert set(found.unreadable) == {TSM, "/dev/cpu/0/msr"}


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (GpuMode(confidential=True, production=True, developer_tools=False), "mode on"),
        (GpuMode(confidential=False, production=True, developer_tools=False), "mode off"),
        (GpuMode(confidential=True, production=True, developer_tools=True), "developer tools on"),
    ],
)
def test_gpus_are_counted_and_their_mode_told(mode: GpuMode, words: str) -> None:
    seen = observe(RecordedMachine(), lambda: RecordedGpus((bytes, bytes), (b"", b""), mode))
    assert (seen.gpus, seen.gpu_mode) == (2, mode)
    assert words in detect(seen).gpus


def test_a_machine_that_shows_nothing_at_all_is_looked_at_without_an_error() -> None:
    assert detect(observe(RecordedMachine(), no_gpus)).kind is None
