"""A developer's code or model as a signed, encrypted image: everybody can check which it is, nobody can read
it.

Layout: magic 8 bytes, length of the envelope u32 big endian, the envelope (a DSSE envelope of the manifest in
its one encoding), then the content as `cloister.core.sealing` seals it.

Rules kept here:

* The manifest names the sealed content by hash and size. Hub and hospital check signature and hash and learn
  name, version, size and what its developer says of it in public; the key is with the developer's own
  `ReleaseService`, which gives it to an attested worker only.
* No hash of the plain content is outside of the seal: one could be tried against guesses.
* Inside, files have one encoding: sorted relative paths, each once, none that leaves its folder.
* Nothing of a package is run, imported or written here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.errors import CloisterError, InputError
from cloister.core.hashes import Sha256Field, sha256_hex
from cloister.core.keys import PublicKey, Signer
from cloister.core.sealing import seal, unseal, wipe
from cloister.enclave.errors import PackageError
from cloister.evidence.envelope import decode_envelope, sign_envelope, verify_envelope

MAX_IMAGE_BYTES: Final = 512 * 1024 * 1024
MAX_FILES: Final = 10_000
SCHEMA: Final = "urn:cloister:package:v2"
PAYLOAD_TYPE: Final = "application/vnd.cloister.package+json"
_MAGIC: Final = b"CLPKG1\n\x00"
_HEAD: Final = struct.Struct(">8sI")
_COUNT: Final = struct.Struct(">I")
_ENTRY: Final = struct.Struct(">HQ")
_MAX_ENVELOPE: Final = 64 * 1024
_MAX_DEPTH: Final = 8
_PATH: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,15}")
_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"


class PackageManifest(BaseModel):
    """What the developer signs, and everybody may know.

    Attributes:
        name: the package's.
        version: the package's.
        data_key: id of the key that opens it, in the developer's book.
        sealed_sha256: SHA-256 of the sealed content.
        sealed_bytes: its size.
        description: what else the developer says of it: of a model, which architecture its weights belong to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=_NAME)]
    version: Annotated[str, Field(pattern=_NAME)]
    data_key: Annotated[str, Field(pattern=r"^dk-[0-9a-f]{32}$")]
    sealed_sha256: Sha256Field
    sealed_bytes: Annotated[int, Field(ge=1, le=MAX_IMAGE_BYTES, strict=True)]
    description: Annotated[dict[str, JsonValue], Field(max_length=20)]

    @property
    def dataset(self) -> str:
        """What release policies and wrapped keys call it."""
        return package_dataset(self.name, self.version)

    def encode(self) -> bytes:
        """The RFC 8785 form: what is signed."""
        fields: dict[str, JSON] = {"schema": SCHEMA, **self.model_dump(mode="json")}
        return canonicalize(fields)


@dataclass(frozen=True)
class CheckedPackage:
    """An image whose signature and hash hold.

    Attributes:
        manifest: as its developer signed it.
        image_sha256: SHA-256 of the whole image, by which statements name it.
        sealed: the content, still sealed.
    """

    manifest: PackageManifest
    image_sha256: str
    sealed: bytes


def package_dataset(name: str, version: str) -> str:
    """What release policies and wrapped keys call a package.

    Raises:
        PackageError: ``package.malformed`` for a name or version that isn't allowed.
    """
    if not re.match(_NAME, name) or not re.match(_NAME, version):
        raise _malformed("its name or version has characters that are not allowed")
    return f"package/{name}/{version}"


def seal_package(
    files: Mapping[str, bytes],
    *,
    name: str,
    version: str,
    data_key: str,
    key: bytes | bytearray,
    developer: Signer,
    description: Mapping[str, JSON] | None = None,
) -> bytes:
    """Make an image.

    Args:
        files: content by relative path, at least one.
        name: lower-case letters, digits, dots, dashes and underscores.
        version: likewise.
        data_key: the key's id in the developer's book.
        key: 32 bytes.
        developer: signs the manifest.
        description: what everybody may know beside; none for nothing.

    Returns:
        The image; the same files give another one each time, since the seal is salted.

    Raises:
        PackageError: ``package.malformed`` for a name, version or path that isn't allowed, or no file;
            ``package.too_large``.
    """
    content = bytearray(_encode_files(files))
    sealed = seal(content, key, context=package_dataset(name, version))
    wipe(content)
    try:
        manifest = PackageManifest(
            name=name,
            version=version,
            data_key=data_key,
            sealed_sha256=sha256_hex(sealed),
            sealed_bytes=len(sealed),
            description=dict(description or {}),
        )
        payload = manifest.encode()
    except (ValidationError, InputError):
        raise _malformed("its name, version, key, size or description is out of bounds") from None
    envelope = sign_envelope(PAYLOAD_TYPE, payload, developer).encode()
    if len(envelope) > _MAX_ENVELOPE:
        raise _malformed("its description is too long")
    return _HEAD.pack(_MAGIC, len(envelope)) + envelope + sealed


def check_package(image: bytes, developer: PublicKey) -> CheckedPackage:
    """Check an image without opening it: what a hub and a hospital do.

    Args:
        image: at most 512 MiB.
        developer: the only key accepted.

    Raises:
        PackageError: ``package.too_large``, ``package.malformed``, ``package.signature`` or
            ``package.tampered``.
    """
    if len(image) > MAX_IMAGE_BYTES:
        raise _too_large()
    if len(image) < _HEAD.size:
        raise _malformed("it ends too early")
    magic, length = _HEAD.unpack_from(image)
    if magic != _MAGIC or not 0 < length <= min(_MAX_ENVELOPE, len(image) - _HEAD.size):
        raise _malformed("it doesn't begin as one does")
    manifest = _manifest(image[_HEAD.size : _HEAD.size + length], developer)
    sealed = image[_HEAD.size + length :]
    if len(sealed) != manifest.sealed_bytes or sha256_hex(sealed) != manifest.sealed_sha256:
        raise _tampered()
    return CheckedPackage(manifest, sha256_hex(image), sealed)


def open_package(package: CheckedPackage, key: bytes | bytearray) -> dict[str, bytes]:
    """The files of a checked image: what an attested worker does, with the key that it was given.

    Args:
        package: as `check_package` gave it.
        key: 32 bytes.

    Returns:
        Content by relative path, sorted. Nothing is written anywhere.

    Raises:
        PackageError: ``package.tampered`` where the key doesn't open it; ``package.malformed``.
    """
    try:
        content = unseal(package.sealed, key, context=package.manifest.dataset)
    except CloisterError:
        raise _tampered() from None
    try:
        return _decode_files(memoryview(content))
    finally:
        wipe(content)


def _manifest(data: bytes, developer: PublicKey) -> PackageManifest:
    try:
        envelope = decode_envelope(data)
    except CloisterError:
        raise _malformed("its envelope is none") from None
    try:
        payload = verify_envelope(envelope, developer)
    except CloisterError:
        raise PackageError("package.signature", "The package is not signed by the developer's key.") from None
    try:
        value = parse_canonical(payload, max_bytes=_MAX_ENVELOPE, max_depth=_MAX_DEPTH)
        if envelope.payload_type != PAYLOAD_TYPE or not isinstance(value, dict):
            raise _malformed("its manifest is of another form")
        if value.pop("schema", None) != SCHEMA:
            raise _malformed("its manifest is of another version")
        manifest = PackageManifest.model_validate(value)
    except (InputError, ValidationError):
        raise _malformed("its manifest is of another form") from None
    if manifest.encode() != payload:
        raise _malformed("its manifest is of another form")
    return manifest


def _encode_files(files: Mapping[str, bytes]) -> bytes:
    if not 0 < len(files) <= MAX_FILES:
        raise _malformed(f"it holds 1 to {MAX_FILES} files")
    if sum(map(len, files.values())) > MAX_IMAGE_BYTES:
        raise _too_large()
    parts = [_COUNT.pack(len(files))]
    for path in sorted(files):
        if not _PATH.fullmatch(path):
            raise _malformed("a path is not one")
        encoded = path.encode("ascii")
        parts += [_ENTRY.pack(len(encoded), len(files[path])), encoded, files[path]]
    return b"".join(parts)


def _decode_files(content: memoryview) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        (count,) = _COUNT.unpack_from(content)
        at = _COUNT.size
        for _ in range(count):
            path_size, size = _ENTRY.unpack_from(content, at)
            at += _ENTRY.size
            if path_size + size > len(content) - at:
                break
            path = bytes(content[at : at + path_size]).decode("ascii")
            files[path] = bytes(content[at + path_size : at + path_size + size])
            at += path_size + size
        if at == len(content) and len(files) == count and _encode_files(files) == content:
            return files
    except (struct.error, UnicodeDecodeError):
        pass
    raise _malformed("its content is of another form")


def _malformed(reason: str) -> PackageError:
    return PackageError("package.malformed", f"This is no package: {reason}.")


def _tampered() -> PackageError:
    return PackageError("package.tampered", "The package's content is not what its developer signed.")


def _too_large() -> PackageError:
    return PackageError("package.too_large", f"A package has at most {MAX_IMAGE_BYTES} bytes.")
