"""Functions that the tests register in a mock enclave."""

from __future__ import annotations

import os
import time

from cloister.enclave.attestation.simulated.enclave_child import HostedSecurityModule


def reverse(data: bytes, nsm: HostedSecurityModule) -> bytes:
    del nsm
    print("this goes nowhere")
    return data[::-1]


def attested(data: bytes, nsm: HostedSecurityModule) -> bytes:
    return nsm.attest(data, nonce=b"asked from inside")


def fails(data: bytes, nsm: HostedSecurityModule) -> bytes:
    raise ValueError(data)


def sleeps(data: bytes, nsm: HostedSecurityModule) -> bytes:
    time.sleep(60)
    return data


def leaves(data: bytes, nsm: HostedSecurityModule) -> bytes:
    os._exit(0)


def process(data: bytes, nsm: HostedSecurityModule) -> bytes:
    return str(os.getpid()).encode()
