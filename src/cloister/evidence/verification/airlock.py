"""The check on what left each site: that it is what the hub used, and what the site's manifest lets out.

Nothing of it rests on the site's word for its own rules: cap, rounding and bound are recomputed from the
manifest, the job, the stated spend and the number of units, and the policy's hash from those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from cloister.core.canonical import JSON
from cloister.core.errors import CloisterError
from cloister.evidence.airlock_policy import (
    ELEMENT_BYTES,
    FROM_CLIPPING,
    MAX_UPDATE_BYTES,
    cap_of_a_round,
    constraints_of,
    element_bytes,
    elements,
    information_bits,
    policy_sha256,
)
from cloister.evidence.change_limit import ChangeLimit, Descent, change_limit
from cloister.evidence.checks import Check, judged
from cloister.evidence.context import ReceiptContext
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    RoundAggregated,
    UpdateReleased,
)
from cloister.evidence.record import JobRecord
from cloister.evidence.transcript import SampledGaussian, event_from_json
from cloister.evidence.weights import TensorForm


def check_airlock(context: ReceiptContext) -> Check:
    """What the hub used is what each site released: the same updates, of one shape, none left out unsaid.

    What a site released in a round that it is absent from has left it too: once, and charged for.
    """
    record = context.record
    released = {(one.party, one.round): one for one in record.of(UpdateReleased)}
    problems: list[str] = []
    for round_ in record.by(record.issuer, RoundAggregated):
        for site, digest in round_.updates.items():
            one = released.pop((site, round_.round), None)
            if one is None or one.update_sha256 != digest:
                problems.append(f"round {round_.round}: the hub used an update {site} did not release")
            elif one.model_sha256 != round_.model_sha256_before:
                problems.append(f"round {round_.round}: {site} was sent other weights than the hub says")
        for site in round_.absent:
            released.pop((site, round_.round), None)
    problems += [f"round {number}: the hub ignored what {site} released" for site, number in sorted(released)]
    everything = record.of(UpdateReleased)
    if len({one.tensors for one in everything}) > 1:
        problems.append("updates of different shapes left the sites")
    times = Counter((one.party, one.round) for one in everything)
    problems += [
        f"round {number}: {site} released {count} updates"
        for (site, number), count in sorted(times.items())
        if count > 1
    ]
    spends = {(one.party, one.round): one for one in record.of(BudgetSpend) if one.purpose == "training"}
    attested, signers = _attested(record), _signers(record)
    for one in everything:
        spend = spends.get((one.party, one.round))
        found = [
            *(("released an update that nothing was charged for",) if spend is None else ()),
            *_form_problems(one),
            *_policy_problems(one),
            *_manifest_problems(record, one, spend),
            *_key_problems(one, attested.get(one.party, ()), signers[id(one)]),
        ]
        problems += [f"round {one.round}: {one.party} {text}" for text in found]
    return judged("airlock", problems, f"{len(everything)} updates used as released, within their manifests")


def forms_of(one: UpdateReleased) -> tuple[TensorForm, ...]:
    """The tensors that left in an update, sorted by name."""
    return tuple(
        sorted(
            (TensorForm(part.name, part.dtype, tuple(part.shape)) for part in one.tensors),
            key=lambda form: form.name,
        )
    )


def _form_problems(one: UpdateReleased) -> Iterator[str]:
    forms = forms_of(one)
    if len({form.name for form in forms}) != len(forms):
        yield "released two tensors of one name"
    if one.scalars:
        yield "released numbers beside the model's tensors"
    if not all(form.dtype in ELEMENT_BYTES for form in forms):
        yield "released something else than float tensors"
    elif one.bytes != element_bytes(forms):
        yield "released another number of bytes than its tensors have"
    elif one.bits != information_bits(forms, mantissa_bits=one.mantissa_bits):
        yield "states another capacity of its update than its tensors have"


def _policy_problems(one: UpdateReleased) -> Iterator[str]:
    stated = _stated_change(one)
    policy = policy_sha256(
        forms_of(one),
        max_bytes=one.max_bytes,
        mantissa_bits=one.mantissa_bits,
        change=stated,
        max_bits=one.max_bits,
    )
    if one.airlock_policy_sha256 != policy:
        yield "applied another airlock policy than the one for these tensors"
    if one.constraints != constraints_of(
        mantissa_bits=one.mantissa_bits, change=stated, max_bits=one.max_bits
    ):
        yield "does not say that it held the update against every constraint of its policy"


def _manifest_problems(record: JobRecord, one: UpdateReleased, spend: BudgetSpend | None) -> Iterator[str]:
    manifest = record.manifests.get(one.party)
    if manifest is None:
        yield "released an update without a manifest"
        return
    rules = manifest.terms.airlock
    if one.manifest_sha256 != manifest.envelope.payload_sha256:
        yield "applied the output constraints of another manifest"
    if one.max_bytes != min(rules.max_update_bytes, MAX_UPDATE_BYTES) or one.bytes > one.max_bytes:
        yield "released more bytes than its manifest allows, or applied another cap"
    if one.mantissa_bits != rules.mantissa_bits:
        yield "rounded its weights otherwise than its manifest asks"
    cap = cap_of_a_round(rules.max_update_bits, rules.max_job_bits, record.job.rounds)
    if one.max_bits != cap or (cap is not None and one.bits > cap):
        yield "released more information than its manifest allows, or applied another cap"
    expected = _expected_change(record, one, spend) if rules.norm_bound == FROM_CLIPPING else None
    stated = _stated_change(one)
    if rules.norm_bound != FROM_CLIPPING:
        if stated is not None:
            yield "applied a bound on changes that its manifest doesn't ask for"
    elif stated is None or expected is None or not stated.agrees_with(expected):
        yield "held its weights against another bound than clipping makes possible"


@dataclass(frozen=True)
class _Attested:
    """A verdict of the hub's that a site's machine will do: for which key, and where it is logged."""

    key_id: str
    log: str
    index: int


def _key_problems(
    one: UpdateReleased, attested: Sequence[_Attested], signers: frozenset[str]
) -> Iterator[str]:
    """The key that an update names was attested before the round's task came, and signed the statement."""
    bound = [verdict for verdict in attested if verdict.key_id == one.attested_key_id]
    if not bound:
        yield "released an update under a key that no trusted attestation is bound to"
    elif not any(verdict.log == one.hub_log.origin and verdict.index < one.hub_log.size for verdict in bound):
        yield "released an update before its key was attested"
    if signers != {one.attested_key_id}:
        yield "signed the release of an update with another key than the attested one it names"


def _attested(record: JobRecord) -> dict[str, list[_Attested]]:
    found: dict[str, list[_Attested]] = {}
    for logged in record.logged:
        one = logged.predicate
        if isinstance(one, AttestationVerdict) and one.party == record.issuer and one.status == "TRUSTED":
            verdict = _Attested(one.site_key_id, logged.log, logged.entry.index)
            found.setdefault(one.site, []).append(verdict)
    return found


def _signers(record: JobRecord) -> dict[int, frozenset[str]]:
    """By release of an update, the keys whose signatures its envelope bears."""
    return {
        id(logged.predicate): frozenset(one.key_id for one in logged.entry.envelope.signatures)
        for logged in record.logged
        if isinstance(logged.predicate, UpdateReleased)
    }


def _stated_change(one: UpdateReleased) -> ChangeLimit | None:
    stated = one.change
    return None if stated is None else ChangeLimit(stated.l2, stated.largest, stated.rounding)


def _expected_change(record: JobRecord, one: UpdateReleased, spend: BudgetSpend | None) -> ChangeLimit | None:
    units = max((data.units for data in record.by(one.party, DataCommitment)), default=0)
    if spend is None:
        return None
    try:
        event = event_from_json(cast(JSON, spend.event))
        if not isinstance(event, SampledGaussian):
            return None
        return change_limit(
            Descent(
                clip_norm=record.job.privacy.max_grad_norm,
                noise_multiplier=event.noise_multiplier,
                sampling_probability=event.sampling_probability,
                units=units,
                steps=record.job.training.local_steps,
                learning_rate=record.job.training.learning_rate,
                parameters=elements(forms_of(one)),
            )
        ).rounded_to(one.mantissa_bits)
    except (CloisterError, OverflowError):
        return None
