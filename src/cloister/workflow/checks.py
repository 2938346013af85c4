"""The checks that upper rooms plug into the receipt verifier, gathered in one place.

A check that isn't plugged in counts as not run, hence failed; so every command that verifies takes
its registry from here.
"""

from __future__ import annotations

from cloister.enclave.receipt_check import register_attestation_check
from cloister.evidence.checks import CheckRegistry
from cloister.policy.receipt_check import POLICY_CHECK_ID, check_policy


def full_registry() -> CheckRegistry:
    """Return a registry with the attestation and the policy check."""
    registry = CheckRegistry()
    register_attestation_check(registry)
    registry.register(POLICY_CHECK_ID, check_policy)
    return registry
