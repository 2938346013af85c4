"""``cloister infer``: a prediction that only who asked can read, from an enclave that was verified before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from cloister.cli.appraisal_files import policy_in, policy_of, trust_in
from cloister.cli.options import Debug, Json, PolicyFile, SimulatedRoots, VendorDocuments
from cloister.cli.serving import MAX_MODEL, Simulated, description_of, key_in, serving, simulated_machine

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cloister.core.errors import InputError
    from cloister.enclave.inference import InferenceSession
    from cloister.enclave.sealed import SealPolicy

_MAX_INPUT = 64 * 1024 * 1024


def attach(app: typer.Typer) -> None:
    """Attach the command to the application."""
    app.command(
        "infer",
        help="Verify an enclave, seal an input to it, and print the prediction that only you can read.",
        epilog="Examples:  cloister infer --input ROWS.csv --endpoint HOST:PORT --measurement HEX "
        "--model-sha256 HEX --collateral crl/   ·   cloister infer --input ROWS.csv --model M --job JOB "
        "--simulated-enclave",
    )(_infer)


def _infer(
    rows: Annotated[
        Path,
        typer.Option("--input", help="Rows of numbers as CSV, scaled as the model was trained; no heading."),
    ],
    model: Annotated[
        Path | None, typer.Option("--model", help="The model file: the only one that will do.")
    ] = None,
    model_sha256: Annotated[
        str | None,
        typer.Option(
            "--model-sha256", metavar="HEX", help="The same by its hash, for who has no copy of it."
        ),
    ] = None,
    package_sha256: Annotated[
        str | None,
        typer.Option(
            "--package-sha256",
            metavar="HEX",
            help="Instead: the only sealed package that will do, by its hash.",
        ),
    ] = None,
    developer: Annotated[
        Path | None,
        typer.Option(
            "--developer",
            metavar="KEY",
            help="The developer's public key, PEM: any sealed package of theirs will do, or the named one.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Where it is served: host:port, or a socket's path.")
    ] = None,
    measurement: Annotated[
        list[str] | None,
        typer.Option(
            "--measurement",
            help="Code that will do, 96 or 64 hex digits; may be given again. "
            "Hardware of AMD needs a --policy.",
        ),
    ] = None,
    policy: PolicyFile = None,
    collateral: VendorDocuments = None,
    seal: Annotated[
        list[str] | None,
        typer.Option(
            "--seal",
            show_default="namespaces",
            help="A level at which the worker may be sealed; may be given again.",
        ),
    ] = None,
    root: SimulatedRoots = None,
    without_revocation: Annotated[
        bool,
        typer.Option("--without-revocation", help="Do without a revocation list of the hardware's vendor."),
    ] = False,
    job: Annotated[
        Path | None, typer.Option("--job", help="With --simulated-enclave: the job file it was trained by.")
    ] = None,
    simulated: Simulated = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.enclave_files import collateral_in
    from cloister.cli.watching import watched
    from cloister.core.clock import system_clock
    from cloister.core.settings import load_settings
    from cloister.enclave.attestation import Platforms, Verifier
    from cloister.enclave.inference import SocketEndpoint, open_session

    with watched(load_settings({})):
        asked, accepted = read_rows(rows), _levels(seal)
        if simulated:
            if endpoint is not None:
                raise _wrong("Name an --endpoint, or ask for a --simulated-enclave.", "Give one of the two.")
            return _rehearse(asked, model, job, accepted, as_json=as_json)
        if endpoint is None:
            raise _wrong("Name an --endpoint, or ask for a --simulated-enclave.", "Give one of the two.")
        if policy is None and not measurement:
            raise _wrong(
                "Nothing says which code may read the input.",
                "Give --measurement, which you have from who built the image, or --policy.",
            )
        if policy is not None and (measurement or without_revocation):
            raise _wrong("A --policy says all that the machine has to be.", "Give it alone, or leave it out.")
        wanted = _wanted(model, model_sha256, package_sha256, developer)
        verifier = Verifier(trust_in(root or []), system_clock, collateral_in(collateral or []))
        appraised = (
            policy_of(
                measurement or [],
                Platforms.HARDWARE_OR_SIMULATED if root else Platforms.HARDWARE_ONLY,
                without_revocation=without_revocation,
            )
            if policy is None
            else policy_in(policy).for_some_machine()
        )
        remote = SocketEndpoint(endpoint)
        try:
            session = open_session(remote, verifier, appraised, seal=accepted, **wanted)
            return _show(session, session.predict(asked), as_json=as_json)
        finally:
            remote.close()


def _rehearse(
    asked: npt.NDArray[np.float32],
    model: Path | None,
    job: Path | None,
    accepted: SealPolicy,
    *,
    as_json: bool,
) -> int:
    """Both sides in this process, on a made-up chip."""
    from cloister.core.clock import system_clock
    from cloister.core.files import read_bounded
    from cloister.core.hashes import sha256_hex
    from cloister.enclave.attestation import Platforms, TrustStore, Verifier
    from cloister.enclave.inference import open_session

    if model is None or job is None:
        raise _wrong("A simulated enclave needs the --model and the --job that it was trained by.")
    content, made = read_bounded(model, MAX_MODEL), simulated_machine()
    appraised = policy_of([made.measurement], Platforms.HARDWARE_OR_SIMULATED, without_revocation=True)
    verifier = Verifier(TrustStore.simulated(made.root), system_clock)
    with serving(content, description_of(job, asked.shape[1]), made, accepted) as service:
        session = open_session(
            service.connect(), verifier, appraised, model_sha256=sha256_hex(content), seal=accepted
        )
        return _show(session, session.predict(asked), as_json=as_json)


class _Wanted(TypedDict):
    """Which model will do, in the words of `open_session`."""

    model_sha256: str | None
    package_sha256: str | None
    developer: str | None


def _wanted(model: Path | None, named: str | None, package: str | None, developer: Path | None) -> _Wanted:
    """Which model will do."""
    from cloister.core.files import read_bounded
    from cloister.core.hashes import sha256_hex

    if (model is not None) + (named is not None) + (package is not None or developer is not None) != 1:
        raise _wrong(
            "Say which model it has to be.",
            "Give --model, or --model-sha256 where you have no copy; for a sealed package --package-sha256, "
            "--developer, or both.",
        )
    if model is not None:
        named = sha256_hex(read_bounded(model, MAX_MODEL))
    return _Wanted(
        model_sha256=_hash(named, "--model-sha256"),
        package_sha256=_hash(package, "--package-sha256"),
        developer=None if developer is None else key_in(developer).key_id,
    )


def _hash(named: str | None, option: str) -> str | None:
    from cloister.core.hashes import is_sha256

    if named is not None and not is_sha256(named.lower()):
        raise _wrong(f"{option} is no SHA-256.", "Write it as 64 hex digits.")
    return None if named is None else named.lower()


def _wrong(sentence: str, hint: str = "") -> InputError:
    from cloister.core.errors import InputError

    return InputError("input.schema", sentence, hint)


def read_rows(path: Path) -> npt.NDArray[np.float32]:
    """Rows of finite numbers from a CSV file without a heading.

    Raises:
        InputError: it is missing, too large, empty, or holds something else; no content is repeated.
    """
    import numpy as np

    from cloister.core.errors import InputError
    from cloister.core.files import read_bounded

    lines = read_bounded(path, _MAX_INPUT).decode("utf-8", "replace").splitlines()
    found: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = [float(part) for part in line.split(",")]
        except ValueError:
            raise InputError("input.schema", f"Line {number} of {path} isn't numbers.") from None
        if found and len(row) != len(found[0]):
            raise InputError("input.schema", f"Line {number} of {path} has another number of columns.")
        found.append(row)
    if not found:
        raise InputError("input.schema", f"{path} has no rows.")
    with np.errstate(over="ignore"):
        rows = np.asarray(found, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise InputError("input.schema", f"{path} holds a number that isn't finite in 32 bits.")
    return rows


def _levels(names: list[str] | None) -> SealPolicy:
    from cloister.core.errors import InputError
    from cloister.enclave.sealed import SealLevel, SealPolicy

    if not names:
        return SealPolicy()
    if set(names) - set(SealLevel):
        raise InputError(
            "input.schema", "--seal names no level of sealing.", f"Levels: {', '.join(SealLevel)}."
        )
    return SealPolicy(tuple(map(SealLevel, names)))


def _show(session: InferenceSession, predicted: npt.NDArray[np.float32], *, as_json: bool) -> int:
    verdict, package = session.verdict, session.card.package
    if as_json:
        print(
            json.dumps(
                {
                    "platform": verdict.hardware_type,
                    "simulated": verdict.simulated,
                    "measurement": verdict.measurement,
                    "model_sha256": session.card.model_sha256,
                    "package": package.model_dump() if package else None,
                    "seal": session.seal.as_json(),
                    "probabilities": [[round(float(one), 6) for one in row] for row in predicted],
                },
                indent=2,
            )
        )
        return 0
    print(f"enclave        {verdict.hardware_type}, code {verdict.measurement[:16]}...")
    if verdict.simulated:
        print("               SIMULATED - NOT HARDWARE: nothing here is protected by it")
    if package is not None:
        print(f"package        {package.image_sha256[:16]}..., of developer {package.developer[:23]}...")
    print(f"worker         sealed, level {session.seal.level.value}")
    for number, row in enumerate(predicted, 1):
        print(f"row {number:<10} " + "  ".join(f"{one:.4f}" for one in row))
    return 0
