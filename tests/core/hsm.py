"""A token of SoftHSM, made anew for a test process; what needs it is skipped where SoftHSM is not there."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from cloister.core.keys import Pkcs11KeyStore

MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"),
)


@dataclass(frozen=True)
class Token:
    """A token.

    Attributes:
        library: the PKCS#11 module.
        label: the token's.
        pin: the user's.
    """

    library: Path
    label: str
    pin: bytes

    def store(self, owner: str = "") -> Pkcs11KeyStore:
        return Pkcs11KeyStore(self.library, self.label, lambda: self.pin, owner=owner)


@cache
def software_token() -> Token:
    """Initialise a token; one for the process, since the module reads once where tokens lie."""
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (cloister[hardware])")
    named = os.environ.get("SOFTHSM2_MODULE")
    candidates = [Path(named)] if named else [path for path in MODULES if path.is_file()]
    tool = shutil.which("softhsm2-util")
    if not candidates or tool is None:
        pytest.skip("SoftHSM is not on this machine (tools/test-hsm)")
    folder = Path(tempfile.mkdtemp(prefix="cloister-hsm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tokens, label = folder / "tokens", "cloister-test"
    tokens.mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(settings)
    command = [tool, "--init-token", "--free", "--label", label, "--pin", "1234", "--so-pin", "5678"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return Token(candidates[0], label, b"1234")
