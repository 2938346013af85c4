"""A model in a sealed worker of this machine, and what the machine proves itself with."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from cloister.core.keys import PublicKey
    from cloister.enclave.inference import InferenceService, ModelDescription
    from cloister.enclave.keyrelease import Quote
    from cloister.enclave.sealed import SealedHost, SealPolicy

MAX_MODEL: Final = 1024 * 1024 * 1024
_MAX_KEY: Final = 64 * 1024

Simulated = Annotated[
    bool,
    typer.Option(
        "--simulated-enclave", help="Run the model in a simulated enclave: NOT HARDWARE, it protects nothing."
    ),
]


@dataclass(frozen=True)
class ServingMachine:
    """What a service proves itself with.

    Attributes:
        quote: the machine's evidence for 64 bytes of report data.
        measurement: what clients are told to hold it against.
        platform: the kind of hardware.
        root: a simulated vendor's root, DER; empty for hardware.
    """

    quote: Quote
    measurement: str
    platform: str
    root: bytes = b""

    @property
    def simulated(self) -> bool:
        """Whether it is a simulation."""
        return bool(self.root)


@dataclass(frozen=True)
class Packaged:
    """A sealed package, and where its key is to be had.

    Attributes:
        image: the package.
        developer: the only key by which it may be signed.
        key_service: address of the developer's key service.
        policy_id: the release policy to ask under.
    """

    image: bytes
    developer: PublicKey
    key_service: str
    policy_id: str


def simulated_machine(folder: Path | None = None) -> ServingMachine:
    """A made-up chip for this process alone.

    Args:
        folder: of its made-up vendor; None for one that nobody else knows.
    """
    from cloister.core.clock import system_clock
    from cloister.enclave import SimulatedVendor, code_measurement

    made = SimulatedVendor.create if folder is None else partial(SimulatedVendor.open, folder)
    vendor = made(system_clock)
    platform = vendor.platform("inference", code_measurement())
    return ServingMachine(
        platform.quote, code_measurement().hex(), "SIMULATED - NOT HARDWARE", vendor.root_der
    )


def description_of(job: Path, features: int) -> ModelDescription:
    """Which model a job trained.

    Args:
        job: the job file.
        features: numbers in a row.
    """
    from cloister.enclave.inference import ModelDescription
    from cloister.workflow.jobfile import load_job

    spec = load_job(job).file.model
    return ModelDescription(spec.architecture, spec.model_dump(mode="json")["parameters"], features)


def key_in(path: Path) -> PublicKey:
    """The public key in a PEM file."""
    from cloister.core.files import read_bounded
    from cloister.core.keys import PublicKey

    return PublicKey.from_pem(read_bounded(path, _MAX_KEY))


def serving(
    content: bytes, description: ModelDescription, machine: ServingMachine, levels: SealPolicy
) -> InferenceService:
    """A service of this process's fork server.

    Args:
        content: the model file.
        description: what its weights belong to.
        machine: what it proves itself with.
        levels: which levels of sealing are acceptable.

    Raises:
        SealedError: no worker can be sealed so.
        CloisterError: the model isn't the described one.
    """
    from cloister.enclave.inference import InferenceService

    return InferenceService.start(
        _host(),
        description,
        content,
        quote=machine.quote,
        simulated=machine.simulated,
        policy=levels,
    )


def serving_package(package: Packaged, machine: ServingMachine, levels: SealPolicy) -> InferenceService:
    """A service of this process's fork server, of a model that only its worker can read.

    Args:
        package: the sealed model.
        machine: what it proves itself with.
        levels: which levels of sealing are acceptable.

    Raises:
        PackageError: it isn't the developer's.
        ReleaseError: its key is refused, or nobody answers who has it.
        SealedError: no worker can be sealed so.
    """
    from cloister.enclave.inference import InferenceService
    from cloister.enclave.keyrelease import KeyServiceEndpoint

    host = _host()
    with closing(KeyServiceEndpoint(package.key_service)) as keeper:
        return InferenceService.start_package(
            host,
            package.image,
            package.developer,
            keeper=keeper,
            policy_id=package.policy_id,
            quote=machine.quote,
            simulated=machine.simulated,
            policy=levels,
        )


def _host() -> SealedHost:
    """This process's fork server; a start that takes long says why."""
    from cloister.workflow.sealing import begin_sealing, sealed_server, what_takes_time

    starting = begin_sealing()
    if why := what_takes_time(starting):
        print(f"cloister: starting; {why}", file=sys.stderr)
    return sealed_server().host
