"""``cloister serve-inference``: a model in a sealed worker of this machine, for clients who verify it.

Without a switch it starts only on a machine that proves itself as for ``cloister enclave start`` (exit code
78 otherwise). ``--simulated-enclave`` rehearses on a made-up chip. Where the worker ends, or measured code
changes, the command ends: nothing takes its place by itself. However it ends, what was used and how the
worker was destroyed is stated in the provider's log, if there is one.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import Debug, Json, LaunchFile, LaunchFolder
from cloister.cli.services import asked_to_stop, own_log
from cloister.cli.serving import (
    MAX_MODEL,
    Packaged,
    ServingMachine,
    Simulated,
    description_of,
    key_in,
    serving,
    serving_package,
    simulated_machine,
)

if TYPE_CHECKING:
    from cloister.enclave.inference import InferenceListener, InferenceService
    from cloister.enclave.sealed import SealPolicy
    from cloister.evidence.writer import StatementWriter


def attach(app: typer.Typer) -> None:
    """Attach the command to the application."""
    app.command(
        "serve-inference",
        help="Serve a model from a sealed worker, if this machine proves that it is protected; otherwise "
        "refuse with 78. You carry what clients ask, and can read none of it. Ctrl-C or SIGTERM stop it: "
        "what is being answered is answered, and the log gets its last statements.",
        epilog="Examples:  cloister serve-inference --model M --job JOB --features 30 --listen HOST:PORT "
        "-f /etc/cloister --metering bills/   ·   cloister serve-inference --package P --developer KEY "
        "--key-service HOST:PORT --key-policy HEX -f /etc/cloister   ·   cloister serve-inference --model M "
        "--job JOB --features 30 --simulated-enclave --root-out root.pem   ·   then, as a client:  cloister "
        "infer --help",
    )(_serve)


def _serve(
    model: Annotated[
        Path | None, typer.Option("--model", help="The model file that is served, with --job and --features.")
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option("--job", help="The job file it was trained by: names the model's architecture."),
    ] = None,
    features: Annotated[int | None, typer.Option("--features", min=1, help="Numbers in a row.")] = None,
    package: Annotated[
        Path | None,
        typer.Option(
            "--package",
            help="A developer's sealed package that is served instead, with the three options below.",
        ),
    ] = None,
    developer: Annotated[
        Path | None, typer.Option("--developer", metavar="KEY", help="The developer's public key, PEM.")
    ] = None,
    key_service: Annotated[
        str | None,
        typer.Option("--key-service", metavar="ADDRESS", help="Where the developer's key service listens."),
    ] = None,
    key_policy: Annotated[
        str | None,
        typer.Option(
            "--key-policy", metavar="HEX", help="The release policy to ask under, as the developer names it."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="host:port, or a path for a socket; port 0 takes a free one.")
    ] = "127.0.0.1:8470",
    conf: LaunchFile = None,
    config_folder: LaunchFolder = Path(),
    root_out: Annotated[
        Path | None,
        typer.Option("--root-out", help="Where to write the simulated vendor's root, for clients to accept."),
    ] = None,
    metering: Annotated[
        Path | None,
        typer.Option(
            "--metering",
            metavar="DIR",
            help="Folder of your log: states what was used, as signed counts, and how the worker ended.",
        ),
    ] = None,
    provider: Annotated[str, typer.Option("--provider", help="Your name in that log.")] = "provider",
    simulated: Simulated = False,
    vendor: Annotated[
        Path | None,
        typer.Option(
            "--simulated-vendor",
            metavar="DIR",
            help="Whose chip a simulated one is: a folder of `cloister enclave simulate`.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.errors import InputError
    from cloister.core.files import write_new
    from cloister.core.settings import load_settings
    from cloister.enclave.attestation import certificate_pem
    from cloister.enclave.inference import InferenceListener
    from cloister.enclave.launch import require_switches_for
    from cloister.evidence import Role
    from cloister.workflow.immunity import immunity
    from cloister.workflow.sealing import accepted_levels

    require_switches_for(os.environ, simulation=simulated, insecure=False)
    if (root_out, vendor) != (None, None) and not simulated:
        raise InputError("input.schema", "--root-out and --simulated-vendor are for a --simulated-enclave.")
    start = _starting(model, job, features, package, developer, key_service, key_policy)
    machine = simulated_machine(vendor) if simulated else _proven(config_folder, conf, quiet=as_json)
    settings = load_settings({})
    levels = accepted_levels(settings.seal_levels, ())
    # What is entered last ends first. A stop before anything is served unwinds like Ctrl-C.
    with ExitStack() as running:
        running.enter_context(asked_to_stop(signal.default_int_handler))
        listener = running.enter_context(InferenceListener(listen))
        writer = None if metering is None else running.enter_context(own_log(metering, Role.HUB, provider))
        noticing = running.enter_context(immunity(settings, metering))
        running.enter_context(noticing.stated_by([] if writer is None else [writer]))
        if root_out is not None:
            write_new(root_out, certificate_pem(machine.root), mode=0o644)
        service = running.enter_context(start(machine, levels))
        service.on_end = listener.close
        with asked_to_stop(lambda *_: listener.close()), _watched(service, listener, writer):
            _announce(service, listener, machine, as_json=as_json)
            listener.serve(service)
        service.require_running()
        if not as_json:
            checks = ", ".join(f"{one.name} {one.outcome}" for one in service.close().checks)
            print(f"worker ended   {checks}")
    return 0


def _starting(
    model: Path | None,
    job: Path | None,
    features: int | None,
    package: Path | None,
    developer: Path | None,
    key_service: str | None,
    key_policy: str | None,
) -> Callable[[ServingMachine, SealPolicy], InferenceService]:
    """What starts the service, once the machine has proven itself; what was typed is read before."""
    from cloister.core.errors import InputError
    from cloister.core.files import read_bounded
    from cloister.core.hashes import is_sha256
    from cloister.enclave.package import MAX_IMAGE_BYTES, check_package

    plain, sealed = (model, job, features), (package, developer, key_service, key_policy)
    if model and job and features and not any(sealed):
        content, description = read_bounded(model, MAX_MODEL), description_of(job, features)
        return lambda machine, levels: serving(content, description, machine, levels)
    if any(plain) or not (package and developer and key_service and key_policy):
        raise InputError(
            "input.schema",
            "Nothing, or too much, is named to serve.",
            "Give --model, --job and --features; or --package, --developer, --key-service and --key-policy.",
        )
    if not is_sha256(key_policy.lower()):
        raise InputError("input.schema", "--key-policy is no release policy's id.", "Write 64 hex digits.")
    image, signed_by = read_bounded(package, MAX_IMAGE_BYTES), key_in(developer)
    check_package(image, signed_by)
    asked = Packaged(image, signed_by, key_service, key_policy.lower())
    return lambda machine, levels: serving_package(asked, machine, levels)


def _proven(folder: Path, conf: Path | None, *, quiet: bool) -> ServingMachine:
    from cloister.cli.enclave_launch import launch_configuration, proven_machine

    proven = proven_machine(launch_configuration(folder, conf), quiet=quiet)
    verdict = proven.proof.verdict
    return ServingMachine(proven.machine.quote, verdict.measurement, verdict.hardware_type)


def _announce(
    service: InferenceService, listener: InferenceListener, machine: ServingMachine, *, as_json: bool
) -> None:
    package, model_sha256 = service.card.package, service.card.model_sha256
    facts = {
        "listening": listener.address,
        **({"model_sha256": model_sha256} if model_sha256 else {}),
        **({"package_sha256": package.image_sha256, "developer": package.developer} if package else {}),
        "measurement": machine.measurement,
        "platform": machine.platform,
        "seal": service.seal.level.value,
    }
    shown = "\n".join(f"{name:14} {value}" for name, value in facts.items())
    print(json.dumps(facts) if as_json else shown, flush=True)


@contextmanager
def _watched(
    service: InferenceService, listener: InferenceListener, writer: StatementWriter | None
) -> Iterator[None]:
    """Watch the measured code, and meter, while the service runs; a change of code ends it and is stated."""
    from cloister.core.clock import system_clock
    from cloister.enclave.inference import Metering
    from cloister.enclave.sealed import CodeChange, IntegrityMonitor
    from cloister.enclave.sealed.integrity import changed_error
    from cloister.evidence import Subject
    from cloister.evidence.predicates import Incident
    from cloister.workflow.sealing import sealed_server

    sealing = sealed_server()
    changes: list[CodeChange] = []

    def ended(change: CodeChange) -> None:
        changes.append(change)
        listener.close()

    monitor = IntegrityMonitor(sealing.host, sealing.watched, sealing.baseline, ended, system_clock)
    with nullcontext() if writer is None else Metering(service, writer, system_clock):
        try:
            with monitor.start():
                yield
        finally:
            if writer is not None:
                subject = Subject("model", service.card.artifact_sha256)
                for change in changes:
                    writer.write(Incident, [subject], **change.incident_fields())
    if changes:
        raise changed_error()
