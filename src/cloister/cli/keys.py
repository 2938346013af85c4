"""``cloister keys data-key``: a keeper's data keys: make, seal with, allow, look at, revoke.

Keys are kept where the settings say: in files, encrypted files or a PKCS#11 token; or in AWS KMS, by its ARN.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli import keys_serve
from cloister.cli.options import Debug, Json

if TYPE_CHECKING:
    from cloister.enclave.attestation import AppraisalPolicy
    from cloister.enclave.keyrelease.data_keys import DataKey
    from cloister.enclave.keyrelease.folder import KeeperFolder

Folder = Annotated[Path, typer.Argument(help="The keeper's folder; made on first use.")]
Dataset = Annotated[str, typer.Option("--dataset", help="What the key opens, such as heart-disease.")]
KmsKey = Annotated[
    str | None,
    typer.Option(
        "--kms-key", metavar="ARN", help="Wrap it by this key in AWS KMS; else as the settings say."
    ),
]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The data key's id, dk-...")]


class SealLevel(str, Enum):  # noqa: UP042 - a choice of the command line
    """How much holds a worker."""

    NAMESPACES = "namespaces"
    NO_NAMESPACES = "no-namespaces"
    NAMESPACES_UNREPORTED = "namespaces-unreported"
    NO_NAMESPACES_UNREPORTED = "no-namespaces-unreported"


class Purpose(str, Enum):  # noqa: UP042 - a choice of the command line
    """What kind of thing a data key opens."""

    RECORDS = "records"
    PACKAGE = "package"
    TEST_DATA = "test-data"


PurposeOption = Annotated[
    Purpose,
    typer.Option("--purpose", help="What it opens. Simulated enclaves get keys of test-data only."),
]


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    keys = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="Data keys: wrapped by a key that never leaves its place, released under signed policies.",
        epilog="Example:  cloister keys data-key create keeper/ --dataset heart-disease",
    )
    keys.command(
        "create",
        help="Make a data key. It is kept wrapped, and seen by nobody.",
        epilog="Example:  cloister keys data-key create keeper/ --dataset heart-disease",
    )(_create)
    keys.command(
        "wrap",
        help="Take a data key into the book that is in use already: a file of mode 0600 with 32 bytes.",
        epilog="Example:  cloister keys data-key wrap keeper/ old.key --dataset heart-disease",
    )(_wrap)
    keys.command(
        "seal",
        help="Encrypt a file under a data key, in chunks, for an attested worker to open.",
        epilog="Example:  cloister keys data-key seal keeper/ dk-... heart.csv --out sealed/heart.sealed",
    )(_seal)
    keys.command(
        "allow",
        help="Sign a release policy: who may have the key, for which job, how often and until when.",
        epilog="Example:  cloister keys data-key allow keeper/ dk-... --scope JOB_ID --policy policy.json",
    )(_allow)
    keys.command(
        "revoke",
        help="Release a key, or under a policy, never again. What was released before stays where it is.",
        epilog="Examples:  cloister keys data-key revoke keeper/ dk-...   ·   cloister keys data-key revoke "
        "keeper/ POLICY_ID",
    )(_revoke)
    keys.command(
        "status",
        help="Show data keys, release policies and how often each was used.",
        epilog="Example:  cloister keys data-key status keeper/ --json",
    )(_status)
    group.add_typer(keys, name="data-key")
    keys_serve.attach(group)


def _create(
    folder: Folder,
    dataset: Dataset,
    purpose: PurposeOption = Purpose.RECORDS,
    kms_key: KmsKey = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.enclave.keyrelease.policy import KeyPurpose

    made = _keeper(folder).create_key(_dataset(dataset), KeyPurpose(purpose.value), system_clock(), kms_key)
    return _show(_key_facts(made), as_json=as_json)


def _wrap(
    folder: Folder,
    key: Annotated[Path, typer.Argument(help="The file that holds it; remove it afterwards.")],
    dataset: Dataset,
    purpose: PurposeOption = Purpose.RECORDS,
    kms_key: KmsKey = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.core.keys.secrets import read_private
    from cloister.enclave.keyrelease.policy import KeyPurpose

    made = _keeper(folder).wrap_key(
        read_private(key), _dataset(dataset), KeyPurpose(purpose.value), system_clock(), kms_key
    )
    return _show(_key_facts(made), as_json=as_json)


def _seal(
    folder: Folder,
    key: KeyId,
    source: Annotated[Path, typer.Argument(help="The plain file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; nothing is overwritten.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.watching import watched
    from cloister.core.settings import load_settings

    with watched(load_settings({}), folder):
        length = _keeper(folder).seal(key, source, out)
    return _show({"sealed": str(out), "data_key": key, "plain_bytes": length}, as_json=as_json)


def _allow(
    folder: Folder,
    key: KeyId,
    scope: Annotated[str, typer.Option("--scope", help="The job's id, or the study's.")],
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="All that the machine has to be, in JSON, instead of measurements."),
    ] = None,
    measurement: Annotated[
        list[str] | None,
        typer.Option(
            "--measurement",
            help="Code that may have it: 96 hex digits for SEV-SNP, 64 for SGX; may be given again. "
            "AMD's hardware needs a --policy.",
        ),
    ] = None,
    releases: Annotated[int, typer.Option(min=1, max=10_000, help="How many times in all.")] = 1,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it holds, from now.")] = 30,
    simulated: Annotated[
        bool, typer.Option("--allow-simulated", help="Simulated enclaves too; for keys of test data only.")
    ] = False,
    without_revocation: Annotated[
        bool,
        typer.Option("--without-revocation", help="Do without a revocation list of the hardware's vendor."),
    ] = False,
    seal_level: Annotated[
        list[SealLevel] | None,
        typer.Option(
            "--seal-level", help="What may hold the worker; by default namespaces. May be given again."
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from datetime import timedelta

    from cloister.core.clock import format_time, system_clock
    from cloister.core.parsing import parse_model
    from cloister.enclave.keyrelease.policy import ReleasePolicy

    keeper, now = _keeper(folder), system_clock()
    dataset = keeper.book.key(key).dataset
    appraisal = _appraisal(policy, measurement, simulated=simulated, without_revocation=without_revocation)
    allowed = parse_model(
        ReleasePolicy,
        {
            "data_key": key,
            "dataset": dataset,
            "scope": scope,
            "tees": [*sorted(appraisal.kinds)],
            "appraisal": appraisal.model_dump(mode="json"),
            "seal_levels": [one.value for one in seal_level or [SealLevel.NAMESPACES]],
            "not_before": format_time(now),
            "expires_at": format_time(now + timedelta(days=days)),
            "releases": releases,
        },
        "release policy",
    )
    admitted = keeper.allow(allowed, now)
    return _show(
        {
            "policy_id": admitted.sha256,
            "data_key": key,
            "scope": scope,
            "releases": releases,
            "expires_at": admitted.expires_at,
        },
        as_json=as_json,
    )


def _appraisal(
    policy: Path | None, measurement: list[str] | None, *, simulated: bool, without_revocation: bool
) -> AppraisalPolicy:
    """What the machine has to show: the policy file's words, or what the other options say."""
    from cloister.cli.appraisal_files import policy_in, policy_of
    from cloister.core.errors import InputError
    from cloister.enclave.attestation import Platforms

    if (policy is None) == (measurement is None) or (policy and (simulated or without_revocation)):
        raise InputError(
            "input.schema",
            "Who may have the key is said by --policy, or by --measurement and what goes with it.",
            "Give one of the two; a policy says itself whether simulated platforms will do, and the rest.",
        )
    if policy is not None:
        return policy_in(policy).for_some_machine()
    platforms = Platforms.HARDWARE_OR_SIMULATED if simulated else Platforms.HARDWARE_ONLY
    return policy_of(measurement or [], platforms, without_revocation=without_revocation)


def _revoke(
    folder: Folder,
    name: Annotated[str, typer.Argument(metavar="ID", help="A data key's id, or a policy's.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock

    book = _keeper(folder).book
    revoke = book.revoke_key if name.startswith("dk-") else book.revoke_policy
    revoke(name, system_clock())
    return _show({"revoked": name}, as_json=as_json)


def _status(folder: Folder, as_json: Json = False, debug: Debug = False) -> int:
    book = _keeper(folder).book
    keys = [_key_facts(one) for one in book.all_keys()]
    policies: list[dict[str, object]] = [
        {
            "policy_id": one.policy_id,
            "data_key": one.data_key,
            "released": one.released,
            "refused": one.refused,
            "admitted_at": one.admitted_at,
            "revoked_at": one.revoked_at,
        }
        for one in book.all_policies()
    ]
    if as_json:
        return _show({"keys": keys, "policies": policies}, as_json=True)
    for facts in (*keys, *policies):
        _show(facts, as_json=False)
        print()
    print(f"{len(keys)} data keys, {len(policies)} release policies")
    return 0


def _key_facts(key: DataKey) -> dict[str, object]:
    return {
        "data_key": key.data_key,
        "dataset": key.dataset,
        "purpose": key.purpose.value,
        "wrapped_by": key.wrapping_id,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }


def _show(facts: dict[str, object], *, as_json: bool) -> int:
    import json

    from cloister.cli.text import printable

    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        if value is not None:
            print(printable(f"{name.replace('_', ' '):12} {value}"))
    return 0


def _keeper(folder: Path) -> KeeperFolder:
    from cloister.core.settings import load_settings
    from cloister.enclave.keyrelease.folder import KeeperFolder

    return KeeperFolder(folder, load_settings({}))


def _dataset(name: str) -> str:
    import re

    from cloister.core.errors import InputError
    from cloister.enclave.keyrelease.policy import DATASET_PATTERN

    if not re.fullmatch(DATASET_PATTERN, name):
        raise InputError(
            "input.schema",
            "A dataset's name has characters that are not allowed.",
            "Use up to 200 letters, digits, dots, dashes, colons, slashes and underscores.",
        )
    return name
