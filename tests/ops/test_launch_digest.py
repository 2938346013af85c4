"""A confidential VM: its command line names the whole image and keeps memory off disks; its launch digest."""

from __future__ import annotations

import importlib.util
import struct
import uuid
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "ops" / "cvm" / "launch_digest.py"
ROOT = "ab" * 32


def _script() -> ModuleType:
    found = importlib.util.spec_from_file_location("launch_digest", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


script = _script()


def test_the_command_line_names_the_image_and_keeps_memory_off_disks() -> None:
    words = script.command_line(ROOT).split(" ")
    assert f"roothash={ROOT}" in words
    assert {"ro", "init_on_free=1", "nohibernate", "systemd.swap=0", "lockdown=confidentiality"} <= set(words)
    assert "systemd.verity_root_options=panic-on-corruption" in words
    assert "sysctl.kernel.kexec_load_disabled=1" in words
    assert not any(word.startswith(("console=", "crashkernel", "resume=", "init=")) for word in words)
    assert len(words) == len(set(words))


@pytest.mark.parametrize("root", ["", "AB" * 32, "ab" * 31, "ab" * 32 + " init=/bin/sh"])
def test_a_root_hash_of_another_form_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="64 hex"):
        script.command_line(root)


@pytest.mark.parametrize("device", ["vda1", "/dev/vda1 init=/bin/sh", "/dev/\n", ""])
def test_a_device_that_would_add_a_word_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        script.command_line(ROOT, device)


def firmware() -> bytes:
    """The least firmware that the tool takes: the tables of OVMF's AmdSev build; nothing that could boot."""

    def entry(name: str, data: bytes) -> bytes:
        return data + struct.pack("<H", len(data) + 18) + uuid.UUID(name).bytes_le

    sections = struct.pack("<III", 0x80A000, 0x3000, 1)
    sections += struct.pack("<III", 0x80D000, 0x1000, 2)
    sections += struct.pack("<III", 0x80E000, 0x1000, 3)
    sections += struct.pack("<III", 0x80F000, 0x1000, 0x10)
    metadata = struct.pack("<4sIII", b"ASEV", 16 + len(sections), 1, 4) + sections
    table = entry("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", 4096))
    table += entry("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", 0x80FC00, 0x400))
    table += entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", 0x80B004))
    footer = struct.pack("<H", len(table) + 18) + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    page = bytearray(4096)
    page[: len(metadata)] = metadata
    end = 4096 - 32
    page[end - len(footer) - len(table) : end] = table + footer
    return bytes(4096) + bytes(page)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pytest.importorskip("sevsnpmeasure", reason="sev-snp-measure is not installed")
    (tmp_path / "ovmf").write_bytes(firmware())
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"initrd")
    return tmp_path


def digest(image: Path, root: str = ROOT, vcpus: int = 2) -> str:
    found: str = script.launch_digest(
        image / "ovmf",
        image / "kernel",
        image / "initrd",
        script.command_line(root),
        vcpus=vcpus,
        vcpu_type="EPYC-Genoa",
    )
    return found


def test_the_digest_is_a_measurement_and_the_same_each_time(image: Path) -> None:
    assert len(bytes.fromhex(digest(image))) == 48
    assert digest(image) == digest(image)


def test_one_bit_of_the_image_kernel_or_firmware_is_another_digest(image: Path) -> None:
    seen = {digest(image), digest(image, "ab" * 31 + "aa"), digest(image, vcpus=3)}
    for name in ("kernel", "initrd", "ovmf"):
        before = (image / name).read_bytes()
        (image / name).write_bytes(bytes([before[0] ^ 1]) + before[1:])
        seen.add(digest(image))
        (image / name).write_bytes(before)
    assert len(seen) == 6
    assert digest(image) in seen


def test_the_script_prints_what_goes_into_a_policy(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [word for name in ("ovmf", "kernel", "initrd") for word in (f"--{name}", str(image / name))]
    code = script.main([*files, "--root-hash", ROOT, "--vcpus", "2", "--vcpu-type", "EPYC-Genoa"])
    assert code == 0
    assert f"measurement: {digest(image)}" in capsys.readouterr().out
