"""The child of a mock Nitro enclave: imports the registered functions, then answers until its pipe closes."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module

from cloister.enclave.attestation.simulated.frames import Frame, FramedPipes, mock_error
from cloister.enclave.attestation.simulated.nitro import attestation_answer, attestation_request
from cloister.enclave.attestation.strict_cbor import decode
from cloister.enclave.errors import EnclaveError


class HostedSecurityModule:
    """What a function in a mock enclave asks for documents; the host simulates the module behind it."""

    def __init__(self, pipes: FramedPipes) -> None:
        self._pipes = pipes

    def attest(self, user_data: bytes, nonce: bytes | None = None, public_key: bytes | None = None) -> bytes:
        """A document with these fields.

        Raises:
            AttestationError: attestation.malformed where the module refuses.
            EnclaveError: enclave.mock where the host is gone.
        """
        return self.ask(attestation_request(user_data, nonce, public_key))

    def ask(self, request: bytes) -> bytes:
        """The document that answers a request in the module's own CBOR.

        Raises:
            AttestationError: attestation.malformed where the module refuses.
            EnclaveError: enclave.mock where the host is gone.
        """
        self._pipes.send(Frame.NSM_REQUEST, request)
        kind, answer = self._pipes.receive(None)
        if kind is not Frame.NSM_ANSWER:
            raise mock_error("The host answered something else.")
        return attestation_answer(answer)


EnclaveFunction = Callable[[bytes, HostedSecurityModule], bytes]


def serve(pipes: FramedPipes) -> None:
    """Answer requests until the other side is gone.

    Raises:
        EnclaveError: enclave.mock, when it is.
    """
    functions = _registered(pipes)
    module = HostedSecurityModule(pipes)
    pipes.send(Frame.READY, b"")
    while True:
        kind, body = pipes.receive(None)
        try:
            if kind is Frame.ATTEST:
                answer, data = Frame.DOCUMENT, module.ask(body)
            else:
                answer, data = Frame.OUTPUT, _run(functions, body, module)
        except Exception:  # whatever a function raises stays in the enclave
            answer, data = Frame.FAILED, b""
        pipes.send(answer, data)


def _registered(pipes: FramedPipes) -> dict[str, EnclaveFunction]:
    kind, body = pipes.receive(None)
    listed = decode(body)
    if kind is not Frame.START or not isinstance(listed, dict):
        raise mock_error("The host named no functions.")
    found: dict[str, EnclaveFunction] = {}
    for name, place in listed.items():
        module, _, function = str(place).partition(":")
        found[str(name)] = getattr(import_module(module), function)
    return found


def _run(functions: dict[str, EnclaveFunction], body: bytes, module: HostedSecurityModule) -> bytes:
    asked = decode(body)
    if not isinstance(asked, list) or len(asked) != 2:
        raise mock_error("The host asked for no function.")
    name, data = asked
    if not isinstance(name, str) or not isinstance(data, bytes):
        raise mock_error("The host asked for no function.")
    return bytes(functions[name](data, module))


def main() -> None:
    """Keep the two pipes to itself, so that nothing a function prints gets into them."""
    reading, writing = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    try:
        serve(FramedPipes(reading, writing))
    except EnclaveError:
        return


if __name__ == "__main__":
    main()
