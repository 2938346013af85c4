"""Renders the Gramine manifest of an SGX enclave that runs cloister, with every trusted file hashed.

    tools/gramine_manifest.py --runtime /usr/lib/x86_64-linux-gnu/gramine/runtime/glibc --job job/ \
        --data data.enc --out cloister.manifest

Rules kept here:

* One template. Whatever may differ between two machines is an argument, and stands in the manifest, which is
  measured: two renderings of the same files are the same bytes.
* The enclave reads nothing that isn't listed with its hash, but for the encrypted data. A link that leaves
  what is mounted, or a file that can't be read, ends the rendering.
* MRENCLAVE also depends on Gramine's own loader and is computed by its signer, `gramine-sgx-sign`; this tool
  prints the hash of the manifest alone. What it renders was never run on hardware.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import sysconfig
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import jinja2

TEMPLATE = Path(__file__).resolve().parents[1] / "ops" / "gramine" / "cloister.manifest.toml.j2"
LEFT_OUT = ("__pycache__", ".pyc")


class ManifestRefused(Exception):  # noqa: N818 - an outcome, shown as one sentence
    """The manifest would let the enclave read what nobody vouches for."""


@dataclass(frozen=True)
class Mount:
    """A folder of the host, read-only by its hashes, and where the enclave sees it."""

    path: str
    source: str


@dataclass(frozen=True)
class TrustedFile:
    """One file with its SHA-256."""

    source: str
    sha256: str


@dataclass(frozen=True)
class Enclave:
    """What differs between two enclaves.

    Attributes:
        python: the interpreter, as the enclave sees it.
        argv: the whole command line; nothing is added to it when the enclave starts.
        mounts: read-only folders.
        data: the host's file or folder with the encrypted data.
        workspace: where keys, logs and results are, in the enclave's memory.
        enclave_size: as Gramine writes sizes, a power of two.
        threads: threads that compute; the enclave has room for as many again and eight more.
        product: ISVPRODID.
        security_version: ISVSVN, raised with every fix that others must be able to demand.
    """

    python: str
    argv: Sequence[str]
    mounts: Sequence[Mount]
    data: str
    workspace: str = "/workspace"
    enclave_size: str = "32G"
    threads: int = 8
    product: int = 1
    security_version: int = 1
    library_path: Sequence[str] = field(default=("/lib",))


def trusted_files(mounts: Iterable[Mount]) -> list[TrustedFile]:
    """Hash every file below the mounts.

    Args:
        mounts: folders of the host, or single files.

    Returns:
        Each file once, sorted by name; compiled byte code is left out, as nobody reviews it.

    Raises:
        ManifestRefused: something there is neither file, folder nor a link within.
    """
    mounts = list(mounts)
    roots = [Path(mount.source).resolve() for mount in mounts]
    found: dict[str, TrustedFile] = {}
    for mount in mounts:
        source = Path(mount.source)
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_dir() or any(part in LEFT_OUT for part in (*path.parts, path.suffix)):
                continue
            if not str(path).isprintable():
                raise ManifestRefused(f"{path!r} has a name that a manifest can't hold")
            real = path.resolve()
            if not real.is_file() or not any(real.is_relative_to(root) for root in roots):
                raise ManifestRefused(f"{path} is no file within what is mounted")
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            found[str(path)] = TrustedFile(str(path), digest)
    return [found[name] for name in sorted(found)]


def render(enclave: Enclave, files: Sequence[TrustedFile], template: Path = TEMPLATE) -> str:
    """Render the manifest.

    Args:
        enclave: what it is to be.
        files: what it may read.
        template: the one template.

    Returns:
        A TOML document.

    Raises:
        ManifestRefused: the result isn't a manifest that keeps the rules.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - TOML, each value quoted by the filter # nosec B701
        keep_trailing_newline=True,
    )
    environment.filters["toml"] = _toml
    text = environment.from_string(template.read_text(encoding="utf-8")).render(
        python=enclave.python,
        argv=list(enclave.argv),
        mounts=enclave.mounts,
        data=enclave.data,
        workspace=enclave.workspace,
        enclave_size=enclave.enclave_size,
        threads=enclave.threads,
        enclave_threads=2 * enclave.threads + 8,
        product=enclave.product,
        security_version=enclave.security_version,
        library_path=":".join(enclave.library_path),
        files=files,
    )
    require_sound(text)
    return text


def require_sound(text: str) -> None:
    """Read a manifest back and hold it against the rules.

    Raises:
        ManifestRefused: with the first rule that it breaks.
    """
    try:
        manifest = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestRefused(f"the manifest is not TOML: {error}") from None
    sgx, loader = manifest["sgx"], manifest["loader"]
    mounts = [one for one in manifest["fs"]["mounts"] if one.get("type", "chroot") == "chroot"]
    covered = [one["uri"].removeprefix("file:") for one in mounts]
    rules = {
        "debugging is on": sgx["debug"] is not False,
        "attestation is not dcap": sgx["remote_attestation"] != "dcap",
        "files may be read unhashed": sgx["allowed_files"] != [] or sgx["file_check_policy"] != "strict",
        "a trusted file has no hash": not all(len(one["sha256"]) == 64 for one in sgx["trusted_files"]),
        "a trusted file lies outside the mounts": not all(
            any(Path(one["uri"].removeprefix("file:")).is_relative_to(root) for root in covered)
            for one in sgx["trusted_files"]
        ),
        "the host chooses arguments or variables": any(name.startswith("insecure") for name in loader)
        or any(isinstance(value, dict) for value in loader["env"].values()),
        "processes may be started": manifest["sys"]["disallow_subprocesses"] is not True,
        "no code is mounted": not mounts or not sgx["trusted_files"],
    }
    for rule, broken in rules.items():
        if broken:
            raise ManifestRefused(rule)


def _toml(value: object) -> str:
    """A string, or a list of strings, as TOML writes it; JSON's form of them is TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _enclave(typed: argparse.Namespace) -> Enclave:
    paths = sysconfig.get_paths()
    interpreter = Path(sys.executable)
    package = find_spec("cloister")
    if package is None or package.origin is None:
        raise ManifestRefused("cloister is not installed for this interpreter")
    # An environment is found by the interpreter's path and the file beside it; its links lead out of it.
    environment = Path(sys.prefix) / "pyvenv.cfg"
    code = dict.fromkeys((paths["stdlib"], paths["purelib"], str(Path(package.origin).parent)))
    mounts = [
        Mount("/lib", str(typed.runtime)),
        Mount(str(interpreter), str(interpreter.resolve())),
        *([Mount(str(environment), str(environment))] if environment.exists() else []),
        *(Mount(path, path) for path in code),
        *(Mount(str(one), str(one)) for one in typed.library),
        Mount("/job", str(typed.job)),
    ]
    argv = [str(interpreter), "-I", "-m", "cloister.cli.main", "enclave", "start", "/job/job.yaml"]
    return Enclave(
        python=str(interpreter),
        argv=[*argv, "--workspace", "/workspace", "--data", "/data", "--config_folder", "/job"],
        mounts=mounts,
        data=str(typed.data),
        enclave_size=typed.enclave_size,
        threads=typed.threads,
        security_version=typed.security_version,
        library_path=("/lib", *(str(one) for one in typed.library)),
    )


def main(words: Sequence[str] | None = None) -> int:
    """Render a manifest and say how its measurement is computed."""
    parser = argparse.ArgumentParser(description="Render the Gramine manifest of a cloister enclave.")
    add = parser.add_argument
    add("--runtime", type=Path, required=True, help="Gramine's runtime folder (its C library)")
    add("--job", type=Path, required=True, help="folder with job.yaml and what it names")
    add("--data", type=Path, required=True, help="the encrypted data on the host")
    add("--library", type=Path, action="append", default=[], help="a folder of shared libraries; may repeat")
    add("--enclave-size", default="32G", help="a power of two, such as 32G")
    add("--threads", type=int, default=8, help="threads that compute")
    add("--security-version", type=int, default=1, help="ISVSVN")
    add("--out", type=Path, required=True, help="where the manifest goes")
    typed = parser.parse_args(words)
    try:
        enclave = _enclave(typed)
        text = render(enclave, trusted_files(enclave.mounts))
    except ManifestRefused as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 3
    typed.out.write_text(text, encoding="utf-8")
    files = len(tomllib.loads(text)["sgx"]["trusted_files"])
    print(f"{typed.out}: {files} trusted files, sha256 {hashlib.sha256(text.encode()).hexdigest()}")
    print(f"MRENCLAVE: gramine-sgx-sign --manifest {typed.out} --output {typed.out}.sgx --key KEY.pem")
    return 0


if __name__ == "__main__":
    sys.exit(main())
