"""A time-stamping authority for tests, by openssl: a root, a certificate under it, and its answers."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_CONFIG = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
ordering = no
tsa_name = no
ess_cert_id_chain = no
"""


@dataclass(frozen=True)
class Authority:
    """A root certificate and a signing certificate under it."""

    folder: Path

    @property
    def root(self) -> bytes:
        """The root certificate, PEM."""
        return (self.folder / "root.pem").read_bytes()

    def answer(self, query: bytes) -> bytes:
        """What the authority answers to a query, now."""
        (self.folder / "query").write_bytes(query)
        _openssl(
            self.folder,
            *["ts", "-reply", "-config", "ts.cnf", "-queryfile", "query"],
            *["-signer", "tsa.pem", "-inkey", "tsa.key"],
            *["-out", "answer"],
        )
        return (self.folder / "answer").read_bytes()


def make_authority(folder: Path) -> Authority:
    """An authority in a folder; the test is skipped where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no test timestamps can be made")
    pytest.importorskip("rfc3161_client", reason="rfc3161-client is not installed")
    folder.mkdir()
    (folder / "ts.cnf").write_text(_CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    (folder / "tsa.ext").write_text(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n"
    )
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    _openssl(
        folder,
        *["req", "-x509", "-days", "3650", "-subj", "/CN=root", "-out", "root.pem", "-keyout", "root.key"],
        *key,
        *["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    )
    _openssl(folder, *["req", "-subj", "/CN=authority", "-out", "tsa.csr", "-keyout", "tsa.key"], *key)
    _openssl(
        folder,
        *["x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial"],
        *["-days", "3650"],
        *["-extfile", "tsa.ext", "-out", "tsa.pem"],
    )
    return Authority(folder)


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)
