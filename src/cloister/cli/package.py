"""``cloister package``: a developer's model as a sealed package: all can check it, nobody can read it."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.options import Debug, Json


class Contents(str, Enum):  # noqa: UP042 - a choice of the command line
    """What a package's key is for."""

    PACKAGE = "package"
    TEST_DATA = "test-data"


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "seal",
        help="Encrypt a model under a new data key of your own book, and sign the package. Its description - "
        "architecture, parameters, features, classes - stays readable; its weights don't.",
        epilog="Example:  cloister package seal model.safetensors --keeper developer/ --job job.yaml "
        "--features 30 --name lungs --version 1 --out lungs.package",
    )(_seal)
    group.command(
        "check",
        help="Check a package's signature, hash and size without opening it: what a provider, a hub or a "
        "hospital does.",
        epilog="Example:  cloister package check lungs.package --developer developer.pem",
    )(_check)


def _seal(
    model: Annotated[Path, typer.Argument(metavar="FILE", help="The model file.")],
    keeper: Annotated[
        Path, typer.Option("--keeper", metavar="DIR", help="Your folder of keys; made on first use.")
    ],
    job: Annotated[
        Path, typer.Option("--job", help="The job file it was trained by: names the model's architecture.")
    ],
    features: Annotated[int, typer.Option("--features", min=1, help="Numbers in a row.")],
    name: Annotated[str, typer.Option("--name", help="The package's, in lower case.")],
    version: Annotated[str, typer.Option("--version", help="Of the package; each is sealed once.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; nothing is overwritten.")],
    contents: Annotated[
        Contents,
        typer.Option(
            "--contents", help="What its key is for. Simulated machines get keys of test-data only."
        ),
    ] = Contents.PACKAGE,
    kms_key: Annotated[
        str | None, typer.Option("--kms-key", metavar="ARN", help="Wrap its key by this key in AWS KMS.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.serving import description_of
    from cloister.cli.watching import watched
    from cloister.core.clock import system_clock
    from cloister.core.files import read_bounded, require_place, storage_error, write_new
    from cloister.core.sealing import wipe
    from cloister.core.settings import load_settings
    from cloister.enclave.inference.packaging import require_fit, seal_model, serving_scope
    from cloister.enclave.keyrelease.folder import KeeperFolder
    from cloister.enclave.keyrelease.policy import KeyPurpose
    from cloister.enclave.package import MAX_IMAGE_BYTES, check_package, package_dataset

    content, description = read_bounded(model, MAX_IMAGE_BYTES), description_of(job, features)
    require_fit(content, description)
    dataset = package_dataset(name, version)
    settings = load_settings({})
    folder = KeeperFolder(keeper, settings)
    folder.require_apart(out)
    require_place(out)
    if out.exists():
        raise storage_error(FileExistsError(17, ""), out)
    developer = folder.package_signer()
    made = folder.package_key(dataset, KeyPurpose(contents.value), system_clock(), kms_key)
    with watched(settings, keeper):
        key = folder.unwrap(made)
        try:
            image = seal_model(
                content,
                description,
                name=name,
                version=version,
                data_key=made.data_key,
                key=key,
                developer=developer,
            )
        finally:
            wipe(key)
    write_new(out, image, mode=0o644)
    package = check_package(image, developer.public_key)
    return _show(
        {
            "sealed": str(out),
            "package_sha256": package.image_sha256,
            "data_key": package.manifest.data_key,
            "scope": serving_scope(package.manifest),
            "developer": developer.public_key.key_id,
            "public_key": str(folder.public_key_file(developer.public_key)),
        },
        as_json=as_json,
    )


def _check(
    package: Annotated[Path, typer.Argument(metavar="FILE", help="The package.")],
    developer: Annotated[
        Path, typer.Option("--developer", metavar="KEY", help="The developer's public key, PEM.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.serving import key_in
    from cloister.core.files import read_bounded
    from cloister.enclave.package import MAX_IMAGE_BYTES, check_package

    key = key_in(developer)
    checked = check_package(read_bounded(package, MAX_IMAGE_BYTES), key)
    manifest = checked.manifest
    return _show(
        {
            "package": f"{manifest.name} {manifest.version}",
            "package_sha256": checked.image_sha256,
            "sealed_bytes": manifest.sealed_bytes,
            "data_key": manifest.data_key,
            "developer": key.key_id,
            **{one: value for one, value in manifest.description.items() if value != {}},
        },
        as_json=as_json,
    )


def _show(facts: dict[str, object], *, as_json: bool) -> int:
    from cloister.cli.text import printable

    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        shown = value if isinstance(value, str) else json.dumps(value)
        print(printable(f"{name.replace('_', ' '):14} {shown}"))
    return 0
