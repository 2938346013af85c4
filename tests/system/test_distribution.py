"""What is handed out: wheel, source distribution and bill of materials; and the scan of the sources."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path

import pytest

import cloister
from cloister.immune.compiled_core import LIBRARY, MODULES, SHORTCUT
from tests.nightly import needs

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cloister"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = f"cloister-{cloister.__version__}"
OF_THE_BUILD = {"PKG-INFO", "setup.cfg", "cloister.egg-info"}
BESIDE = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "SECURITY.md",
    "docs",
    "setup.py",
}


def kept(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__" or name.endswith((".egg-info", ".pyc", ".so"))]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pure wheel and a source distribution, built from a copy of the sources without any network."""
    pytest.importorskip("build", reason="build is not installed")
    tree = tmp_path_factory.mktemp("tree") / "cloister"
    tree.mkdir()
    for name in ("pyproject.toml", "src", "tests", "tools", "benchmarks", *sorted(BESIDE)):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=kept)
        else:
            shutil.copy(source, tree / name)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)]
    pure = {**os.environ, "CLOISTER_IMMUNE_PURE": "1"}
    done = subprocess.run(command, env=pure, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def sources() -> set[str]:
    """Every file of the packages, below ``cloister/`` and ``pic/``."""
    return {
        path.relative_to(PACKAGE.parent).as_posix()
        for package in (PACKAGE, PACKAGE.parent / "pic")
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }


def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*-py3-none-any.whl")
    return zipfile.ZipFile(path)


def sdist_names(built: Path) -> set[str]:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert all(one.isfile() or one.isdir() for one in members)
        return {one.name.removeprefix(f"{NAME}/") for one in members if one.isfile()}


def test_the_wheel_holds_every_file_of_the_package_its_licence_and_nothing_else(built: Path) -> None:
    """PIC-28.1: package files."""
    with wheel(built) as archive:
        names = set(archive.namelist())
    about = {name for name in names if name.startswith(f"{NAME}.dist-info/")}
    assert names - about == sources()
    assert {name.removeprefix(f"{NAME}.dist-info/") for name in about} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }


def test_the_wheel_says_that_it_is_typed_and_brings_its_data_files(built: Path) -> None:
    with wheel(built) as archive:
        names = set(archive.namelist())
    data = PROJECT["tool"]["setuptools"]["package-data"]
    declared = {f"{package}/{name}" for package in data for name in data[package]}
    assert {"cloister/py.typed", "pic/py.typed"} <= declared
    assert declared == {name for name in sources() if not name.endswith(".py")}
    assert declared <= names


def test_the_wheels_metadata_is_what_the_project_declares(built: Path) -> None:
    with wheel(built) as archive:
        about = Parser().parsestr(archive.read(f"{NAME}.dist-info/METADATA").decode())
        points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
        assert archive.read(f"{NAME}.dist-info/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (about["Name"], about["Version"]) == ("cloister", cloister.__version__)
    assert about["License-Expression"] == "Apache-2.0"
    assert set(about.get_all("Provides-Extra")) == set(PROJECT["project"]["optional-dependencies"])
    for name, target in PROJECT["project"]["scripts"].items():
        assert f"{name} = {target}" in points


def said_by(installed: Path, program: str) -> str:
    """What a program prints that finds the package where it was installed, and nowhere else."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(installed)},
        cwd=installed.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_the_wheel_installs_and_its_package_is_the_one_that_is_imported(built: Path, tmp_path: Path) -> None:
    """PIC-27.1.f: the wheel installs."""
    (path,) = built.glob("*.whl")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet", "--target", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(path)], check=True, timeout=110)
    program = (
        "import cloister, cloister.immune; print(cloister.__file__); print(cloister.__version__);"
        "print(cloister.immune.core())"
    )
    assert said_by(tmp_path, program).splitlines() == [
        str(tmp_path / "cloister" / "__init__.py"),
        cloister.__version__,
        "pure (it was not built)",
    ]


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler")
def test_with_a_compiler_the_wheel_is_of_this_platform_and_has_the_whole_compiled_core(
    built: Path, tmp_path: Path
) -> None:
    (archive,) = built.glob("*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if name != "CLOISTER_IMMUNE_PURE"}
    subprocess.run([*command, str(archive)], env=environment, check=True, timeout=900)
    (path,) = tmp_path.glob("*.whl")
    assert not path.name.endswith("none-any.whl")
    place = tmp_path / "installed"
    with zipfile.ZipFile(path) as compiled:
        compiled.extractall(place)
        assert {name for name in compiled.namelist() if name.endswith(".so")} >= {
            f"cloister/immune/{module.replace('.', '/')}{sysconfig.get_config_var('EXT_SUFFIX')}"
            for module in (*MODULES, SHORTCUT, f"{LIBRARY}__mypyc")
        }
    program = "import cloister.immune; print(cloister.immune.core())"
    assert said_by(place, program) == "compiled\n"


def test_the_source_distribution_holds_sources_docs_and_licence_and_nothing_else(built: Path) -> None:
    """PIC-28.1.c: the source distribution has docs and licence."""
    names = sdist_names(built)
    tops = {name.split("/")[0] for name in names}
    assert tops - OF_THE_BUILD == {*BESIDE, "pyproject.toml", "src"}
    assert {
        name.removeprefix("src/") for name in names if name.startswith(("src/cloister/", "src/pic/"))
    } == sources()
    docs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith("docs/")} == docs
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".key", ".sqlite"))]


# The bill of materials.


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("cyclonedx_py", reason="cyclonedx-bom is not installed")
    path = tmp_path_factory.mktemp("sbom") / "sbom.cdx.json"
    # The tool's own validation is the nightly test's, which also says what it takes.
    command = [str(ROOT / "tools" / "sbom"), sys.executable, str(path), "--no-validate"]
    subprocess.run(command, check=True, capture_output=True, timeout=110)
    return path


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_bill_of_materials_has_the_form_of_cyclonedx_and_a_broken_one_has_not(bill: Path) -> None:
    """PIC-P38: the SBOM is valid CycloneDX JSON."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    referencing = pytest.importorskip("referencing", reason="referencing is not installed")
    folder = files("cyclonedx.schema") / "_res"
    schemas = {
        name: json.loads((folder / f"{name}.SNAPSHOT.schema.json").read_text("utf-8"))
        for name in ("bom-1.6", "spdx", "jsf-0.82")
    }
    registry = referencing.Registry().with_resources(
        (
            f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json",
            referencing.Resource.from_contents(schema),
        )
        for name, schema in schemas.items()
    )
    validator = jsonschema.Draft7Validator(schemas["bom-1.6"], registry=registry)
    document = json.loads(bill.read_text("utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert [error.message for error in validator.iter_errors(document)] == []
    del document["components"][0]["name"]
    assert not validator.is_valid(document)


def test_every_installed_dependency_is_listed_once_with_its_version(bill: Path) -> None:
    """PIC-P38: all dependencies are listed."""
    document = json.loads(bill.read_text("utf-8"))
    listed = [(normal(one["name"]), one["version"]) for one in document["components"]]
    root = document["metadata"]["component"]
    assert root["name"] == "cloister"
    # Not what setuptools carries within itself, which is on the path once anything has imported it.
    site = [sysconfig.get_path("purelib")]
    installed = {(normal(one.metadata["Name"]), one.version) for one in distributions(path=site)}
    assert len(listed) == len(set(listed))
    assert {one for one in installed if one[0] != "cloister"} == set(listed)
    references = {one["bom-ref"] for one in document["components"]} | {root["bom-ref"]}
    assert {one["ref"] for one in document["dependencies"]} == references


@pytest.mark.nightly
def test_the_bill_of_materials_passes_the_librarys_strict_validator(bill: Path) -> None:
    """PIC-P38: the SBOM is valid CycloneDX JSON."""
    needs(30)
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(bill.read_text("utf-8")) is None


# The security scan.


def scan(folder: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("bandit", reason="bandit is not installed")
    command = [sys.executable, str(ROOT / "tools" / "scan.py"), str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("subprocess.call(name, shell=True)", "B602"),
        ("eval(name)", "B307"),
        ("pickle.loads(name)", "B301"),
        ("hashlib.md5(name)", "B324"),
        ("yaml.load(name)", "B506"),
    ],
)
def test_a_seeded_bad_line_fails_the_scan_and_is_named(tmp_path: Path, line: str, code: str) -> None:
    """PIC-27.1.d: a seeded bad line fails the job."""
    bad = tmp_path / "bad.py"
    bad.write_text(f"import hashlib, pickle, subprocess, yaml\n\ndef run(name):\n    return {line}\n")
    done = scan(tmp_path)
    assert done.returncode == 1
    assert f"{bad}:4: {code}" in done.stdout


def test_a_scan_that_read_nothing_or_not_everything_is_no_clean_one(tmp_path: Path) -> None:
    assert scan(tmp_path).returncode == 1
    (tmp_path / "good.py").write_text("GOOD = 1\n")
    assert scan(tmp_path).returncode == 0
    (tmp_path / "torn.py").write_text("def torn(:\n")
    done = scan(tmp_path)
    assert done.returncode == 1
    assert "torn.py: not read" in done.stdout


def test_the_projects_own_tools_pass_the_scan() -> None:
    done = scan(ROOT / "tools")
    assert done.returncode == 0, done.stdout


def test_the_audit_scans_the_sources_and_looks_up_the_locks() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.split("\naudit:", 1)[1].split("\n\n", 1)[0]
    assert "tools/scan.py src tools" in recipe
    assert "tools/audit.py requirements/cuda.txt requirements/light.txt" in recipe
