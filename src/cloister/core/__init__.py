"""What every room stands on: errors, canonical JSON, hashes, time, keys, files, and a node's furniture.

`documents`, `settings`, `logging` and `database` are imported from their modules, because they need libraries
that a verifier does without. cryptography and pydantic are loaded when a name that needs them is first used.
"""

from typing import TYPE_CHECKING

from cloister.core.errors import (
    CloisterError,
    InputError,
    KeyStoreError,
    SignatureInvalid,
    StorageError,
    all_codes,
)
from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse, parse_canonical
    from cloister.core.clock import Clock, fixed_clock, format_time, parse_time, system_clock
    from cloister.core.files import read_bounded, resolve_inside, write_atomic, write_new
    from cloister.core.hashes import Sha256, Sha256Field, is_sha256, sha256_file, sha256_hex
    from cloister.core.keys import EphemeralKeyStore, FileKeyStore, KeyStore, PublicKey, Signer

_NAMES = {
    "canonical": ("JSON", "b64decode", "b64encode", "canonicalize", "parse", "parse_canonical"),
    "clock": ("Clock", "fixed_clock", "format_time", "parse_time", "system_clock"),
    "files": ("read_bounded", "resolve_inside", "write_atomic", "write_new"),
    "hashes": ("Sha256", "Sha256Field", "is_sha256", "sha256_file", "sha256_hex"),
    "keys": ("EphemeralKeyStore", "FileKeyStore", "KeyStore", "PublicKey", "Signer"),
}

__all__ = [
    "JSON",
    "Clock",
    "CloisterError",
    "EphemeralKeyStore",
    "FileKeyStore",
    "InputError",
    "KeyStore",
    "KeyStoreError",
    "PublicKey",
    "Sha256",
    "Sha256Field",
    "SignatureInvalid",
    "Signer",
    "StorageError",
    "all_codes",
    "b64decode",
    "b64encode",
    "canonicalize",
    "fixed_clock",
    "format_time",
    "is_sha256",
    "parse",
    "parse_canonical",
    "parse_time",
    "read_bounded",
    "resolve_inside",
    "sha256_file",
    "sha256_hex",
    "system_clock",
    "write_atomic",
    "write_new",
]

__getattr__ = on_first_use(__name__, {name: home for home, names in _NAMES.items() for name in names})
