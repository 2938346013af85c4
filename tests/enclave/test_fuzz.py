"""Mutated evidence of every kind: a verdict or an AttestationError, and never anything else.

Two sorts of stranger. One changes genuine bytes, and gets no further than the first check that they break.
The other holds keys that a vendor certified, signs what it likes, and reaches everything behind the
signatures: reports, transcripts, documents, certificates and revocation lists are mutated before they're
signed here. The second may be believed, since it says what its key may say; it may break nothing.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cloister.enclave import AttestationError, Evidence, Status, TrustStore
from cloister.enclave.attestation import Steps, Tee, authenticate, ear
from cloister.enclave.attestation.authenticator import authenticator
from cloister.enclave.attestation.aws.document import sign1, signed_bytes
from tests.enclave import (
    test_ear,
    test_gpu_genuine,
    test_nitro_genuine,
    test_nitro_simulated,
    test_snp_genuine,
)
from tests.enclave.amd_vendor import KeptVendor, replaced_leaf, signed
from tests.enclave.attestation_scene import MEASUREMENT, NOW, scene
from tests.enclave.gpu_scene import device, raw_signature
from tests.enclave.gpu_scene import scene as gpu_scene
from tests.enclave.test_amd_revocation import kept_scene
from tests.evidence.attacks.test_fuzz import HOSTILE, mutated
from tests.nightly import nightly_seed, spread

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK: Final = 60
NIGHT: Final = 40_000
Case = Callable[[random.Random], None]


def not_believed(evidence: Evidence, genuine: Evidence, judge: Callable[[Evidence], object]) -> None:
    with contextlib.suppress(AttestationError):
        judge(evidence)
        assert evidence.report == genuine.report


def one_part_changed(genuine: Evidence, draw: random.Random) -> Evidence:
    """The evidence with its report, one certificate or one further document mutated."""
    names = sorted(genuine.extras)
    place = draw.randrange(1 + len(genuine.chain) + len(names))
    if place == 0:
        return replace(genuine, report=mutated(genuine.report, draw))
    if place <= len(genuine.chain):
        chain = list(genuine.chain)
        chain[place - 1] = mutated(chain[place - 1], draw)
        return replace(genuine, chain=tuple(chain))
    name = names[place - 1 - len(genuine.chain)]
    return replace(genuine, extras={**genuine.extras, name: mutated(genuine.extras[name], draw)})


def changed_genuine(samples: list[tuple[Evidence, Callable[[Evidence], object]]]) -> Case:
    def case(draw: random.Random) -> None:
        genuine, judge = draw.choice(samples)
        not_believed(one_part_changed(genuine, draw), genuine, judge)

    return case


def of_amd(root: Path) -> Case:
    production = TrustStore.production()

    def judge(at: datetime) -> Callable[[Evidence], object]:
        return lambda evidence: authenticate(evidence, production, at)

    samples = [test_snp_genuine.Sample(root, name) for name in test_snp_genuine.SAMPLES]
    return changed_genuine([(one.evidence, judge(one.at)) for one in samples])


def of_aws(root: Path) -> Case:
    def judge(sample: test_nitro_genuine.Sample) -> Callable[[Evidence], object]:
        return lambda evidence: sample.authenticate(evidence.report)

    samples = [test_nitro_genuine.Sample(root, name) for name in test_nitro_genuine.SAMPLES]
    return changed_genuine([(Evidence(Tee.AWS_NITRO, one.document), judge(one)) for one in samples])


def of_nvidia(root: Path) -> Case:
    samples = [test_gpu_genuine.Sample(root, name) for name in test_gpu_genuine.SAMPLES]
    return changed_genuine([(one.evidence, one.authenticate) for one in samples])


GENUINE: Final = {
    "attestation/snp": of_amd,
    "attestation/nitro": of_aws,
    "attestation/nvgpu": of_nvidia,
}


def a_signed_report(draw: random.Random) -> None:
    """An SNP machine whose firmware signs what its host wrote."""
    here = scene()
    report = here.evidence().report
    body = mutated(report[:672], draw)
    r, s = decode_dss_signature(here.platform._key.sign(body, ec.ECDSA(hashes.SHA384())))
    numbers = r.to_bytes(72, "little") + s.to_bytes(72, "little")
    here.verify(Evidence(Tee.AMD_SEV_SNP, body + numbers + report[816:], here.platform.chain))


@lru_cache(maxsize=1)
def kept() -> KeptVendor:
    return KeptVendor()


def a_signed_certificate(draw: random.Random) -> None:
    """A vendor's authority that certifies anything."""
    vendor = kept()
    platform = vendor.simulated().platform("north", MEASUREMENT)
    here = replace(kept_scene(vendor.crl()), platform=platform, trust=TrustStore.simulated(vendor.root_der))
    genuine = here.evidence()
    body = x509.load_der_x509_certificate(genuine.chain[0]).tbs_certificate_bytes
    here.verify(replaced_leaf(genuine, signed(mutated(body, draw), vendor.intermediate_key)))


def a_signed_list(draw: random.Random) -> None:
    """A vendor's root that lists anything as revoked."""
    vendor = kept()
    body = x509.load_der_x509_crl(vendor.crl()).tbs_certlist_bytes
    here = kept_scene(signed(mutated(body, draw), vendor.key))
    platform = vendor.simulated().platform("north", MEASUREMENT)
    replace(here, platform=platform, trust=TrustStore.simulated(vendor.root_der)).verify()


def a_signed_document(draw: random.Random) -> None:
    """A security module of AWS's that signs any payload."""
    module = test_nitro_simulated.module()
    payload = cbor2.loads(module.quote(test_nitro_simulated.BINDING.report_data()).report)[2]
    changed = mutated(payload, draw)
    r, s = decode_dss_signature(module._key.sign(signed_bytes(changed), ec.ECDSA(hashes.SHA384())))
    document = sign1(changed, r.to_bytes(48, "big") + s.to_bytes(48, "big"))
    test_nitro_simulated.verify(Evidence(Tee.AWS_NITRO, document))


def a_signed_transcript(draw: random.Random) -> None:
    """A GPU that signs any measurements."""
    here = gpu_scene()
    body = mutated(here.transcript.encode_signed(), draw)
    evidence = Evidence(Tee.NVIDIA_GPU, body + raw_signature(device()[0].key, body), here.chain)
    gpu = authenticator(Tee.NVIDIA_GPU)
    with contextlib.suppress(AttestationError):
        gpu.appraise(gpu.authenticate(evidence, here.ground(), Steps(gpu.STEPS)), here.policy, here.ground())


def manifests_and_answers(draw: random.Random) -> None:
    """Reference manifests and OCSP answers that came from anywhere."""
    here = gpu_scene()
    place = draw.randrange(len(here.documents))
    changed = replace(here.documents[place], data=mutated(here.documents[place].data, draw))
    documents = (*here.documents[:place], changed, *here.documents[place + 1 :])
    gpu, ground = authenticator(Tee.NVIDIA_GPU), replace(here, documents=documents).ground()
    with contextlib.suppress(AttestationError):
        gpu.appraise(gpu.authenticate(here.evidence(), ground, Steps(gpu.STEPS)), here.policy, ground)


def evidence_on_its_way(draw: random.Random) -> None:
    """The canonical form in which evidence travels."""
    here = scene()
    genuine = here.evidence()
    with contextlib.suppress(AttestationError):
        changed = Evidence.decode(mutated(genuine.encode(), draw))
        assert here.verify(changed).status is Status.UNTRUSTED or changed.report == genuine.report


def a_token(draw: random.Random) -> None:
    token = test_ear.token_of(scene().verify())
    changed = mutated(token.encode(), draw)
    with contextlib.suppress(AttestationError, UnicodeDecodeError):
        text = changed.decode()
        ear.read(text, test_ear.VERIFIER.public_key, NOW)
        assert text == token


SIGNED: Final[dict[str, Case]] = {
    one.__name__: one
    for one in (
        a_signed_report,
        a_signed_certificate,
        a_signed_list,
        a_signed_document,
        a_signed_transcript,
        manifests_and_answers,
        evidence_on_its_way,
        a_token,
    )
}


@pytest.mark.parametrize("folder", GENUINE)
def test_changed_genuine_evidence_is_not_believed(folder: str, shared_data: Callable[[str], Path]) -> None:
    case, draw = GENUINE[folder](shared_data(folder)), random.Random(2026)
    for _ in range(QUICK):
        case(draw)


@pytest.mark.parametrize("name", SIGNED)
def test_whatever_is_signed_or_sent_ends_in_a_verdict_or_the_typed_error(name: str) -> None:
    draw = random.Random(2026)
    for _ in range(QUICK):
        SIGNED[name](draw)


@pytest.mark.parametrize("tee", list(Tee))
def test_hostile_shapes_end_in_a_verdict(tee: Tee) -> None:
    here = scene()
    for data in HOSTILE.values():
        assert here.verify(Evidence(tee, data)).status is Status.UNTRUSTED
        assert here.verify(Evidence(tee, here.evidence().report, (data,))).status is Status.UNTRUSTED
        assert here.verify(replace(here.evidence(), extras={"ccel": data})).status is Status.UNTRUSTED


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("folder", GENUINE)
def test_a_night_of_changed_genuine_evidence(
    folder: str, shared_data: Callable[[str], Path], record_property: Callable[[str, object], None]
) -> None:
    case = GENUINE[folder](shared_data(folder))
    for number in spread(range(NIGHT), record_property):
        case(random.Random(nightly_seed() * NIGHT + number))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SIGNED)
def test_a_night_of_signed_mutations(name: str, record_property: Callable[[str, object], None]) -> None:
    for number in spread(range(NIGHT), record_property):
        SIGNED[name](random.Random(nightly_seed() * NIGHT + number))
