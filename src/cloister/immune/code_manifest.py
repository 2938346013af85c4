"""The signed list of the files that a brain's code consists of, and what differs from it.

Rules kept here:

1. A manifest has one spelling, a canonical JSON object, and counts only under a pinned key. The signed bytes
   begin with its own name and version: no other document under that key can be taken for one.
2. A file that was changed, is missing, can't be read, or wasn't there when it was signed is a difference.
3. Byte-code caches are in no manifest. Whoever runs what a manifest lists has Python keep them elsewhere
   (`cloister.immune.supervisor`), or a planted cache would run in place of a listed source.

The key belongs to who releases or installs the code, not to the service that runs it: whoever can change the
files and sign anew changes both. Where no such key is named, the code is taken as it is found at a start
(`CodeTrust`), which shows what is changed while it runs and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.clock import Clock, format_time, system_clock
from cloister.core.errors import CloisterError, InputError
from cloister.core.files import read_bounded
from cloister.core.hashes import is_sha256, sha256_file
from cloister.core.keys import PublicKey, Signer
from cloister.core.package_files import package_files
from cloister.immune.errors import ImmuneError

MANIFEST_SCHEMA: Final = "urn:cloister:code-manifest:v1"
MAX_MANIFEST_BYTES: Final = 8 * 1024 * 1024
MAX_KEY_BYTES: Final = 64 * 1024
_MEMBERS: Final = frozenset({"files", "key", "made_at", "schema", "sig"})


class CodeTrust(StrEnum):
    """Whose word it is that the code is the right one."""

    AS_FOUND = "as-found-at-start"
    """Nobody's: it is what lay there at the start, and what changed before isn't seen."""
    RELEASE_KEY = "release-key"
    """That of a release key, which was pinned and isn't on this machine."""
    NOBODY = "not-looked-at"
    """Nobody looks at the code."""


@dataclass(frozen=True, slots=True)
class CodeManifest:
    """What was signed.

    Attributes:
        files: SHA-256 of each file by its path below the package's folder.
        made_at: when it was signed; the signer's word.
        key: id of the key that signed.
    """

    files: Mapping[str, str]
    made_at: str
    key: str

    def differences(self, root: Path) -> tuple[str, ...]:
        """The files below a folder that are not as they were signed, sorted; none where all are."""
        found = {name: _digest(path) for name, path in package_files(root)}
        return tuple(
            sorted(name for name in {*self.files, *found} if self.files.get(name) != found.get(name))
        )


def sign_code(root: Path, signer: Signer, clock: Clock = system_clock) -> bytes:
    """A manifest of the files below a folder, as it is written to a file.

    Args:
        root: the package's folder.
        signer: whose word it is that these are the right ones.
        clock: dates it.

    Raises:
        InputError: a file can't be read.
    """
    files: dict[str, JSON] = {name: sha256_file(path) for name, path in package_files(root)}
    members: dict[str, JSON] = {
        "files": files,
        "key": signer.public_key.key_id,
        "made_at": format_time(clock()),
        "schema": MANIFEST_SCHEMA,
    }
    return canonicalize({**members, "sig": b64encode(signer.sign(_signed(members)))})


def open_code_manifest(data: bytes, keys: Sequence[PublicKey]) -> CodeManifest:
    """Read a manifest and check its signature.

    Args:
        data: what `sign_code` made.
        keys: those whose word counts.

    Raises:
        ImmuneError: ``immune.manifest_invalid``: another form, another key, or a wrong signature.
    """
    try:
        members = parse_canonical(data, max_bytes=MAX_MANIFEST_BYTES, max_depth=3)
        if not isinstance(members, dict) or members.keys() != _MEMBERS:
            raise _invalid("it has not the members of one")
        sig, files = members.pop("sig"), members["files"]
        made_at, key_id = members["made_at"], members["key"]
        if members["schema"] != MANIFEST_SCHEMA or not isinstance(files, dict):
            raise _invalid("it is of another kind or version")
        if not isinstance(sig, str) or not isinstance(made_at, str) or not isinstance(key_id, str):
            raise _invalid("its members are of another kind")
        key = next((one for one in keys if one.key_id == key_id), None)
        if key is None:
            raise _invalid("it is signed by a key that isn't pinned")
        key.verify(b64decode(sig), _signed(members))
    except InputError:
        raise _invalid("it can't be read") from None
    except ImmuneError:
        raise
    except CloisterError:
        raise _invalid("its signature is not that of its key") from None
    hashes = {name: digest for name, digest in files.items() if isinstance(digest, str) and is_sha256(digest)}
    if len(hashes) != len(files):
        raise _invalid("a hash in it is none")
    return CodeManifest(MappingProxyType(hashes), made_at, key_id)


def read_code_manifest(path: Path, release_key: Path) -> CodeManifest:
    """Read a manifest from its file, under a release key.

    Args:
        path: what `sign_code` made.
        release_key: the pinned public key, PEM.

    Raises:
        ImmuneError: ``immune.manifest_invalid``.
        InputError: one of the files can't be read.
        KeyStoreError: ``key.malformed``.
    """
    key = PublicKey.from_pem(read_bounded(release_key, MAX_KEY_BYTES))
    return open_code_manifest(read_bounded(path, MAX_MANIFEST_BYTES), [key])


def _signed(members: Mapping[str, JSON]) -> bytes:
    return f"{MANIFEST_SCHEMA}\n".encode() + canonicalize(dict(members))


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except (InputError, OSError):
        return ""


def _invalid(reason: str) -> ImmuneError:
    return ImmuneError("immune.manifest_invalid", f"A manifest of code doesn't verify: {reason}.")
