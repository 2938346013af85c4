"""A fork server is used only if everything that it was loaded from is vouched for."""

from __future__ import annotations

import base64
import hashlib
import mmap
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

import pytest

import cloister
from cloister.enclave.errors import SealBroken
from cloister.enclave.installed import installed_distributions, recorded_hashes
from cloister.enclave.sealed import SealedHost, WatchedFiles, host, launching, measured, start_measured
from cloister.enclave.sealed.bytecode import ByteCode, own_byte_code
from cloister.enclave.sealed.fingerprint import take_fingerprint
from cloister.enclave.sealed.loaded import (
    LoadedFiles,
    _interpreter,
    imported_modules,
    mapped_files,
    place_loaded,
)

ROOT = Path(__file__).resolve().parents[3]
TESTS = {"cloister": Path(cloister.__file__).parent.resolve(), "tests": ROOT / "tests"}


def recorded(path: Path) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=")
    return f"{path.name},sha256={digest.decode()},{path.stat().st_size}\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A distribution with a module and a library, as an installer lays it out."""
    site = tmp_path / "lib" / "site-packages"
    info = site / "library-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "library.py").write_text("three = 3\n")
    (site / "library.so").write_bytes(b"machine code")
    (info / "RECORD").write_text(
        recorded(site / "library.py") + recorded(site / "library.so") + "library-1.0.dist-info/RECORD,,\n"
    )
    return site


def placed(
    site: Path, *modules: Path, mapped: tuple[Path, ...] = (), since_ns: int = 2**62
) -> dict[str, str]:
    found = place_loaded(
        [(str(one), "") for one in modules],
        [str(one) for one in mapped],
        packages={"cloister"},
        measured=frozenset(),
        byte_code=None,
        search_path=[str(site)],
        since_ns=since_ns,
    )
    return dict(found.recorded) | dict.fromkeys(found.paths.keys() - found.recorded.keys(), "")


def refusal(site: Path, *modules: Path, mapped: tuple[Path, ...] = (), since_ns: int = 2**62) -> str:
    with pytest.raises(SealBroken) as refused:
        placed(site, *modules, mapped=mapped, since_ns=since_ns)
    return refused.value.code


def test_recorded_files_are_named_with_the_hash_that_they_have_to_have(site: Path) -> None:
    found = placed(site, site / "library.py", mapped=(site / "library.so",))
    assert found["library.py"] == hashlib.sha256(b"three = 3\n").hexdigest()
    assert found["library.so"] == hashlib.sha256(b"machine code").hexdigest()


def test_the_interpreter_and_the_systems_libraries_vouch_for_their_files(site: Path) -> None:
    assert placed(site, Path(os.__file__)) == {f"python/{Path(os.__file__).parent.name}/os.py": ""}
    own = mapped_files(os.getpid())
    library = next(one for one in own if "/libc.so" in one or "/libc-" in one)
    assert list(placed(site, mapped=(Path(library),))) == [f"system{library.removeprefix('/usr')}"]


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="this interpreter has no virtual environment")
def test_a_virtual_environment_is_no_place_of_the_interpreters() -> None:
    assert _interpreter() == (("python", str(Path(os.__file__).parent.resolve())),)


def test_libraries_that_an_interpreter_brings_along_are_its_own(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "conda" / "lib" / "libz.so.1"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"machine code")
    assert refusal(site, mapped=(library,)) == "sealed.code_unmeasured"
    monkeypatch.setattr(sys, "base_exec_prefix", str(tmp_path / "conda"))
    assert list(placed(site, mapped=(library,))) == ["python/lib/libz.so.1"]
    among = library.parent / "python3.11" / "site-packages" / "libz.so.1"
    among.parent.mkdir(parents=True)
    among.write_bytes(b"machine code")
    assert refusal(site, mapped=(among,)) == "sealed.code_unmeasured"


def test_a_mapped_file_of_data_is_no_code(tmp_path: Path) -> None:
    for name, rights in (("users", mmap.PROT_READ), ("code", mmap.PROT_READ | mmap.PROT_EXEC)):
        (tmp_path / name).write_bytes(bytes(4096))
        with (
            (tmp_path / name).open("rb") as file,
            mmap.mmap(file.fileno(), 4096, flags=mmap.MAP_PRIVATE, prot=rights),
        ):
            assert (str(tmp_path / name) in mapped_files(os.getpid())) == (name == "code")
            if name == "users":
                (tmp_path / name).unlink()
                mapped_files(os.getpid())


def test_a_refusal_says_where_the_file_is(site: Path) -> None:
    (site / "beside.py").write_text("")
    with pytest.raises(SealBroken) as refused:
        placed(site, site / "beside.py")
    assert refused.value.details == (str(site / "beside.py"),)


def test_a_module_beside_what_is_recorded_is_unmeasured(site: Path) -> None:
    (site / "beside.py").write_text("")
    assert refusal(site, site / "beside.py") == "sealed.code_unmeasured"


def test_a_module_or_library_from_anywhere_else_is_unmeasured(site: Path, tmp_path: Path) -> None:
    (tmp_path / "else.py").write_text("")
    (tmp_path / "else.so").write_bytes(b"")
    assert refusal(site, tmp_path / "else.py") == "sealed.code_unmeasured"
    assert refusal(site, mapped=(tmp_path / "else.so",)) == "sealed.code_unmeasured"


def test_a_link_is_followed_to_where_the_file_really_lies(site: Path, tmp_path: Path) -> None:
    (tmp_path / "else.py").write_text("three = 3\n")
    (site / "library.py").unlink()
    (site / "library.py").symlink_to(tmp_path / "else.py")
    assert refusal(site, site / "library.py") == "sealed.code_unmeasured"
    (tmp_path / "linked").symlink_to(site)
    assert list(placed(site, mapped=(tmp_path / "linked" / "library.so",))) == ["library.so"]


def test_a_second_copy_of_a_measured_package_is_refused_even_where_it_is_recorded(site: Path) -> None:
    (site / "cloister").mkdir()
    copy = site / "cloister" / "filter.py"
    copy.write_text("")
    record = site / "library-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + recorded(copy).replace("filter.py", "cloister/filter.py"))
    assert refusal(site, copy) == "sealed.code_unmeasured"


def test_a_file_that_changed_since_the_server_started_is_refused_whatever_its_content(site: Path) -> None:
    before = time.time_ns() - 60 * 10**9
    assert refusal(site, site / "library.py", since_ns=before) == "sealed.code_changed"
    assert refusal(site, site / "gone.py") == "sealed.code_changed"


def test_byte_code_from_another_folder_than_the_servers_own_is_refused(site: Path) -> None:
    cache = site / "__pycache__" / "library.cpython-311.pyc"
    for own in (None, site / "own"):
        with pytest.raises(SealBroken) as refused:
            place_loaded(
                [(str(site / "library.py"), str(cache))],
                [],
                packages=(),
                measured=frozenset(),
                byte_code=own,
                search_path=[str(site)],
                since_ns=2**62,
            )
        assert refused.value.code == "sealed.code_unmeasured"


def test_a_record_with_no_hash_or_another_form_vouches_for_nothing(site: Path) -> None:
    record = site / "library-1.0.dist-info" / "RECORD"
    path = str(site / "library.py")
    for line in ("library.py,,", "library.py,md5=AAAA,1", "library.py,sha256=A,1", "library.py", "\udce9"):
        record.write_bytes(line.encode("utf-8", "surrogateescape"))
        assert recorded_hashes(installed_distributions([str(site)]), {path}) == {}


def test_each_of_two_distributions_of_one_name_and_version_has_its_record_watched(
    site: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    copytree(site, second)
    files = WatchedFiles.installed([str(site), str(second)]).files.values()
    assert {one for one in files if one.name == "RECORD"} == {
        folder / "library-1.0.dist-info" / "RECORD" for folder in (site, second)
    }


def test_batches_of_modules_fit_a_message_and_name_what_is_imported() -> None:
    batches = list(imported_modules())
    assert all(sum(len(a) + len(b) for a, b in batch) < 48 * 1024 for batch in batches)
    files = {source for batch in batches for source, _ in batch}
    assert str(Path(host.__file__)) in files
    assert all(Path(one).is_absolute() for one in files)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server starts in a moment, from a module in this folder."""
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    monkeypatch.setattr(launching, "_SERVER", "tests.enclave.sealed.light_server")


started: list[SealedHost] = []


def keep() -> SealedHost:
    started.append(SealedHost.start())
    return started[-1]


@pytest.mark.usefixtures("light")
def test_a_server_loaded_from_an_unmeasured_place_is_stopped_and_not_used() -> None:
    with pytest.raises(SealBroken) as refused:
        start_measured(keep)
    assert refused.value.code == "sealed.code_unmeasured"
    assert not started[-1].running


@pytest.mark.usefixtures("light")
def test_a_server_whose_files_are_all_vouched_for_is_measured_to_the_last_shared_object() -> None:
    whole = start_measured(keep, WatchedFiles(TESTS))
    with whole.host as running:
        mapped = {one for one in mapped_files(running.server_pid) if ".so" in one}
        assert mapped <= set(whole.watched.loaded.paths.values())
        names = whole.baseline.hashes.keys()
        assert "tests/enclave/sealed/light_server.py" in names
        assert any(name.startswith("python/") for name in names)
        assert any(name.startswith("cryptography/") for name in names)
        own = own_byte_code().folder
        assert own is None or any(name.startswith("byte code/") for name in names)
        assert not whole.baseline.unsettled


@pytest.mark.usefixtures("light")
def test_a_library_that_is_not_as_it_was_installed_refuses_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = measured.place_loaded

    def another_record(*given: object, **named: object) -> LoadedFiles:
        found = real(*given, **named)  # type: ignore[arg-type]
        name = next(one for one in found.recorded if one.startswith("cryptography/"))
        return LoadedFiles(found.paths, {**found.recorded, name: "0" * 64})

    monkeypatch.setattr(measured, "place_loaded", another_record)
    with pytest.raises(SealBroken) as refused:
        start_measured(keep, WatchedFiles(TESTS))
    assert refused.value.code == "sealed.code_unmeasured"
    assert "not as it was installed" in refused.value.details[0]
    assert not started[-1].running


@pytest.mark.usefixtures("light")
def test_code_that_changes_between_its_measurement_and_the_warm_server_refuses_the_start(
    tmp_path: Path,
) -> None:
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").write_text("one = 1\n")

    def start_meanwhile() -> SealedHost:
        (package / "__init__.py").write_text("one = 2\n")
        return keep()

    with pytest.raises(SealBroken) as refused:
        start_measured(start_meanwhile, WatchedFiles(TESTS | {"models": package}))
    assert refused.value.code == "sealed.code_changed"
    assert not started[-1].running


@pytest.mark.usefixtures("light")
def test_no_start_up_file_and_no_cache_beside_a_source_runs_in_the_server(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "ran"
    (site / "evil.pth").write_text(f"import pathlib; pathlib.Path({str(told)!r}).touch()\n")
    (site / "sitecustomize.py").write_text(f"import pathlib; pathlib.Path({str(told)!r}).touch()\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    with start_measured(keep, WatchedFiles(TESTS)).host as running:
        assert not any("__pycache__" in cached for _, cached in running.modules)
    assert not told.exists()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that others may enter, as the test's own are not."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_the_folder_of_byte_code_is_this_users_alone_or_there_is_none(home: Path) -> None:
    own = own_byte_code(home)
    assert own.folder is not None
    assert own.folder.stat().st_mode & 0o777 == 0o700
    assert f"pycache_prefix={own.folder}" in own.options
    assert "-B" not in own.options
    own.folder.chmod(0o770)
    open_to_others = own_byte_code(home)
    assert open_to_others.folder is None
    assert "-B" in open_to_others.options
    own.folder.chmod(0o700)
    (home / "cloister").chmod(0o777)
    assert own_byte_code(home).folder is None
    home.chmod(0o700)
    assert own_byte_code(home) == own, "nobody else gets to it"


def test_a_new_user_gets_a_folder_of_byte_code_even_where_groups_may_write_by_default(home: Path) -> None:
    before = os.umask(0o002)
    try:
        assert own_byte_code(home / "new" / ".cache").folder is not None
    finally:
        os.umask(before)


def test_each_installation_has_its_own_byte_code(
    site: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    first = own_byte_code(home)
    assert own_byte_code(home) == first
    record = site / "library-1.0.dist-info" / "RECORD"
    found, was = record.stat(), record.read_text()
    record.write_text(was.replace("sha256=", "sha256=A", 1)[: len(was)])
    os.utime(record, ns=(found.st_atime_ns, found.st_mtime_ns))
    upgraded = own_byte_code(home)
    record.write_text(was)
    os.utime(record, (1, 1))
    assert len({first, upgraded, own_byte_code(home)}) == 3


def test_byte_code_counts_as_there_once_a_server_was_loaded_with_it(home: Path) -> None:
    own = own_byte_code(home)
    assert own.list is not None
    there = [own.filled, ByteCode(None).filled]
    own.list.touch()
    assert [*there, own.filled] == [False, False, True]


def test_a_linked_folder_of_byte_code_is_not_used(tmp_path: Path) -> None:
    own = own_byte_code(tmp_path)
    assert own.folder is not None
    own.folder.rmdir()
    (tmp_path / "other").mkdir(mode=0o700)
    own.folder.symlink_to(tmp_path / "other")
    assert own_byte_code(tmp_path).folder is None


def test_a_fingerprint_of_a_file_that_changes_while_it_is_read_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.enclave.sealed import fingerprint

    (tmp_path / "one.py").write_text("one = 1\n")
    read = fingerprint._hash

    def read_and_change(path: str) -> str:
        value = read(path)
        (tmp_path / "one.py").write_text("one = 22\n")
        return value

    monkeypatch.setattr(fingerprint, "_hash", read_and_change)
    assert take_fingerprint(WatchedFiles({"one": tmp_path})).unsettled == ("one/one.py",)
