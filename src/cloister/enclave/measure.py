"""What code runs here: one hash over every file of it and the versions of what it stands on.

The measurement is SHA-384 (48 bytes, the size of an SEV-SNP launch measurement) over the RFC 8785 form of
``{"schema": "urn:cloister:measurement:v1", "files": [[path, sha384]...], "distributions": [[name,
version]...]}``, both lists sorted. Files are those of the installed ``cloister`` package and of each
package that offers a model architecture under the entry-point group ``cloister.models``; byte-code caches
are left out. Distributions are the libraries that train, federate and account, by installed version: their
files are pinned by hash when they're installed, and not read again here.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from cloister.core.canonical import JSON, canonicalize
from cloister.core.package_files import package_files

MEASUREMENT_SCHEMA = "urn:cloister:measurement:v1"
MEASURED_DISTRIBUTIONS = (
    "cryptography",
    "dp-accounting",
    "numpy",
    "nvflare",
    "opacus",
    "pydantic",
    "safetensors",
    "torch",
)
MODEL_ENTRY_POINTS = "cloister.models"


@lru_cache(maxsize=1)
def code_measurement() -> bytes:
    """The measurement of the code installed here, taken once per process.

    Returns:
        48 bytes.
    """
    return measure(measured_packages(), installed_versions(MEASURED_DISTRIBUTIONS))


def measure(packages: Mapping[str, Path], distributions: Mapping[str, str]) -> bytes:
    """The measurement of given package folders and library versions.

    Args:
        packages: folder of each package by its import name.
        distributions: installed version by distribution name; "absent" where there is none.

    Returns:
        48 bytes.
    """
    files: list[JSON] = [[path, digest] for path, digest in sorted(_file_hashes(packages.items()))]
    versions: list[JSON] = [[name, distributions[name]] for name in sorted(distributions)]
    document = canonicalize({"schema": MEASUREMENT_SCHEMA, "files": files, "distributions": versions})
    return hashlib.sha384(document).digest()


def measured_packages() -> dict[str, Path]:
    """The folders of this package and of every package that offers model architectures."""
    packages = {"cloister": Path(__file__).resolve().parents[1]}
    for point in entry_points(group=MODEL_ENTRY_POINTS):
        name = point.module.partition(".")[0]
        found = find_spec(name)
        if name in packages or found is None:
            continue
        if found.submodule_search_locations:
            packages[name] = Path(next(iter(found.submodule_search_locations))).resolve()
        elif found.origin is not None:
            packages[name] = Path(found.origin).resolve()
    return packages


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed version of each distribution, "absent" where there is none."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "absent"
    return versions


def _file_hashes(packages: Iterable[tuple[str, Path]]) -> Iterable[tuple[str, str]]:
    for name, root in packages:
        if root.is_file():
            yield name, hashlib.sha384(root.read_bytes()).hexdigest()
            continue
        for relative, path in package_files(root):
            yield f"{name}/{relative}", hashlib.sha384(path.read_bytes()).hexdigest()
