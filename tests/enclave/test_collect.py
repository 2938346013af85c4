"""Evidence of this machine: asked by the kernel's own frames, whole, to the question asked, or refused."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import CloisterError
from cloister.enclave.attestation.collect import (
    EvidenceSource,
    GpuMode,
    GramineEnclave,
    LinuxDevice,
    NitroEnclave,
    Nvml,
    SevGuest,
    TsmGuest,
    ccel,
    collector_for,
    gpu_evidence,
    td_report,
)
from cloister.enclave.attestation.collect.snp_answer import (
    ARK,
    ASK,
    MAX_TABLE_BYTES,
    VCEK,
    VLEK,
    certificate_table,
)
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.intel.eventlog import read_event_log
from cloister.enclave.errors import CollectError
from tests.enclave import recorded_devices as recorded
from tests.enclave.attestation_scene import scene
from tests.enclave.recorded_devices import RecordedGpus, RecordedMachine, TsmMachine

DATA = bytes(range(64))
SEV = ("/dev/sev-guest", 0xC0205302)
NSM = ("/dev/nsm", 0xC0200A00)
TDX = ("/dev/tdx_guest", 0xC4405401)
Shared = Callable[[str], Path]


SCENE = scene()


def simulated(report_data: bytes) -> bytes:
    return SCENE.platform.quote(report_data).report


def chain() -> tuple[bytes, ...]:
    return SCENE.platform.chain


def refused(code: str, action: Callable[[], object]) -> CollectError:
    with pytest.raises(CollectError) as caught:
        action()
    assert caught.value.code == code
    return caught.value


# configfs-tsm


def test_configfs_tsm_gives_an_snp_report_with_the_chain_of_the_hosts_table() -> None:
    machine = TsmMachine(answer=simulated, table=recorded.snp_table(chain()), floor=0)
    evidence = TsmGuest(machine).quote(DATA)
    assert evidence.tee is Tee.AMD_SEV_SNP
    assert evidence.report[0x50:0x90] == DATA
    assert evidence.chain == chain()


def test_what_configfs_tsm_gives_verifies_like_any_evidence() -> None:
    one = SCENE
    machine = TsmMachine(answer=simulated, table=recorded.snp_table(chain()))
    assert one.verify(TsmGuest(machine).quote(one.binding.report_data())).code is None


def test_the_entry_is_removed_whatever_comes_of_it() -> None:
    machine = TsmMachine(answer=simulated, table=recorded.snp_table(chain()))
    TsmGuest(machine).quote(DATA)
    broken = TsmMachine(answer=lambda _: b"short")
    refused("collect.malformed", lambda: TsmGuest(broken).quote(DATA))

    def failing(_: bytes) -> bytes:
        raise recorded.refusal(errno.EIO)

    failed = TsmMachine(answer=failing)
    refused("collect.refused", lambda: TsmGuest(failed).quote(DATA))
    for one in (machine, broken, failed):
        assert one.entries == {}
        assert len(one.removed) == 1


def test_every_question_has_an_entry_of_its_own() -> None:
    machine = TsmMachine(answer=simulated, table=recorded.snp_table(chain()))
    for _ in range(5):
        TsmGuest(machine).quote(DATA)
    assert len(set(machine.removed)) == 5


@pytest.mark.parametrize("intruders", [1, 2])
def test_a_race_for_the_entry_is_noticed_and_asked_again(intruders: int) -> None:
    machine = TsmMachine(answer=simulated, table=recorded.snp_table(chain()), intruders=intruders)
    assert TsmGuest(machine).quote(DATA).report[0x50:0x90] == DATA
    assert machine.intruders == 0


def test_a_race_that_does_not_end_is_refused() -> None:
    machine = TsmMachine(answer=simulated, table=recorded.snp_table(chain()), intruders=3)
    refused("collect.race", lambda: TsmGuest(machine).quote(DATA))


def test_a_guest_below_an_svsm_asks_for_its_own_level() -> None:
    asked: list[bytes] = []
    genuine = simulated(DATA)

    def at_level_two(report_data: bytes) -> bytes:
        asked.append(report_data)
        return recorded.rewritten(genuine, report_data, vmpl=2)

    machine = TsmMachine(answer=at_level_two, table=recorded.snp_table(chain()), floor=2)
    assert TsmGuest(machine).quote(DATA).report[0x30] == 2
    lying = TsmMachine(answer=simulated, table=recorded.snp_table(chain()), floor=2)
    refused("collect.mismatch", lambda: TsmGuest(lying).quote(DATA))


def test_an_answer_to_another_question_is_refused() -> None:
    machine = TsmMachine(answer=lambda _: simulated(bytes(64)), table=recorded.snp_table(chain()))
    refused("collect.mismatch", lambda: TsmGuest(machine).quote(DATA))


def test_an_unknown_provider_is_refused() -> None:
    refused("collect.absent", lambda: TsmGuest(TsmMachine(provider="arm_cca_guest")).quote(DATA))
    refused("collect.malformed", lambda: TsmGuest(TsmMachine(provider="a b\x1b[2J")).quote(DATA))


def test_a_report_larger_than_evidence_may_be_is_refused() -> None:
    machine = TsmMachine(answer=lambda _: bytes(1024 * 1024 + 1))
    refused("collect.refused", lambda: TsmGuest(machine).quote(DATA))


@pytest.mark.parametrize("length", [0, 63, 65])
@pytest.mark.parametrize("source", list(EvidenceSource))
def test_no_device_is_asked_for_report_data_of_another_length(source: EvidenceSource, length: int) -> None:
    machine = RecordedMachine()
    refused("collect.request", lambda: collector_for(source, machine).quote(bytes(length)))
    assert machine.written == []


@pytest.mark.parametrize("source", list(EvidenceSource))
def test_a_device_that_is_not_there_and_one_that_is_denied_are_told_apart(source: EvidenceSource) -> None:
    refused("collect.absent", lambda: collector_for(source, RecordedMachine()).quote(DATA))
    paths = (SEV[0], NSM[0], TDX[0], "/dev/attestation/attestation_type", recorded.REPORTS)
    denied = TsmMachine(errors=dict.fromkeys(paths, errno.EACCES))
    refused("collect.denied", lambda: collector_for(source, denied).quote(DATA))


# The host's certificate table


def test_without_a_chain_from_the_host_the_operators_own_stands_in() -> None:
    for table in (b"", bytes(4096), None, recorded.certificate_table({VCEK: chain()[0]})):
        machine = TsmMachine(answer=simulated, table=table)
        assert TsmGuest(machine, chain()).quote(DATA).chain == chain()
        error = refused("collect.certificates", lambda machine=machine: TsmGuest(machine).quote(DATA))
        assert "AMD" in error.hint


def test_a_report_signed_by_a_vlek_takes_the_vlek_of_the_table() -> None:
    both = {VCEK: b"vcek", VLEK: b"vlek", ASK: b"ask", ARK: b"ark"}
    genuine = simulated(DATA)
    machine = TsmMachine(
        answer=lambda data: recorded.rewritten(genuine, data, key_info=1 << 2),
        table=recorded.certificate_table(both),
    )
    assert TsmGuest(machine).quote(DATA).chain == (b"vlek", b"ask", b"ark")


def test_other_entries_of_a_table_are_passed_over() -> None:
    crl = UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")
    table = recorded.certificate_table({crl: b"list", VCEK: b"one", ASK: b"two", ARK: b"three"})
    assert certificate_table(table + bytes(100))[VCEK] == b"one"


def entry(kind: UUID, offset: int, length: int) -> bytes:
    return struct.pack("<16sII", kind.bytes_le, offset, length)


@pytest.mark.parametrize(
    "table",
    {
        "no end": entry(VCEK, 24, 1),
        "offset inside the table": entry(VCEK, 0, 8) + bytes(24) + bytes(8),
        "past the end": entry(VCEK, 48, 9) + bytes(24) + bytes(8),
        "far past the end": entry(VCEK, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(24),
        "empty certificate": entry(VCEK, 48, 0) + bytes(24) + b"x",
        "twice": entry(VCEK, 72, 1) * 2 + bytes(24) + b"x",
        "too many": entry(VCEK, 480, 1) * 17 + bytes(24) + bytes(100),
        "too large": b"\1" * (MAX_TABLE_BYTES + 1),
    }.values(),
)
def test_a_table_that_does_not_hold_together_is_refused(table: bytes) -> None:
    refused("collect.malformed", lambda: certificate_table(table))


@given(st.binary(max_size=400))
def test_no_table_leads_to_another_error(table: bytes) -> None:
    code, found = "", {}
    try:
        found = certificate_table(table)
    except CollectError as error:
        code = error.code
    assert code in ("", "collect.malformed")
    assert all(der in table for der in found.values())


# /dev/sev-guest


def test_the_snp_device_gives_a_report_with_the_hosts_chain() -> None:
    machine = RecordedMachine(ioctls={SEV: recorded.sev_guest(simulated, recorded.snp_table(chain()))})
    one = SCENE
    evidence = SevGuest(machine).quote(one.binding.report_data())
    assert evidence.chain == chain()
    assert one.verify(evidence).code is None


@pytest.mark.parametrize("sample", ["milan-v2-vcek", "genoa-v3-vcek"])
def test_a_genuine_report_passes_the_snp_device_unchanged(sample: str, shared_data: Shared) -> None:
    report = (shared_data("attestation/snp") / sample / "report.bin").read_bytes()
    machine = RecordedMachine(ioctls={SEV: recorded.sev_guest(lambda _: report)})
    collector = SevGuest(machine, vmpl=report[0x30], certificates=(b"vek", b"ask", b"ark"))
    assert collector.quote(report[0x50:0x90]).report == report
    refused("collect.mismatch", lambda: collector.quote(DATA))


def test_the_snp_device_is_refused_by_the_numbers_of_firmware_and_host() -> None:
    busy = RecordedMachine(ioctls={SEV: recorded.refusing_sev_guest(0, 2)})
    error = refused("collect.refused", lambda: SevGuest(busy).quote(DATA))
    assert "host status 0x2" in error.message
    assert "later" in error.hint
    firmware = RecordedMachine(ioctls={SEV: recorded.refusing_sev_guest(0x16, 0)})
    assert (
        "firmware status 0x16" in refused("collect.refused", lambda: SevGuest(firmware).quote(DATA)).message
    )
    plain = RecordedMachine(ioctls={SEV: recorded.refusing_sev_guest(0, 0, errno.EINVAL)})
    assert "EINVAL" in refused("collect.refused", lambda: SevGuest(plain).quote(DATA)).message


def test_an_answer_with_a_status_or_another_size_is_refused() -> None:
    failing = RecordedMachine(ioctls={SEV: recorded.sev_guest(simulated, status=0x16)})
    refused("collect.refused", lambda: SevGuest(failing).quote(DATA))
    for size in (0, 1183, 1185, 0xFFFFFFFF):
        machine = RecordedMachine(ioctls={SEV: recorded.sev_guest(simulated, size=size)})
        refused("collect.malformed", lambda machine=machine: SevGuest(machine).quote(DATA))


def test_a_report_of_another_privilege_level_is_refused() -> None:
    machine = RecordedMachine(ioctls={SEV: recorded.sev_guest(simulated, recorded.snp_table(chain()))})
    refused("collect.mismatch", lambda: SevGuest(machine, vmpl=1).quote(DATA))


# /dev/tdx_guest


def test_a_tdreport_says_what_the_td_is_and_is_never_taken_for_a_quote() -> None:
    td = bytearray(512)
    td[0] = 1
    td[16:64] = b"\xab" * 48
    td[208:256], td[352:400] = b"\x01" * 48, b"\x04" * 48
    machine = RecordedMachine(ioctls={TDX: recorded.tdx_guest(bytes(td))})
    local = td_report(machine, DATA)
    assert (len(local.raw), local.debug, local.mrtd) == (1024, True, b"\xab" * 48)
    assert (local.rtmrs[0][0], local.rtmrs[3][0], len(local.rtmrs)) == (1, 4, 4)
    collector = collector_for(EvidenceSource.TDX_GUEST, machine)
    error = refused("collect.no_quote", lambda: collector.quote(DATA))
    assert "configfs-tsm" in error.hint
    assert any("on" in detail for detail in error.details)


def test_a_tdreport_of_another_kind_or_question_is_refused() -> None:
    other = RecordedMachine(ioctls={TDX: recorded.tdx_guest(report_data=bytes(64))})
    refused("collect.mismatch", lambda: td_report(other, DATA))
    silent = RecordedMachine(ioctls={TDX: lambda frame: None})
    refused("collect.malformed", lambda: td_report(silent, DATA))


# DCAP quotes, from configfs-tsm and Gramine


@pytest.mark.parametrize("sample", ["v4-uptodate", "v4-trailing-bytes", "v5-servicetd"])
def test_a_genuine_tdx_quote_passes_configfs_tsm_unchanged(sample: str, shared_data: Shared) -> None:
    quote = (shared_data("attestation/tdx") / sample / "quote.bin").read_bytes()
    at = 48 + (6 if quote[0] == 5 else 0) + 520
    machine = TsmMachine(provider="tdx_guest", answer=lambda _: quote)
    evidence = TsmGuest(machine).quote(quote[at : at + 64])
    assert (evidence.tee, evidence.report, evidence.chain) == (Tee.INTEL_TDX, quote, ())
    refused("collect.mismatch", lambda: TsmGuest(machine).quote(DATA))


def ccel_machine(
    shared_data: Shared, area: bytes | None = None, **table: int
) -> tuple[TsmMachine, bytes, bytes]:
    """A domain with its genuine quote and log; the quote and the 64 bytes that it was asked for."""
    folder = shared_data("attestation/tdx") / "v4-uptodate-ccel"
    quote, log = (folder / "quote.bin").read_bytes(), (folder / "ccel.bin").read_bytes()
    machine = TsmMachine(provider="tdx_guest", answer=lambda _: quote)
    machine.files[ccel.LOG] = log if area is None else area
    kind = table.get("kind", 2)
    machine.files[ccel.TABLE] = struct.pack("<4sI28sBBHQQ", b"CCEL", 56, bytes(28), kind, 0, 0, 65536, 4096)
    return machine, quote, quote[48 + 520 : 48 + 584]


def test_a_domains_event_log_goes_along_and_its_replay_gives_the_quotes_registers(
    shared_data: Shared,
) -> None:
    machine, quote, asked = ccel_machine(shared_data)
    evidence = TsmGuest(machine).quote(asked)
    log = evidence.extras["ccel"]
    assert evidence.report == quote
    assert machine.files[ccel.LOG].startswith(log)
    assert len(read_event_log(log)) == 43
    assert Evidence.decode(evidence.encode()) == evidence


def test_erased_bytes_behind_the_log_stay_where_they_are(shared_data: Shared) -> None:
    machine, _, asked = ccel_machine(shared_data)
    plain = TsmGuest(machine).quote(asked).extras["ccel"]
    for erased in (bytes(40_000), b"\xff" * 40_000):
        padded, _, _ = ccel_machine(shared_data, plain + erased)
        assert TsmGuest(padded).quote(asked).extras["ccel"] == plain


def test_a_domain_answers_without_a_log_that_it_has_not_or_that_explains_nothing(shared_data: Shared) -> None:
    machine, quote, asked = ccel_machine(shared_data)
    whole = machine.files[ccel.LOG]
    digest = read_event_log(whole)[3].digest
    without: list[TsmMachine] = [
        ccel_machine(shared_data, area)[0]
        for area in (b"", b"no log", whole[:5000], whole.replace(digest, bytes(48)), bytes(2 * 1024 * 1024))
    ]
    without.append(ccel_machine(shared_data, kind=1)[0])
    for number in (errno.EACCES, errno.ENOENT):
        machine, _, _ = ccel_machine(shared_data)
        machine.errors[ccel.TABLE] = number
        without.append(machine)
    for one in without:
        evidence = TsmGuest(one).quote(asked)
        assert (evidence.report, dict(evidence.extras)) == (quote, {})
    broken, _, _ = ccel_machine(shared_data)
    broken.errors[ccel.LOG] = errno.EIO
    with pytest.raises(CollectError):
        TsmGuest(broken).quote(asked)


def gramine(quote: bytes, kind: bytes = b"dcap\n") -> RecordedMachine:
    base = "/dev/attestation"
    return RecordedMachine(
        files={
            f"{base}/attestation_type": kind,
            f"{base}/user_report_data": b"",
            f"{base}/quote": quote,
        }
    )


def test_a_genuine_sgx_quote_passes_gramine_unchanged(shared_data: Shared) -> None:
    quote = (shared_data("attestation/sgx") / "v3-prod-confighardening" / "quote.bin").read_bytes()
    asked = quote[48 + 320 : 48 + 384]
    machine = gramine(quote)
    evidence = GramineEnclave(machine).quote(asked)
    assert (evidence.tee, evidence.report) == (Tee.INTEL_SGX, quote)
    assert machine.written == [("/dev/attestation/user_report_data", asked)]
    refused("collect.mismatch", lambda: GramineEnclave(gramine(quote)).quote(DATA))


@pytest.mark.parametrize("kind", [b"none", b"epid", b"", b"dcapx"])
def test_gramine_with_another_attestation_type_gives_nothing(kind: bytes) -> None:
    machine = gramine(bytes(2000), kind)
    refused("collect.no_quote", lambda: GramineEnclave(machine).quote(DATA))
    assert machine.written == []


@given(st.binary(max_size=700))
def test_no_bytes_in_place_of_a_quote_lead_to_another_error(quote: bytes) -> None:
    with pytest.raises(CollectError) as caught:
        GramineEnclave(gramine(quote)).quote(DATA)
    assert caught.value.code in ("collect.malformed", "collect.mismatch")


def test_a_tdx_quote_is_not_taken_for_one_of_sgx() -> None:
    quote = struct.pack("<HHI", 4, 2, 0x81).ljust(48, b"\0") + DATA * 20
    refused("collect.malformed", lambda: GramineEnclave(gramine(quote)).quote(DATA))
    sgx = TsmMachine(provider="tdx_guest", answer=lambda _: struct.pack("<HHI", 4, 2, 0) + DATA * 20)
    refused("collect.malformed", lambda: TsmGuest(sgx).quote(DATA))


# /dev/nsm


def document(shared: Shared) -> bytes:
    return (shared("attestation/nitro") / "prod-2022-10" / "document.cbor").read_bytes()


def nitro(answer: Callable[[dict[str, object]], bytes], **how: int) -> RecordedMachine:
    return RecordedMachine(ioctls={NSM: recorded.nsm(answer, **how)})


def attesting(genuine: bytes) -> Callable[[dict[str, object]], bytes]:
    def answer(request: dict[str, object]) -> bytes:
        wanted = request["Attestation"]
        assert isinstance(wanted, dict)
        assert wanted.keys() == {"user_data", "nonce", "public_key"}
        made = recorded.nitro_document(genuine, wanted["user_data"], wanted["public_key"])
        return cbor2.dumps({"Attestation": {"document": made}})

    return answer


def test_the_nitro_module_gives_a_document_with_data_and_key_sealed_in(shared_data: Shared) -> None:
    genuine = document(shared_data)
    for key in (None, b"k" * 1024):
        evidence = NitroEnclave(nitro(attesting(genuine)), key).quote(DATA)
        said = cbor2.loads(cbor2.loads(evidence.report)[2])
        assert evidence.tee is Tee.AWS_NITRO
        assert (said["user_data"], said["public_key"]) == (DATA, key)


def test_a_tagged_document_is_read_too(shared_data: Shared) -> None:
    made = recorded.nitro_document(document(shared_data), DATA)
    tagged = cbor2.dumps(cbor2.CBORTag(18, cbor2.loads(made)))
    machine = nitro(lambda _: cbor2.dumps({"Attestation": {"document": tagged}}))
    assert NitroEnclave(machine).quote(DATA).report == tagged


def test_a_document_about_something_else_is_refused(shared_data: Shared) -> None:
    genuine = document(shared_data)
    old = nitro(lambda _: cbor2.dumps({"Attestation": {"document": genuine}}))
    refused("collect.mismatch", lambda: NitroEnclave(old).quote(DATA))
    keyless = recorded.nitro_document(genuine, DATA)
    other = nitro(lambda _: cbor2.dumps({"Attestation": {"document": keyless}}))
    refused("collect.mismatch", lambda: NitroEnclave(other, b"key").quote(DATA))


@pytest.mark.parametrize("key", [b"", b"k" * 1025])
def test_a_key_that_no_document_holds_is_refused(key: bytes) -> None:
    refused("collect.request", lambda: NitroEnclave(RecordedMachine(), key))


def test_the_modules_own_refusals_are_named_and_unknown_ones_not_repeated() -> None:
    known = nitro(lambda _: cbor2.dumps({"Error": "InputTooLarge"}))
    assert "InputTooLarge" in refused("collect.refused", lambda: NitroEnclave(known).quote(DATA)).message
    strange = nitro(lambda _: cbor2.dumps({"Error": "\x1b[2Jcanary"}))
    assert "canary" not in refused("collect.refused", lambda: NitroEnclave(strange).quote(DATA)).message


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\xff",
        cbor2.dumps(None),
        cbor2.dumps([1]),
        cbor2.dumps({}),
        cbor2.dumps({"Attestation": {}}),
        cbor2.dumps({"Attestation": {"document": b""}}),
        cbor2.dumps({"Attestation": {"document": "text"}}),
        cbor2.dumps({"Attestation": {"document": b"\x01"}}),
        cbor2.dumps({"Attestation": {"document": cbor2.dumps([b"", {}, b"\x01", b""])}}),
        cbor2.dumps({"Attestation": {"document": b"x"}, "Error": "InternalError"}),
        cbor2.dumps({"Error": "InternalError"}) + b"\0",
        b"\x81" * 2000,
    ],
)
def test_an_answer_of_another_form_is_refused(reply: bytes) -> None:
    refused("collect.malformed", lambda: NitroEnclave(nitro(lambda _: reply)).quote(DATA))


@pytest.mark.parametrize("length", [0, 0x3001, 2**63])
def test_a_length_that_the_answer_cannot_have_is_refused(length: int) -> None:
    machine = nitro(lambda _: cbor2.dumps({"Error": "InternalError"}), length=length)
    refused("collect.malformed", lambda: NitroEnclave(machine).quote(DATA))


@given(st.binary(min_size=1, max_size=300))
def test_no_answer_of_the_module_leads_to_another_error(reply: bytes) -> None:
    with pytest.raises(CollectError):
        NitroEnclave(nitro(lambda _: reply)).quote(DATA)


# GPUs


def gpus(shared: Shared, *names: str, **how: GpuMode) -> RecordedGpus:
    folders = [shared("attestation/nvgpu") / name for name in names]
    reports = [(folder / "report.bin").read_bytes() for folder in folders]
    return RecordedGpus(
        tuple(lambda nonce, report=report: report[:4] + nonce + report[36:] for report in reports),
        tuple((folder / "cert_chain.pem").read_bytes() + b"\n\0" for folder in folders),
        **how,
    )


def test_every_gpu_answers_the_nonce_with_its_own_chain(shared_data: Shared) -> None:
    found = gpu_evidence(gpus(shared_data, "hopper-550.90", "blackwell-575.32"), bytes(32))
    assert [one.tee for one in found] == [Tee.NVIDIA_GPU] * 2
    assert [one.report[4:36] for one in found] == [bytes(32)] * 2
    assert [len(one.chain) for one in found] == [5, 5]


def test_one_gpu_without_an_answer_leaves_none(shared_data: Shared) -> None:
    machine = gpus(shared_data, "hopper-550.90", "hopper-570.124")
    genuine = machine.reports[1](bytes(32))
    for wrong, code in ((b"", "malformed"), (genuine[:37], "malformed"), (bytes(70_000), "malformed")):
        machine.reports = (machine.reports[0], lambda _, wrong=wrong: wrong)
        refused(f"collect.{code}", lambda: gpu_evidence(machine, b"n" * 32))
    machine.reports = (machine.reports[0], lambda _: genuine)
    refused("collect.mismatch", lambda: gpu_evidence(machine, b"n" * 32))
    machine.reports = (machine.reports[0],) * 2
    machine.chains = (machine.chains[0], b"no certificate")
    refused("collect.malformed", lambda: gpu_evidence(machine, b"n" * 32))


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (GpuMode(confidential=False, production=True, developer_tools=False), "off"),
        (GpuMode(confidential=True, production=False, developer_tools=False), "production"),
        (GpuMode(confidential=True, production=True, developer_tools=True), "developer tools"),
    ],
)
def test_gpus_that_the_host_can_look_into_are_refused_before_they_are_asked(
    mode: GpuMode, reason: str
) -> None:
    def asked(_: bytes) -> bytes:
        raise AssertionError("asked")

    error = refused("collect.gpu_mode", lambda: gpu_evidence(RecordedGpus((asked,), (b"",), mode), bytes(32)))
    assert any(reason in detail for detail in error.details)


def test_a_machine_without_gpus_has_no_evidence_of_any() -> None:
    off = GpuMode(confidential=False, production=False, developer_tools=True)
    assert gpu_evidence(RecordedGpus((), (), off), bytes(32)) == ()
    refused("collect.request", lambda: gpu_evidence(RecordedGpus((), ()), bytes(31)))


class _Refusal(Exception):  # noqa: N818 - the library's own shape
    def __init__(self, value: int) -> None:
        super().__init__("canary")
        self.value = value


def library(**functions: object) -> SimpleNamespace:
    """NVIDIA's library with some functions answering and every other refusing."""

    def refuse(*_: object) -> None:
        raise _Refusal(3)

    names = (
        "nvmlDeviceGetCount",
        "nvmlSystemGetConfComputeState",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetConfComputeGpuAttestationReport",
        "nvmlDeviceGetConfComputeGpuCertificate",
        "nvmlSystemSetConfComputeGpusReadyState",
    )
    return SimpleNamespace(NVMLError=_Refusal, **(dict.fromkeys(names, refuse) | functions))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ((2, 1, 0), (True, True, False)),
        ((1, 1, 0), (True, False, False)),
        ((2, 0, 0), (False, True, False)),
        ((2, 1, 1), (True, True, True)),
        ((2, 1, 7), (True, True, True)),
        ((2, 7, 0), (False, True, False)),
    ],
)
def test_the_drivers_state_is_read_by_its_published_numbers(
    state: tuple[int, int, int], expected: tuple[bool, bool, bool]
) -> None:
    names = ("environment", "ccFeature", "devToolsMode")
    answer = SimpleNamespace(**dict(zip(names, state, strict=True)))
    mode = Nvml(library(nvmlSystemGetConfComputeState=lambda: answer)).mode()  # type: ignore[arg-type]
    assert (mode.confidential, mode.production, mode.developer_tools) == expected


def test_the_drivers_refusal_is_a_typed_error_without_its_words() -> None:
    driver = Nvml(library(nvmlDeviceGetHandleByIndex=lambda _: "handle"))  # type: ignore[arg-type]
    for ask in (driver.count, driver.mode, lambda: driver.report(0, bytes(32)), lambda: driver.chain(0)):
        error = refused("collect.refused", ask)
        assert "(3)" in error.message
        assert "canary" not in error.message


def test_reports_and_chains_are_cut_to_the_length_that_the_driver_states() -> None:
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    report = pynvml.c_nvmlConfComputeGpuAttestationReport_t()
    report.attestationReport[:3] = [1, 2, 3]
    certificate = pynvml.c_nvmlConfComputeGpuCertificate_t()
    driver = Nvml(
        library(  # type: ignore[arg-type]
            nvmlDeviceGetHandleByIndex=lambda _: "handle",
            nvmlDeviceGetConfComputeGpuAttestationReport=lambda handle, nonce: report,
            nvmlDeviceGetConfComputeGpuCertificate=lambda handle: certificate,
        )
    )
    report.attestationReportSize = 3
    assert driver.report(0, bytes(32)) == b"\1\2\3"
    for size in (0, 1 << 20):
        report.attestationReportSize = size
        refused("collect.malformed", lambda: driver.report(0, bytes(32)))
    refused("collect.malformed", lambda: driver.chain(0))


# The real door


def test_the_door_to_linux_reads_whole_files_within_their_limit(tmp_path: Path) -> None:
    path = tmp_path / "attribute"
    path.write_bytes(b"x" * 100_000)
    assert LinuxDevice().read(str(path), 100_000) == b"x" * 100_000
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
        LinuxDevice().read(str(path), 99_999)
    assert caught.value.errno == errno.EFBIG
    assert LinuxDevice().read_at(str(path), 99_990, 100) == b"x" * 10


def test_the_door_to_linux_writes_in_one_piece_and_follows_no_link(tmp_path: Path) -> None:
    path = tmp_path / "attribute"
    path.write_bytes(b"")
    LinuxDevice().write(str(path), DATA)
    assert path.read_bytes() == DATA
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        LinuxDevice().read(str(tmp_path / "link"), 100)


def test_the_door_to_linux_makes_and_removes_entries(tmp_path: Path) -> None:
    entry = str(tmp_path / "entry")
    LinuxDevice().make_folder(entry)
    assert LinuxDevice().present(entry)
    with pytest.raises(FileExistsError):
        LinuxDevice().make_folder(entry)
    LinuxDevice().remove_folder(entry)
    assert not LinuxDevice().present(entry)


def test_an_ioctl_reaches_the_kernel_and_its_answer_comes_back() -> None:
    """TIOCGWINSZ on a terminal of this test's own: a real request with a real frame."""
    leader, follower = os.openpty()
    try:
        frame = bytearray(b"\xff" * 8)
        LinuxDevice().ioctl(os.ttyname(follower), 0x5413, frame)
        assert frame == bytes(8)
        with pytest.raises(OSError, match=os.strerror(errno.ENOTTY)):
            LinuxDevice().ioctl("/dev/null", SEV[1], bytearray(32))
    finally:
        os.close(leader)
        os.close(follower)


def test_every_error_of_a_device_is_of_the_house() -> None:
    assert issubclass(CollectError, CloisterError)
    assert CollectError.exit_code == 5
