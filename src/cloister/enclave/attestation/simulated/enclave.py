"""A mock Nitro enclave for development: start, attest, run, stop.

It is a child process that runs named functions, registered when it is started, and asks a simulated security
module for its documents, in the module's own CBOR. It lets code that will live in an enclave be written and
tried without one.

It protects nothing: the host sees all of its memory, and only the process boundary isolates it. Each of its
documents and outputs says ``SIMULATED - NOT HARDWARE``, and no production trust accepts them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cloister.core.canonical import JSON, canonicalize
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.simulated.frames import Frame, FramedPipes, mock_error
from cloister.enclave.attestation.simulated.nitro import (
    EnclaveImage,
    SimulatedSecurityModule,
    attestation_request,
)
from cloister.enclave.attestation.strict_cbor import encode
from cloister.enclave.attestation.trust import SIMULATED_ORGANISATION

START_SECONDS: Final = 30.0
RUN_SECONDS: Final = 60.0
_CHILD = "cloister.enclave.attestation.simulated.enclave_child"
_MAX_REQUESTS = 64


@dataclass(frozen=True)
class SimulatedOutput:
    """What a function in a mock enclave returned.

    Attributes:
        data: its bytes.
        label: that it is simulated.
    """

    data: bytes
    label: str = SIMULATED_ORGANISATION


def image_of(functions: Mapping[str, str]) -> EnclaveImage:
    """The registers of a mock enclave: SHA-384 over the names and the source files of its functions.

    Args:
        functions: "package.module:function" by name.

    Raises:
        EnclaveError: enclave.mock where a module can't be found.
    """
    listed: list[JSON] = [
        [name, functions[name], _source_digest(functions[name])] for name in sorted(functions)
    ]
    return EnclaveImage.of(canonicalize(listed))


class MockNitroEnclave:
    """A running mock enclave; `start` makes one, and leaving a ``with`` block stops it.

    Args:
        process: the child.
        module: answers its requests for documents.
    """

    def __init__(self, process: subprocess.Popen[bytes], module: SimulatedSecurityModule) -> None:
        if process.stdin is None or process.stdout is None:
            raise mock_error("The child has no pipes.")
        self._process = process
        self._module = module
        self._pipes = FramedPipes(process.stdout.fileno(), process.stdin.fileno())

    @classmethod
    def start(cls, functions: Mapping[str, str], module: SimulatedSecurityModule) -> Self:
        """Start a child that knows these functions and no other.

        Args:
            functions: "package.module:function" by name; each takes bytes and a `HostedSecurityModule`, which
                it may ask for documents, and returns bytes.
            module: the simulated security module, best made with `image_of` the same functions.

        Raises:
            EnclaveError: enclave.mock where a function can't be imported.
        """
        process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of this package
            [sys.executable, "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "LANG": "C.UTF-8"},
            close_fds=True,
        )
        enclave = cls(process, module)
        try:
            enclave._pipes.send(Frame.START, encode({name: functions[name] for name in functions}))
            enclave._pipes.receive(START_SECONDS)
        except BaseException:
            enclave.stop()
            raise
        return enclave

    def attest(
        self, user_data: bytes, *, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> Evidence:
        """Have the enclave ask its security module for a document.

        Args:
            user_data: what to seal in: the 64 bytes of a binding's report data.
            nonce: what else to hand in.
            public_key: a key to hand in.

        Raises:
            EnclaveError: enclave.mock where the enclave is stopped or the module refuses.
        """
        request = attestation_request(user_data, nonce, public_key)
        return Evidence(Tee.AWS_NITRO, self._ask(Frame.ATTEST, request, Frame.DOCUMENT, START_SECONDS))

    def run(self, name: str, data: bytes, *, seconds: float = RUN_SECONDS) -> SimulatedOutput:
        """Run a registered function in the enclave.

        Args:
            name: as it was registered.
            data: what it gets, at most 1 MiB.
            seconds: how long it may take; the enclave is stopped where it takes longer.

        Raises:
            EnclaveError: enclave.mock where there is no such function, it fails, or takes too long.
        """
        return SimulatedOutput(self._ask(Frame.RUN, encode([name, data]), Frame.OUTPUT, seconds))

    def stop(self) -> None:
        """Kill the child and wait for its end; a stopped enclave answers nothing more."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, kind: Frame, body: bytes, wanted: Frame, seconds: float) -> bytes:
        if not self.running:
            raise mock_error("The mock enclave is stopped.")
        try:
            self._pipes.send(kind, body)
            for _ in range(_MAX_REQUESTS):
                answer, data = self._pipes.receive(seconds)
                if answer is not Frame.NSM_REQUEST:
                    break
                self._pipes.send(Frame.NSM_ANSWER, self._module.answer(data))
        except BaseException:
            self.stop()
            raise
        if answer is Frame.FAILED:
            raise mock_error("The function failed, or there is none of this name.")
        if answer is not wanted:
            self.stop()
            raise mock_error("The mock enclave answered something else.")
        return data


def _source_digest(function: str) -> str:
    spec = None
    try:
        spec = find_spec(function.partition(":")[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise mock_error("The module of a function can't be found.")
    return hashlib.sha384(Path(spec.origin).read_bytes()).hexdigest()
