"""What several hospitals agree on about hardware: for every term, the strictest word of any of them.

Rules kept here:

* What the agreed terms accept, each hospital's own accept too. The order of hospitals changes nothing.
* Where no machine could satisfy all of them, that is said before any machine is asked, by the term's name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from cloister.enclave.errors import AttestationError
from cloister.evidence.hardware_terms import (
    GpuMode,
    Gpus,
    HardwareTerms,
    LowestVersions,
    ProductLine,
    driver_order,
)

ItemT = TypeVar("ItemT", bound=Hashable)
_USUAL_MODES = (GpuMode.SINGLE,)


def strictest_of(terms: Sequence[HardwareTerms]) -> HardwareTerms:
    """The terms that every one of these terms is kept by.

    Args:
        terms: each hospital's, one at least.

    Returns:
        Of what is allowed, only what all allow; of minima the highest, of maxima the lowest.

    Raises:
        AttestationError: attestation.no_common_policy, with the name of the term, where they contradict.
    """
    evaluations = [one.minimum_tcb_evaluation for one in terms if one.minimum_tcb_evaluation is not None]
    ages = [one.maximum_collateral_age_days for one in terms if one.maximum_collateral_age_days is not None]
    drivers = [one.minimum_gpu_driver for one in terms if one.minimum_gpu_driver is not None]
    gpus, modes = _gpus(terms)
    return HardwareTerms(
        without_revocation=tuple(sorted(common(one.without_revocation for one in terms))),
        vmpl=_vmpl(terms),
        amd_lines=_amd_lines(terms),
        minimum_tcb=_minimum_tcb(terms),
        accepted_tcb_statuses=tuple(sorted(common(one.accepted_tcb_statuses for one in terms))),
        accepted_advisories=tuple(sorted(common(one.accepted_advisories for one in terms))),
        minimum_tcb_evaluation=max(evaluations, default=None),
        maximum_collateral_age_days=min(ages, default=None),
        gpus=gpus,
        gpu_modes=modes,
        minimum_gpu_driver=max(drivers, key=driver_order, default=None),
    )


def common(each: Iterable[Iterable[ItemT]]) -> frozenset[ItemT]:
    """What is in every one of them; nothing if there are none."""
    sets = [frozenset(one) for one in each]
    return frozenset.intersection(*sets) if sets else frozenset()


def no_common(term: str, why: str, hint: str) -> AttestationError:
    """The refusal of terms that contradict.

    Args:
        term: the field, as every document names it.
        why: how they contradict.
        hint: what to do.
    """
    return AttestationError(
        "attestation.no_common_policy",
        f"No machine can satisfy every manifest of the job: {term} {why}.",
        hint,
    )


def _vmpl(terms: Sequence[HardwareTerms]) -> int:
    levels = {one.vmpl for one in terms}
    if len(levels) != 1:
        raise no_common(
            "vmpl", "differs", "Let the hospitals agree on the privilege level that the image runs at."
        )
    return levels.pop()


def _amd_lines(terms: Sequence[HardwareTerms]) -> tuple[ProductLine, ...]:
    """None is no contradiction yet: whether the job needs AMD's hardware is for who knows its code."""
    lines = common(one.amd_lines for one in terms)
    return tuple(line for line in ProductLine if line in lines)


def _minimum_tcb(terms: Sequence[HardwareTerms]) -> dict[ProductLine, LowestVersions]:
    """Whoever names no versions of a generation asks nothing of it, and doesn't undo what another asks."""
    each = [one.minimum_tcb for one in terms]
    return {
        line: _highest([one[line] for one in each if line in one])
        for line in ProductLine
        if any(line in one for one in each)
    }


def _highest(versions: Sequence[LowestVersions]) -> LowestVersions:
    names = versions[0].as_dict()
    return LowestVersions(**{name: max(one.as_dict()[name] for one in versions) for name in names})


def _gpus(terms: Sequence[HardwareTerms]) -> tuple[Gpus, tuple[GpuMode, ...]]:
    words = {one.gpus for one in terms}
    modes = tuple(sorted(common(one.gpu_modes for one in terms)))
    if {Gpus.NOT_USED, Gpus.REQUIRED} <= words:
        raise no_common(
            "gpus", "is required by one and not used by another", "Let the hospitals agree on one word."
        )
    if Gpus.REQUIRED in words and not modes:
        raise no_common(
            "gpu_modes", "has no mode that all of them name", "Let the hospitals agree on a mode."
        )
    if Gpus.NOT_USED in words or not modes:
        return Gpus.NOT_USED, modes or _USUAL_MODES
    return Gpus.REQUIRED if Gpus.REQUIRED in words else Gpus.ALLOWED, modes
