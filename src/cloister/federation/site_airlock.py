"""The airlock of one job at one site: what its manifest allows, made into the policy each update is held to.

The bound on an update's change is computed from public figures alone, before anything is trained: a verifier
computes the same from the job, the stated spend and the number of units (`cloister.evidence.change_limit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloister.enclave.airlock import ScreenedUpdate
from cloister.enclave.airlock_policy import AirlockPolicy
from cloister.enclave.tensors import FloatArray
from cloister.evidence.airlock_policy import MAX_UPDATE_BYTES, cap_of_a_round
from cloister.evidence.change_limit import ChangeLimit, Descent, change_limit
from cloister.policy.manifest import AirlockTerms, NormBound, ProtocolManifest
from cloister.privacy.trainer import TrainingPlan


@dataclass(frozen=True)
class OutputTerms:
    """What a site's manifest says of outputs, and which manifest that is.

    Attributes:
        manifest_sha256: the signed manifest.
        airlock: its terms for each update.
    """

    manifest_sha256: str
    airlock: AirlockTerms

    @classmethod
    def of(cls, manifest: ProtocolManifest) -> OutputTerms:
        """The terms of a manifest."""
        return cls(manifest.sha256, manifest.airlock)


def job_airlock(
    terms: OutputTerms, model: Mapping[str, FloatArray], plan: TrainingPlan, units: int, rounds: int
) -> AirlockPolicy:
    """The policy that every update of a job is held to at a site.

    Args:
        terms: what the site's manifest says.
        model: the model's weights by name; only their forms count.
        plan: what one round is.
        units: the site's records, or subjects where those are what is protected; public.
        rounds: how many rounds the job has.

    Raises:
        EnclaveError: the model has other tensors than floats, or a name that never leaves.
    """
    rules = terms.airlock
    return AirlockPolicy.for_tensors(
        model,
        max_bytes=min(rules.max_update_bytes, MAX_UPDATE_BYTES),
        mantissa_bits=rules.mantissa_bits,
        change=_change(model, plan, units).rounded_to(rules.mantissa_bits)
        if rules.norm_bound is NormBound.FROM_CLIPPING
        else None,
        max_bits=cap_of_a_round(rules.max_update_bits, rules.max_job_bits, rounds),
    )


def _change(model: Mapping[str, FloatArray], plan: TrainingPlan, units: int) -> ChangeLimit:
    return change_limit(
        Descent(
            clip_norm=plan.max_grad_norm,
            noise_multiplier=plan.noise_multiplier,
            sampling_probability=plan.sampling_probability,
            units=units,
            steps=plan.steps,
            learning_rate=plan.learning_rate,
            parameters=sum(tensor.size for tensor in model.values()),
        )
    )


def output_statement(
    screened: ScreenedUpdate, policy: AirlockPolicy, terms: OutputTerms, attested_key_id: str
) -> dict[str, object]:
    """The fields of `UpdateReleased` that bind an update to key, manifest and the airlock's verdict.

    Args:
        screened: what leaves.
        policy: what it was held to.
        terms: where that policy comes from.
        attested_key_id: the key that the site's evidence is bound to.
    """
    change = policy.change
    return {
        "update_sha256": screened.sha256,
        "tensors": [
            {"name": name, "shape": list(tensor.shape), "dtype": tensor.dtype.name}
            for name, tensor in screened.tensors.items()
        ],
        "scalars": sorted(screened.scalars),
        "bytes": screened.bytes,
        "airlock_policy_sha256": policy.sha256,
        "manifest_sha256": terms.manifest_sha256,
        "attested_key_id": attested_key_id,
        "max_bytes": policy.max_bytes,
        "mantissa_bits": policy.mantissa_bits,
        "bits": policy.bits,
        "max_bits": policy.max_bits,
        "change": None
        if change is None
        else {"l2": change.l2, "largest": change.largest, "rounding": change.rounding},
        "constraints": policy.constraints,
    }
