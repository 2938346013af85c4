"""A model in a developer's sealed package: how it is packed, named, and found again behind the seal.

Rules kept here:

* A package for inference holds one model file and nothing else. Which architecture its weights belong to is
  the package's public description, which its developer signs: models are named, not shipped as code.
* The key to a package is released for serving that package in that version, and for nothing else.
* A model that doesn't fit its description isn't packed, nor loaded.
"""

from __future__ import annotations

from typing import Final

from cloister.core.keys import PublicKey, Signer
from cloister.enclave.errors import PackageError
from cloister.enclave.inference.card import (
    ModelCard,
    ModelDescription,
    PackageName,
    card_of,
    card_of_package,
)
from cloister.enclave.package import CheckedPackage, PackageManifest, open_package, seal_package

MODEL_FILE: Final = "model.safetensors"


def serving_scope(manifest: PackageManifest) -> str:
    """What release policies call the serving of a package, in the place of a job."""
    return f"inference:{manifest.name}:{manifest.version}"


def require_fit(model: bytes, description: ModelDescription) -> None:
    """Refuse a model that a service couldn't load.

    Raises:
        EnclaveError: ``enclave.model_file``.
        InferenceError: ``inference.malformed``.
        ModelError: no such model, or the weights are not its own.
    """
    from cloister.enclave.inference.network import load_network

    load_network(card_of(description.as_json(), model), model)


def seal_model(
    model: bytes,
    description: ModelDescription,
    *,
    name: str,
    version: str,
    data_key: str,
    key: bytes | bytearray,
    developer: Signer,
) -> bytes:
    """Pack a model file.

    Args:
        model: the file.
        description: what its weights belong to; public in the package.
        name: the package's.
        version: the package's.
        data_key: the key's id in the developer's book.
        key: 32 bytes.
        developer: signs the package.

    Raises:
        PackageError: as `cloister.enclave.package.seal_package`.
    """
    return seal_package(
        {MODEL_FILE: model},
        name=name,
        version=version,
        data_key=data_key,
        key=key,
        developer=developer,
        description=description.as_json(),
    )


def packaged_card(package: CheckedPackage, developer: PublicKey) -> ModelCard:
    """The card of the model in a package.

    Args:
        package: as it was checked.
        developer: by whose key.

    Raises:
        InferenceError: ``inference.malformed`` where its developer describes no model.
    """
    name = PackageName(image_sha256=package.image_sha256, developer=developer.key_id)
    return card_of_package(package.manifest.description, name)


def model_in(package: CheckedPackage, key: bytes | bytearray) -> bytes:
    """The model file in a package; behind the seal only.

    Args:
        package: as it was checked.
        key: 32 bytes.

    Raises:
        PackageError: ``package.tampered`` where the key doesn't open it; ``package.malformed`` where
            something else than one model file is in it.
    """
    files = open_package(package, key)
    if files.keys() != {MODEL_FILE}:
        raise PackageError("package.malformed", "The package holds something else than one model file.")
    return files[MODEL_FILE]
