"""The Gramine manifest: one rendering for the same files, and nothing in it that isn't hashed."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.gramine_manifest import (
    TEMPLATE,
    Enclave,
    ManifestRefused,
    Mount,
    TrustedFile,
    main,
    render,
    require_sound,
    trusted_files,
)

ENCLAVE = Enclave("/usr/bin/python3", ["python3", "-I"], [Mount("/code", "/srv/code")], "/srv/data.enc")
FILES = [TrustedFile("/srv/code/a.py", "ab" * 32)]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "deep" / "__pycache__").mkdir(parents=True)
    (folder / "b.py").write_text("two")
    (folder / "deep" / "a.py").write_text("one")
    (folder / "deep" / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    return folder


def test_every_file_is_listed_once_with_its_hash_but_for_byte_code(code: Path) -> None:
    found = trusted_files([Mount("/code", str(code)), Mount("/again", str(code / "deep"))])
    assert {(Path(one.source).name, one.sha256) for one in found} == {
        ("b.py", hashlib.sha256(b"two").hexdigest()),
        ("a.py", hashlib.sha256(b"one").hexdigest()),
    }
    assert len(found) == 2


def test_two_renderings_of_the_same_files_are_the_same_bytes(code: Path) -> None:
    enclave = replace(ENCLAVE, mounts=[Mount("/code", str(code))])
    first, second = (render(enclave, trusted_files(enclave.mounts)) for _ in range(2))
    assert first == second
    (code / "b.py").write_text("other")
    assert render(enclave, trusted_files(enclave.mounts)) != first


def test_the_manifest_is_toml_that_says_what_it_must(code: Path) -> None:
    enclave = replace(ENCLAVE, mounts=[Mount("/code", str(code))])
    manifest = tomllib.loads(render(enclave, trusted_files(enclave.mounts)))
    sgx = manifest["sgx"]
    assert (sgx["debug"], sgx["remote_attestation"], sgx["allowed_files"]) == (False, "dcap", [])
    assert (sgx["edmm_enable"], sgx["max_threads"], sgx["enclave_size"]) == (False, 24, "32G")
    assert manifest["loader"]["argv"] == ["python3", "-I"]
    assert manifest["libos"]["entrypoint"] == "/usr/bin/python3"
    kinds = [mount.get("type", "chroot") for mount in manifest["fs"]["mounts"]]
    assert kinds == ["chroot", "tmpfs", "tmpfs", "encrypted"]
    assert manifest["fs"]["mounts"][-1]["key_name"] == "data"


def test_a_link_out_of_what_is_mounted_ends_the_rendering(code: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("not reviewed")
    (code / "link").symlink_to(outside)
    with pytest.raises(ManifestRefused):
        trusted_files([Mount("/code", str(code))])
    (code / "link").unlink()
    (code / "link").symlink_to(code / "b.py")
    assert len(trusted_files([Mount("/code", str(code))])) == 3


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_no_name_breaks_out_of_its_place(name: str) -> None:
    enclave = replace(ENCLAVE, argv=["python3", name], data=f"/srv/{name}")
    manifest = tomllib.loads(render(enclave, FILES))
    assert manifest["loader"]["argv"] == ["python3", name]
    assert manifest["fs"]["mounts"][-1]["uri"] == f"file:/srv/{name}"
    assert manifest["sgx"]["debug"] is False


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("sgx.debug = false", "sgx.debug = true", "debugging"),
        ('sgx.remote_attestation = "dcap"', 'sgx.remote_attestation = "none"', "dcap"),
        ("sgx.allowed_files = []", 'sgx.allowed_files = ["file:/tmp/"]', "unhashed"),
        ('file_check_policy = "strict"', 'file_check_policy = "allow_all_but_log"', "unhashed"),
        ('"' + "ab" * 32 + '"', '""', "no hash"),
        ("file:/srv/code/a.py", "file:/etc/passwd", "outside"),
        ("file:/srv/code/a.py", "file:/srv/codex/a.py", "outside"),
        ("sys.disallow_subprocesses = true", "sys.disallow_subprocesses = false", "processes"),
        ('loader.log_level = "error"', "loader.insecure__use_cmdline_argv = true", "arguments"),
        ('loader.env.HOME = "/tmp"', "loader.env.HOME = { passthrough = true }", "variables"),
        ("fs.start_dir", "fs.start_dir = [", "not TOML"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(old: str, new: str, rule: str) -> None:
    text = render(ENCLAVE, FILES)
    assert old in text
    with pytest.raises(ManifestRefused, match=rule):
        require_sound(text.replace(old, new))


def test_a_template_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "template"
    other.write_text(TEMPLATE.read_text() + "{{ unknown }}")
    with pytest.raises(Exception, match="unknown"):
        render(ENCLAVE, FILES, other)


def test_the_tool_refuses_what_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--runtime", tmp_path / "none", "--job", tmp_path, "--data", "/d", "--out", tmp_path / "m"]
    assert main([str(word) for word in words]) == 3
    assert "refused" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
